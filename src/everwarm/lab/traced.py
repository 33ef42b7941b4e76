"""Send a recorded session, which has no text, to a server again: its lengths and places are real.

A trace says which tokens of a prompt are those of an earlier one; here each token becomes a word,
so that equal ones give equal text. What a prompt shares with one before stays messages as they
were; the rest becomes a tool's result where a call waits for one, else a user's message. Replies
are dictated, with a call where the trace goes on with a result. Lengths differ by a few percent
from the trace: the template and the calls add tokens, and a word may be more than one.

Not here: reading trace files (`lab/traces.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from everwarm.client import ChatClient
from everwarm.lab.conversation import WORDS
from everwarm.lab.dictated import AgentLine, Dictated, calling
from everwarm.lab.result import Result
from everwarm.lab.traces import TracedTurn
from everwarm.tokens import Mark, Tokens, common_length

CALL_TOKENS: Final = 30
_SPREAD: Final = 2654435761


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePlan:
    """Which trace, by name, and how many of its requests."""

    trace: str
    requests: int


@dataclass(frozen=True, slots=True)
class _Known:
    """What was sent and answered: its tokens, and its messages with where each ends in them."""

    tokens: Tokens[int]
    messages: tuple[tuple[int, dict[str, Any]], ...]


class TracedRun:
    """One recorded session. Live: one thread. `measured()` yields each row it adds."""

    def __init__(
        self, client: ChatClient, turns: Sequence[TracedTurn], plan: TracePlan, result: Result
    ) -> None:
        self.plan, self.result = plan, result
        self._dictated = Dictated(client, result)
        self._turns = turns[: plan.requests]
        self._known: list[_Known] = []

    @property
    def doing(self) -> str:
        """How many requests are done."""
        return f"{len(self._known)} of {len(self._turns)} requests"

    def time_left(self) -> float:
        """Seconds that the rest will take."""
        return self._dictated.time_left(len(self._known) / max(1, len(self._turns)))

    def measured(self) -> Iterator[dict[str, Any]]:
        """Send all requests, in the order of their times."""
        for i in range(len(self._turns)):
            yield self._ask(i)
        self.result.complete = True

    def _ask(self, i: int) -> dict[str, Any]:
        turn = self._turns[i]
        kind, messages = self._messages(turn)
        line = AgentLine(self.plan.trace, [m for _, m in messages])
        said = words(turn.reply)
        if self._wants_result(i):
            said = calling(words(turn.reply[CALL_TOKENS:]), Random(i))
        row = self._dictated.ask(kind, line, said)
        whole = turn.tokens + turn.reply
        self._known.append(_Known(whole, (*messages, (len(whole), line.messages[-1]))))
        return row

    def _messages(self, turn: TracedTurn) -> tuple[str, list[tuple[int, dict[str, Any]]]]:
        """The request's kind, and its messages, with where each ends in the trace's tokens."""
        end = max((m.at for m in turn.marks if m.kind == "prompt"), default=len(turn.tokens))
        kept = self._shared(turn, end)
        if not kept:
            head = max((m.at for m in turn.marks if m.kind == "system"), default=0)
            kept = [(head, {"role": "system", "content": words(turn.tokens[:head]) or "Begin."})]
        at, last = kept[-1]
        if at >= end:
            return "again", kept
        text = words(turn.tokens[at:end])
        calls = last.get("tool_calls") or []
        if calls:
            told = {"role": "tool", "tool_call_id": calls[0]["id"], "content": text}
            return "tool", [*kept, (end, told)]
        kind = "user" if last["role"] == "assistant" or turn.is_first else "rewritten"
        return kind, [*kept, (end, {"role": "user", "content": text})]

    def _shared(self, turn: TracedTurn, end: int) -> list[tuple[int, dict[str, Any]]]:
        """The messages of an earlier request with which this one begins; the longest such run."""
        best: tuple[int, _Known] | None = None
        for known in reversed(self._known):
            same = common_length(known.tokens, turn.tokens)
            if best is None or same > best[0]:
                best = same, known
        if best is None:
            return []
        kept = [(at, m) for at, m in best[1].messages if at <= min(best[0], end)]
        while kept and kept[-1][0] >= end and kept[-1][1]["role"] == "assistant":
            kept.pop()
        return kept

    def _wants_result(self, i: int) -> bool:
        """Whether what follows this reply in the trace is no person's message."""
        whole = self._turns[i].tokens + self._turns[i].reply
        for later in self._turns[i + 1 :]:
            if common_length(whole, later.tokens) == len(whole):
                return Mark(len(whole), "user") not in later.marks
        return False


def words(tokens: Sequence[int]) -> str:
    """A word for each token. Equal tokens give equal words."""
    return " ".join(WORDS[(t * _SPREAD >> 8) % len(WORDS)] for t in tokens)
