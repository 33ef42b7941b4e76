"""Proves a derived dialect: what the template writes is read back, at once and by characters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from everwarm.messages import Message
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.renderings import (
    KEYS,
    NAMES,
    THOUGHT,
    TYPED,
    Calls,
    Renderings,
    parameters,
)
from everwarm.prompt.dialects.section_reader import SectionReader
from everwarm.prompt.partial_reply import PartialReply

_TEXT_VALUE = 'C:\\é "here"\n  {1: [}'
_TYPES = {"text": "string"} | {k: k for k in TYPED}
_SCHEMA = parameters(dict.fromkeys(KEYS, "string") | _TYPES)
_TOOLS = dict.fromkeys(NAMES, _SCHEMA)
_CALLS: tuple[Calls, ...] = (
    ((NAMES[0], {"text": _TEXT_VALUE}),),
    ((NAMES[0], {}),),
    ((NAMES[0], {KEYS[0]: "first"}), (NAMES[1], {KEYS[0]: "second", KEYS[1]: "third"})),
)


def read(
    dialect: Dialect, pieces: Iterable[str], tools: Mapping[str, Mapping[str, Any]] = _TOOLS
) -> Message:
    """The message that a reply in these pieces is read as."""
    draft = PartialReply((), lambda: "call")
    reader = SectionReader(dialect, draft, tools, lambda _: [], opens_reasoning=False)
    for piece in pieces:
        if draft.add(piece, held=reader.mode == "call"):
            while reader.step():
                pass
    draft.final = True
    draft.add("", held=False)
    reader.finish()
    return draft.message


def why_unproved(dialect: Dialect, renderings: Renderings, reply_of: Callable[[str], str]) -> str:
    """What of the template's own calls is not read back; empty where all is."""
    n_read = 0
    for calls in _CALLS:
        for thought in ("", THOUGHT):
            text = renderings.called(calls, thought)
            shown = [c for c in calls if text is not None and c[0] in text]
            if text is None or not shown:
                continue
            n_read += 1
            why = _fault(dialect, reply_of(text), shown)
            if why:
                return why
    return "" if n_read else "it writes none of them"


def untyped(
    dialect: Dialect, renderings: Renderings, reply_of: Callable[[str], str]
) -> Sequence[str]:
    """The types of arguments that are not read back as they were."""
    failed = []
    for kind, value in TYPED.items():
        calls = ((NAMES[0], {kind: value}),)
        text = renderings.called(calls)
        if text is not None and _fault(dialect, reply_of(text), calls):
            failed.append(kind)
    return failed


def _fault(dialect: Dialect, reply: str, calls: Calls) -> str:
    for pieces in ([reply], list(reply)):
        message = read(dialect, pieces)
        got = [(c.name, json.loads(c.arguments)) for c in message.tool_calls]
        if not _same(got, calls):
            return f"{[dict(a) for _, a in calls]} comes as {got}, text {message.text!r}"
        if message.text.strip():
            return f"it leaves {message.text.strip()!r} in the answer"
        if message.reasoning.strip() not in ("", THOUGHT):
            return f"it leaves {message.reasoning.strip()!r} in the reasoning"
    return ""


def _same(got: Sequence[tuple[str, Any]], calls: Calls) -> bool:
    """Whether these are the calls; a template may leave an argument of `null` out."""
    if [n for n, _ in got] != [n for n, _ in calls]:
        return False
    return all(
        a == dict(b) or a == {k: v for k, v in b.items() if v is not None}
        for (_, a), (_, b) in zip(got, calls, strict=True)
    )
