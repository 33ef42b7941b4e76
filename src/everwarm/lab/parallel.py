"""Several sessions at once on each of several running servers, one server after the other.

Each session is a thread with its own conversation: a system prompt that all share, a question, the
reply given back, the next question. Beside that: a short question while another prompt is read, and
the longest silence of a reply meanwhile. Servers take turns, so that a machine that gets slower
does so for all; medians over the rounds count.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from everwarm.errors import EverwarmError
from everwarm.lab.asked_server import AskedServer, Heard, together
from everwarm.lab.conversation import code, prose
from everwarm.lab.result import Result

TOKENS_A_LINE = 21
SHORT_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelPlan:
    """`sessions`: how many at once, in turn. `context`: about how many tokens a session begins
    with, `reply_tokens` how many each reply gets. `long`: tokens of the prompt that is read
    meanwhile, and of the long session among short ones; 0 leaves both out.
    """

    sessions: tuple[int, ...] = (1, 2, 4, 8)
    turns: int = 2
    context: int = 150
    reply_tokens: int = 32
    long: int = 6000
    rounds: int = 3
    seed: int = 0


class ParallelRun:
    """All servers in turns. Live: `measured()` is one thread's, and starts one for each session."""

    def __init__(
        self,
        servers: Sequence[AskedServer],
        plan: ParallelPlan,
        result: Result,
    ) -> None:
        self.plan, self.result = plan, result
        self._servers = servers
        self._round = 0
        self.doing = "starting"

    def time_left(self) -> None:
        """Not known: servers differ too much."""

    def measured(self) -> Iterator[dict[str, Any]]:
        """Every width on every server, round after round."""
        for n in range(self.plan.rounds):
            self._round = n
            for width in self.plan.sessions:
                contexts = [self.plan.context] * width
                yield from self._on_all(f"{width} at once", contexts)
            if self.plan.long:
                width = max(self.plan.sessions)
                contexts = [self.plan.long] + [self.plan.context] * (width - 1)
                yield from self._on_all(f"{width} at once, one of them long", contexts)
                yield from self._short_beside_long()
        self.result.complete = True

    def _on_all(self, kind: str, contexts: Sequence[int]) -> Iterator[dict[str, Any]]:
        for server in self._in_turn():
            talks = [self._opening(server, kind, i, n) for i, n in enumerate(contexts)]
            yield self._row(kind, server, partial(self._sessions, server, talks))

    def _in_turn(self) -> list[AskedServer]:
        """Another one begins in each round."""
        at = self._round % len(self._servers)
        return [*self._servers[at:], *self._servers[:at]]

    def _row(
        self, kind: str, server: AskedServer, measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        self.doing = f"round {self._round + 1} of {self.plan.rounds}: {kind}, {server.name}"
        row: dict[str, Any] = {"kind": kind, "server": server.name, "round": self._round}
        try:
            row |= measure()
        except EverwarmError as error:
            row["error"] = error.message
        self.result.rows.append(row)
        return row

    def _sessions(self, server: AskedServer, talks: list[list[dict[str, Any]]]) -> dict[str, Any]:
        """Every conversation's turns, all of them side by side; only whole turns are counted."""
        ask = [partial(self._turns, server, i, talk) for i, talk in enumerate(talks)]
        first = self._warm(server, talks)
        began = time.perf_counter()
        heard = [h for one in together(ask) for h in one]
        took_s = time.perf_counter() - began
        tokens = sum(h.tokens for h in heard)
        return {
            "wall_s": took_s,
            "tokens": tokens,
            "tokens_per_s": tokens / took_s,
            "ttft_s": statistics.median(h.ttft_s for h in heard),
            "worst_ttft_s": max(h.ttft_s for h in heard),
            "longest_gap_s": max((g for h in heard for g in h.gaps_s), default=0.0),
            "cold_s": first,
        }

    def _warm(self, server: AskedServer, talks: list[list[dict[str, Any]]]) -> float:
        """Let the server read every conversation once: it is decoding that is compared."""
        began = time.perf_counter()
        for talk in talks:
            server.ask(talk, 1)
        return time.perf_counter() - began

    def _turns(self, server: AskedServer, session: int, talk: list[dict[str, Any]]) -> list[Heard]:
        heard = []
        with server.another() as own:
            for turn in range(self.plan.turns):
                heard.append(own.ask(talk, self.plan.reply_tokens))
                talk = [*talk, heard[-1].message, self._question(f"{session} {turn}")]
        return heard

    def _short_beside_long(self) -> Iterator[dict[str, Any]]:
        kind = "a short question beside a long prompt"
        for server in self._in_turn():
            yield self._row(kind, server, partial(self._beside, server))

    def _beside(self, server: AskedServer) -> dict[str, Any]:
        """A reply is being written; a long prompt comes; a short question comes behind that, in a
        conversation that was read before."""
        plan = self.plan
        writing, alone, beside = (
            self._opening(server, f"beside {i}", i, plan.context) for i in range(3)
        )
        long = self._opening(server, "beside long", 3, plan.long)
        server.ask(writing, 1)
        alone, beside = (
            [*talk, server.ask(talk, SHORT_TOKENS).message, self._question(f"beside {i}")]
            for i, talk in enumerate((alone, beside))
        )
        lone = server.ask(alone, SHORT_TOKENS)
        is_read = threading.Event()

        def write() -> Heard:
            with server.another() as own:
                return own.ask(writing, 8 * plan.reply_tokens)

        def read() -> Heard:
            time.sleep(0.2)
            with server.another() as own:
                try:
                    return own.ask(long, SHORT_TOKENS)
                finally:
                    is_read.set()

        def short() -> Heard:
            time.sleep(0.5)
            with server.another() as own:
                one = own.ask(beside, SHORT_TOKENS)
            if is_read.is_set():
                self.result.remarks.append(
                    f"{server.name}: the long prompt was read before the short question was "
                    "answered; take a longer one with --long."
                )
            return one

        written, _, answered = together([write, read, short])
        return {
            "alone_ttft_s": lone.ttft_s,
            "ttft_s": answered.ttft_s,
            "longest_gap_s": max(written.gaps_s, default=0.0),
        }

    def _opening(
        self, server: AskedServer, kind: str, session: int, n_tokens: int
    ) -> list[dict[str, Any]]:
        """A conversation that no server has met; a few words tell it from other rounds and runs."""
        r = self._random(f"{kind} {session}")
        lines = code(r, max(1, n_tokens // TOKENS_A_LINE))
        system = f"{self.result.started} {self._round}. You are a coding agent."
        about = f"{server.name} {kind} {session}. {lines}\n{prose(r, 10)}?"
        return [{"role": "system", "content": system}, {"role": "user", "content": about}]

    def _question(self, what: str) -> dict[str, Any]:
        return {"role": "user", "content": prose(self._random(what), 12) + "?"}

    def _random(self, what: str) -> Random:
        return Random(f"{self.plan.seed} {self._round} {what}")
