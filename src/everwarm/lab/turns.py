"""A conversation grown turn by turn: what each turn costs warm, and what it would cost cold.

A turn appends a piece of code and asks about it; every reply goes back into the conversation. On a
sample of turns (the 1st, 2nd, 4th, 8th ... and the last) short questions follow, each warm, with
the bare forward of the same suffix measured between them; then the same conversation is asked cold,
made unique at its start so that no server can know it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from everwarm.client import ChatClient, ChatReply
from everwarm.lab.conversation import code, prose
from everwarm.lab.inside import PHASES, Inside
from everwarm.lab.result import Result

FloorAt = Callable[[int, int], float]
FIRST_TOKENS_A_LINE: Final = 20.0
STEP: Final = 2048
"""Tokens that a turn appends where no goal is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsPlan:
    """What to measure. Without `to`, the conversation grows until `seconds` are used."""

    to: int | None = None
    seconds: float | None = None
    turns: int = 24
    questions: int = 5
    reply_tokens: int = 32
    cold: bool = True
    floor: bool = True
    seed: int = 0

    @property
    def step(self) -> int:
        """Tokens that a turn appends."""
        return STEP if self.to is None else max(1, self.to // self.turns)


@dataclass(slots=True)
class Talk:
    """The conversation. Live. Equal seeds and replies make equal conversations."""

    seed: int
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        about = prose(Random(f"{self.seed} system"), 120)
        self.messages.append({"role": "system", "content": f"You review code. {about}"})

    def grow(self, turn: int, lines: int) -> None:
        """Append code to read."""
        text = code(Random(f"{self.seed} code {turn}"), lines)
        self._say(f"File {turn}:\n{text}\n\nWhat does it do? Answer in one sentence.")

    def ask(self, n: int) -> None:
        """Append a short question."""
        self._say(f"Question {n}: {prose(Random(f'{self.seed} question {n}'), 12)}?")

    def answered(self, reply: str) -> None:
        """Append what the model said."""
        self.messages.append({"role": "assistant", "content": reply})

    def unique(self, nonce: str) -> list[dict[str, Any]]:
        """The same messages with another beginning: nothing of them can be warm."""
        first = self.messages[0]
        return [first | {"content": f"{nonce}. {first['content']}"}, *self.messages[1:]]

    def _say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})


@dataclass(slots=True)
class ReadingPace:
    """How long reading will take, from what it took: (middle depth, seconds a token, tokens). Live.

    Reading a token behind n others costs a + b*n seconds; a and b are fitted to what was measured.
    """

    seen: list[tuple[float, float, int]] = field(default_factory=list)

    def note(self, depth: int, tokens: int, seconds: float) -> None:
        """`tokens` were read behind `depth` in that many seconds."""
        if tokens > 0:
            self.seen.append((depth + tokens / 2, seconds / tokens, tokens))

    def seconds(self, start: int, end: int) -> float:
        """What reading the tokens from `start` to `end` will take."""
        a, b = self._line()
        n = max(end - start, 0)
        return n * max(0.0, a + b * (start + end) / 2)

    def _line(self) -> tuple[float, float]:
        """Least squares, weighted by tokens; a level line where there are too few."""
        weight = sum(n for _, _, n in self.seen)
        if not weight:
            return 0.0, 0.0
        mx = sum(x * n for x, _, n in self.seen) / weight
        my = sum(y * n for _, y, n in self.seen) / weight
        sxx = sum(n * (x - mx) ** 2 for x, _, n in self.seen)
        if not sxx:
            return my, 0.0
        b = max(0.0, sum(n * (x - mx) * (y - my) for x, y, n in self.seen) / sxx)
        return max(0.0, my - b * mx), b


class TurnsRun:
    """One run, or the rest of one that was interrupted. Live: one thread.

    `measured()` yields after each row that it has added to `result.rows`, so that the caller can
    save and show it.
    """

    def __init__(
        self,
        client: ChatClient,
        plan: TurnsPlan,
        result: Result,
        floor: FloorAt | None = None,
        limit: int | None = None,
    ) -> None:
        self._client, self.plan, self.result, self._floor = client, plan, result, floor
        self._inside = Inside(client)
        self._talk, self._pace = Talk(plan.seed), ReadingPace()
        self._limit = limit or 1 << 60
        self._began = time.monotonic() - result.seconds
        self._a_line = FIRST_TOKENS_A_LINE
        self.depth = self.turn = 0
        self.doing = "starting"

    @property
    def goal(self) -> int:
        """Where the conversation ends, in tokens: what is asked for and what the model takes."""
        room = self.plan.questions * (self.plan.reply_tokens + 64) + 256
        return min(self.plan.to or self._limit, self._limit - room)

    def seconds(self) -> float:
        """How long the run has taken, the interrupted parts included."""
        return time.monotonic() - self._began

    def measured(self) -> Iterator[dict[str, Any]]:
        """Measure row after row until the goal or the end of the time."""
        yield from self._take_up()
        last = self.turn > 0 and self._is_last()
        while not last:
            self.turn += 1
            yield self._grow()
            last = self._is_last()
            if last or self._is_sampled():
                yield from self._sample()
        self.result.complete = True

    def time_left(self) -> float | None:
        """Seconds to the goal, as far as they are known, or to the end of the time."""
        by_time = None if self.plan.seconds is None else self.plan.seconds - self.seconds()
        if not self._pace.seen:
            return by_time
        by_goal = self._to_goal() if self.goal < 1 << 59 else None
        known = [max(0.0, t) for t in (by_time, by_goal) if t is not None]
        return min(known, default=None)

    def _to_goal(self) -> float:
        """Seconds to the goal: growing, and the samples at powers of two and at the goal."""
        turns, at = self.turn, self.depth
        out = self._pace.seconds(self.depth, self.goal)
        here = {r["kind"] for r in self.result.rows if r["turn"] == turns}
        if self.plan.cold and "cold" not in here and self._is_sampled():
            out += self._pace.seconds(0, at)
        while at < self.goal:
            turns, at = turns + 1, min(at + self.plan.step, self.goal)
            if turns & (turns - 1) == 0 or at >= self.goal:
                out += self._pace.seconds(0, at) if self.plan.cold else 0.0
        return out

    def _is_sampled(self) -> bool:
        """The 1st, 2nd, 4th, 8th ... and any whose sample has begun."""
        begun = any(r["turn"] == self.turn and r["kind"] != "grow" for r in self.result.rows)
        return begun or self.turn & (self.turn - 1) == 0

    def _is_last(self) -> bool:
        if self.depth >= self.goal:
            return True
        if self.plan.seconds is None:
            return False
        more = self.depth + self.plan.step
        ahead = self._pace.seconds(self.depth, more)
        cold = self._pace.seconds(0, more) if self.plan.cold else 0.0
        return self.seconds() + 1.2 * (ahead + cold) > self.plan.seconds

    def _take_up(self) -> Iterator[dict[str, Any]]:
        """Rebuild the messages of an interrupted run, and let the server read them once."""
        for row in self.result.rows:
            if row["kind"] == "grow":
                self._talk.grow(row["turn"], row["lines"])
                self.turn = row["turn"]
                self._learn(row)
            elif row["kind"] == "question":
                self._talk.ask(row["n"])
            else:
                continue
            self._talk.answered(row["reply"])
            self.depth = row["prompt_tokens"] + row["completion_tokens"]
        if not self.result.rows:
            return
        self.doing = f"reading {self.depth:,} tokens again"
        self._ask(self._talk.messages[:-1], 1)
        if self._is_last() or self._is_sampled():
            yield from self._sample()

    def _grow(self) -> dict[str, Any]:
        want = max(1, min(self.plan.step, self.goal - self.depth))
        lines = int(1.03 * want / self._a_line) + 2  # rather a little past the goal than before it
        self.doing = f"reading {want:,} tokens behind {self.depth:,}"
        self._talk.grow(self.turn, lines)
        row = self._turn("grow", lines=lines)
        self._learn(row)
        return row

    def _learn(self, row: dict[str, Any]) -> None:
        """How many tokens a line has, and how long reading takes."""
        self._a_line = max(1.0, row["prefilled_tokens"] / row["lines"])
        self._pace.note(row["cached_tokens"], row["prefilled_tokens"], row["ttft_s"])

    def _sample(self) -> Iterator[dict[str, Any]]:
        here = [r["kind"] for r in self.result.rows if r["turn"] == self.turn]
        for i in range(here.count("question"), self.plan.questions):
            self.doing = f"asking behind {self.depth:,} tokens"
            self._talk.ask(100 * self.turn + i)
            row = self._turn("question", n=100 * self.turn + i)
            if self._floor is not None and row["prefilled_tokens"] > 0:
                row["floor_s"] = self._floor(row["cached_tokens"], row["prefilled_tokens"])
            yield row
        if self.plan.cold and "cold" not in here:
            self.doing = f"reading {self.depth:,} tokens cold"
            yield self._cold()

    def _cold(self) -> dict[str, Any]:
        nonce = f"Session {time.time_ns():x}"
        said = self._talk.unique(nonce)[:-1]  # up to the last question
        return self._file("cold", self._ask(said, 1))

    def _turn(self, kind: str, **more: Any) -> dict[str, Any]:
        reply = self._ask(self._talk.messages, self.plan.reply_tokens)
        self._talk.answered(reply.text)
        self.depth = reply.prompt_tokens + reply.completion_tokens
        return self._file(kind, reply, **more)

    def _ask(self, messages: Sequence[dict[str, Any]], n: int) -> ChatReply:
        return self._client.ask(messages, model=self.result.model, max_tokens=n, temperature=0)

    def _file(self, kind: str, reply: ChatReply, **more: Any) -> dict[str, Any]:
        record = self._inside.record(reply.prompt_tokens)
        row = {
            "kind": kind,
            "turn": self.turn,
            "prompt_tokens": reply.prompt_tokens,
            "cached_tokens": reply.cached_tokens,
            "prefilled_tokens": reply.prefilled_tokens,
            "completion_tokens": reply.completion_tokens,
            "ttft_s": reply.ttft_s or reply.total_s,
            "total_s": reply.total_s,
            "tokens_per_s": reply.decode_tps,
            "phases": {k: record[k] for k in PHASES if k in record},
            **self._inside.memory(),
            "reply": reply.text,
            **more,
        }
        self.result.rows.append(row)
        self.result.seconds = self.seconds()
        return row
