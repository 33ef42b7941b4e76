"""One workload against several running servers, in turns: what each reads, and how long it takes.

Every server gets the same messages, and its own replies back. In each scenario the servers are
asked one after another before the next step, so that whatever else the machine does meets them
alike. The same scenario is played several times with other text; medians count.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from everwarm.client import ChatClient, ChatReply, Delta
from everwarm.errors import ConfigError, EverwarmError
from everwarm.lab.conversation import WORDS, code, prose, tool_call
from everwarm.lab.report import Report, Table, or_dash, report_on, seconds
from everwarm.lab.result import Result

TOKENS_A_LINE: Final = 21
GIVE_UP: Final = 0.5
"""Part of a cold time to first token after which the client leaves in `disconnect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """`tokens`: about how long the conversations are."""

    tokens: int = 4000
    rounds: int = 3
    reply_tokens: int = 16
    seed: int = 0


@dataclass(slots=True)
class Side:
    """One server and its copy of the conversations. Live."""

    name: str
    client: ChatClient
    model: str
    talks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)  # by what was asked


class CompareRun:
    """All scenarios on all servers. Live: one thread. `measured()` yields each row it adds."""

    def __init__(
        self,
        clients: dict[str, ChatClient],
        models: dict[str, str],
        plan: ComparePlan,
        result: Result,
    ) -> None:
        self.plan, self.result = plan, result
        self._sides = [Side(n, c, models[n]) for n, c in clients.items()]
        self._round = 0
        self._first: str | None = None  # what the first server said last
        self.doing = "starting"

    def measured(self) -> Iterator[dict[str, Any]]:
        """Play every scenario, round after round."""
        for n in range(self.plan.rounds):
            self._round = n
            yield from self._chat()
            yield from self._branches()
            yield from self._tools()
            yield from self._strangers()
            yield from self._interleaved()
            yield from self._disconnect()
        for side in self._sides:  # for `restarted`
            self.result.plan["last"][side.name] = side.talks["left"]
        self.result.complete = True

    def time_left(self) -> None:
        """Not known: servers differ too much."""

    def restarted(self) -> Iterator[dict[str, Any]]:
        """Ask every server the last prompt of an earlier run again. Raises ConfigError."""
        last = self.result.plan.get("last") or {}
        if missing := [s.name for s in self._sides if s.name not in last]:
            raise ConfigError(f"The run in --out did not come to its end for {missing[0]}.")
        self._round = self.plan.rounds
        for side in self._sides:
            *asked, said = last[side.name]
            side.talks["left"] = asked
            side.said[_key(asked)] = said["content"]
        yield from self._ask("the same after a restart", "left")

    def _chat(self) -> Iterator[dict[str, Any]]:
        """A conversation grows by code and short questions."""
        self._begin("main", lines=self._lines(0.4))
        yield from self._ask("cold", "main")
        for part in range(3):
            self._say("main", f"File {part}:\n{self._code(f'chat {part}', 0.2)}\nWhat is it for?")
            yield from self._ask("grow", "main")
        for part in range(3):
            self._say("main", self._prose(f"question {part}", 14))
            yield from self._ask("next turn", "main")

    def _branches(self) -> Iterator[dict[str, Any]]:
        """The last reply again; then the last question put differently; then an early one."""
        self._back("main", 1)
        yield from self._ask("regenerate", "main")
        self._back("main", 2)
        self._say("main", self._prose("edited", 14))
        yield from self._ask("edit the last message", "main")
        self._back("main", 6)
        self._say("main", self._prose("edited early", 14))
        yield from self._ask("edit three turns back", "main")

    def _tools(self) -> Iterator[dict[str, Any]]:
        """A tool loop: the client puts a call behind each reply, and its result."""
        self._say("main", self._prose("tools", 14))
        yield from self._ask("next turn", "main")
        for step in range(2):
            r = self._random(f"call {step}")
            call = tool_call(r, "read_file", {"path": "/".join(r.choices(WORDS, k=3))})
            result = {"role": "tool", "tool_call_id": call["id"], "content": code(r, 6)}
            for side in self._sides:
                side.talks["main"][-1] = side.talks["main"][-1] | {"tool_calls": [call]}
                side.talks["main"].append(result)
            yield from self._ask("tool loop", "main")

    def _strangers(self) -> Iterator[dict[str, Any]]:
        """Begin another conversation with the same long system prompt."""
        for side in self._sides:
            side.talks["other"] = side.talks["main"][:1]
        self._say("other", self._prose("other", 20))
        yield from self._ask("same system prompt", "other")

    def _interleaved(self) -> Iterator[dict[str, Any]]:
        """Two agents take turns."""
        names = ("one", "two")
        for name in names:
            self._begin(name, lines=self._lines(0.5))
            yield from self._ask("cold", name)
        for turn in range(2):
            for name in names:
                self._say(name, self._prose(f"{name} {turn}", 14))
                yield from self._ask("two agents in turns", name)

    def _disconnect(self) -> Iterator[dict[str, Any]]:
        """A client leaves in the middle of a long prompt, and asks the same again.

        One server after the other: some read on with nobody waiting, which the others would feel.
        """
        self._begin("left", lines=self._lines(1.0))
        for side in self._sides:
            own = [r for r in self.result.rows if (r["server"], r["kind"]) == (side.name, "cold")]
            colds = [r["ttft_s"] / max(1, r["prompt_tokens"]) for r in own if "error" not in r]
            if colds:
                self._leave(side, GIVE_UP * statistics.median(colds) * self.plan.tokens)
            yield from self._ask("ask again after leaving", "left", side)

    def _leave(self, side: Side, after_s: float) -> None:
        impatient = side.client.again(read_timeout=after_s)
        try:
            for _ in self._stream(side, side.talks["left"], impatient):
                break
        except EverwarmError:  # the timeout, which is what we want
            pass
        finally:
            impatient.close()

    def _stream(
        self, side: Side, messages: Sequence[dict[str, Any]], client: ChatClient
    ) -> Iterator[Delta | ChatReply]:
        n = self.plan.reply_tokens
        return client.chat(messages, model=side.model, max_tokens=n, temperature=0)

    def _ask(self, kind: str, talk: str, only: Side | None = None) -> Iterator[dict[str, Any]]:
        """Ask every server, or only one, and give each its own reply back."""
        for side in self._sides if only is None else [only]:
            self.doing = f"round {self._round + 1} of {self.plan.rounds}: {kind}, {side.name}"
            row: dict[str, Any] = {"kind": kind, "server": side.name, "round": self._round}
            self.result.rows.append(row)
            key = _key(side.talks[talk])
            if side is self._sides[0]:
                self._first = None
            try:
                *_, reply = self._stream(side, side.talks[talk], side.client)
            except EverwarmError as error:
                row["error"] = str(error)
                side.talks[talk].append({"role": "assistant", "content": "..."})
                yield row
                continue
            assert isinstance(reply, ChatReply)
            side.talks[talk].append({"role": "assistant", "content": reply.text})
            text = reply.text.strip()  # some servers drop the space before the first word
            self._first = text if side is self._sides[0] else self._first
            row |= {
                "prompt_tokens": reply.prompt_tokens,
                "prefilled_tokens": reply.prefilled_tokens,
                "ttft_s": reply.ttft_s or reply.total_s,
                "total_s": reply.total_s,
                "same_text": text == self._first,
            }
            if key in side.said:
                row["as_before"] = reply.text == side.said[key]
            side.said[key] = reply.text
            yield row

    def _begin(self, talk: str, lines: int) -> None:
        system = f"{time.time_ns():x}. You know this file:\n{code(self._random(talk), lines)}"
        for side in self._sides:
            side.talks[talk] = [{"role": "system", "content": system}]
        self._say(talk, self._prose(f"{talk} first", 14))

    def _say(self, talk: str, text: str) -> None:
        for side in self._sides:
            side.talks[talk].append({"role": "user", "content": text})

    def _back(self, talk: str, n: int) -> None:
        for side in self._sides:
            del side.talks[talk][-n:]

    def _lines(self, share: float) -> int:
        return max(1, int(share * self.plan.tokens / TOKENS_A_LINE))

    def _code(self, what: str, share: float) -> str:
        return code(self._random(what), self._lines(share))

    def _prose(self, what: str, n: int) -> str:
        return prose(self._random(what), n) + "?"

    def _random(self, what: str) -> Random:
        return Random(f"{self.plan.seed} {self._round} {what}")


def new_result(models: dict[str, str], plan: ComparePlan) -> Result:
    """An empty result for these servers, each with its model's id."""
    names = ", ".join(sorted(set(models.values())))
    about = {"servers": models, "last": {}}
    return Result(benchmark="compare", model=names, plan=asdict(plan) | about)


def _key(messages: Sequence[dict[str, Any]]) -> str:
    return json.dumps(messages)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a scenario: medians of each server, and its time over that of the first one."""
    servers = list(dict.fromkeys(r["server"] for r in rows))
    answered = [r for r in rows if "error" not in r]
    out = []
    for kind in dict.fromkeys(r["kind"] for r in answered):
        own = {s: [r for r in answered if (r["server"], r["kind"]) == (s, kind)] for s in servers}
        sides = {s: _median(r) for s, r in own.items() if r}
        base = sides.get(servers[0])
        for side in sides.values():
            side["ratio"] = side["ttft_s"] / base["ttft_s"] if base else None
        out.append({"kind": kind, "servers": sides})
    return out


def _median(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    keys = ("prompt_tokens", "prefilled_tokens", "ttft_s")
    again = [r["as_before"] for r in rows if "as_before" in r]
    return {k: statistics.median(r[k] for r in rows) for k in keys} | {
        "asked": len(rows),
        "same_text": sum(r["same_text"] for r in rows),
        "asked_before": len(again),
        "as_before": sum(again),
    }


def compare_report(result: Result, out: Path) -> Report:
    """The report: times, tokens read, and which texts differ."""
    found, servers = summary(result.rows), list(result.plan["servers"])
    base = servers[0]
    again = [f for f in found if any(s["asked_before"] for s in f["servers"].values())]

    def table(title: str, lines: list[dict[str, Any]], cell: Callable[[Any], str]) -> Table:
        rows = [(f["kind"], *(or_dash(f["servers"].get(s), cell) for s in servers)) for f in lines]
        return Table(title, ("what is asked", *servers), rows)

    return report_on(
        result,
        f"Times are medians, to the first token, at the client. In brackets: times that of {base}; "
        "below 1 is faster.",
        "Tokens read are what each server reports (prompt less cached); a server that reports no "
        "cached tokens seems to read everything.",
        "Every server has its own replies in its conversation. Texts are greedy and compared with "
        f"those of {base}; random weights have many near ties.",
        facts=f"; {result.started}",
        title="The same work on several servers",
        headline=", ".join(f"{n} ({m})" for n, m in result.plan["servers"].items()),
        tables=[
            table("Time to first token", found, _time),
            table("Tokens read", found, lambda s: f"{s['prefilled_tokens']:,.0f}"),
            table(
                "The same text as before, where the same was asked before",
                again,
                lambda s: f"{s['as_before']} of {s['asked_before']}",
            ),
            table(
                "The same text as the first server",
                found,
                lambda s: f"{s['same_text']} of {s['asked']}",
            ),
            *_errors(result.rows),
        ],
    )


def _time(side: dict[str, Any]) -> str:
    ratio = "" if side["ratio"] is None else f" ({side['ratio']:.2f})"
    return seconds(side["ttft_s"]) + ratio


def _errors(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """What servers answered instead of a reply."""
    told = dict.fromkeys((r["server"], r["kind"], r["error"]) for r in rows if "error" in r)
    head = ("server", "what was asked", "its answer")
    return [Table("Errors", head, list(told))] if told else []
