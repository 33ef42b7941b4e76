"""`everwarm why`: why a turn read more than was new in it."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from everwarm.client import ChatClient
from everwarm.errors import NotFound
from everwarm.events import SCAFFOLD

_RECENT = 1000
_CHANGED = "everything behind a change has to be read again, since a model reads left to right"
_EXCEPTIONS = {
    SCAFFOLD: "layers that cannot be cut go back to the checkpoint before the prompt's end",
    "cache": "what was evicted, or lies between two checkpoints, has to be read again",
    "branch": "what now follows other messages has to be read again",
    "whole prompt": "what this server has not read has to be read once",
}
"""Why a turn may read more than its new tokens, by the part of its miss. See docs/reading.md."""


def show(client: ChatClient, turn: str | None, *, as_json: bool) -> None:
    """Print one turn's reason: the named one, or the latest that has one."""
    turns = client.get(f"/api/turns?limit={_RECENT}")["turns"]
    found = _choose(turns, turn)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    if found is None:
        console.print(f"None of the last {len(turns)} turns read more than was new.")
        return
    for line in lines(found):
        console.print(line)


def _choose(turns: list[dict[str, Any]], turn: str | None) -> dict[str, Any] | None:
    """The turn whose id begins or ends with `turn`; without it, the latest with a miss."""
    if turn is None:
        return next((t for t in turns if t["miss"]), None)
    named = [t for t in turns if str(t["id"]).startswith(turn) or str(t["id"]).endswith(turn)]
    if not named:
        raise NotFound(f"The server knows no turn {turn} among the last {len(turns)}.")
    return named[0]


def lines(turn: dict[str, Any]) -> list[Text]:
    """What is printed of a turn."""
    out = [
        Text(str(turn["id"]), "bold"),
        Text(
            f"read {turn['prefilled_tokens']:,} of {turn['prompt_tokens']:,} tokens; "
            f"{turn['new_tokens']:,} were new, {turn['unseen_tokens']:,} never read before; "
            f"{turn['again']:,} again"
        ),
    ]
    if n := turn["sticky_reminders"]:
        said = "a message keeps a reminder" if n == 1 else f"{n} messages keep reminders"
        out.append(Text(f"{said} that the client took out: what was read stays"))
    if turn["tools_from"] == "conversation":
        out.append(Text("the request brought no tools: it was given its conversation's"))
    miss = turn["miss"]
    if not miss:
        return [*out, Text("nothing was read twice", "green")]
    out.append(Text(f"{miss['part']}, at token {miss['at']:,}: {miss['cause']}", "yellow"))
    exception = _EXCEPTIONS.get(miss["part"], _CHANGED)
    out.append(Text(f"an exception to reading only new tokens: {exception}", "dim"))
    if miss["by_text"] or miss["by_cache"]:
        said = f"lost by the difference: {miss['by_text']:,}; by the cache: {miss['by_cache']:,}"
        out.append(Text(said, "dim"))
    if miss["before"] or miss["after"]:
        out += diff(miss["before"], miss["after"])
    return out


def diff(before: str, after: str) -> list[Text]:
    """Both texts, what they share in front dimmed."""
    pairs = enumerate(zip(before, after, strict=False))
    n = next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))
    shared = before[:n].rsplit("\n", 1)
    made = [Text(f"  {line}", "dim") for line in "\n".join(shared[:-1]).split("\n") if line]
    for sign, text, style in (("-", before, "red"), ("+", after, "green")):
        first, *rest = text[n:].split("\n")
        line = Text(f"{sign} ", style)
        line.append(shared[-1], "dim")
        line.append(first, style)
        made += [line, *(Text(f"{sign} {more}", style) for more in rest)]
    return made
