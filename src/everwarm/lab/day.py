"""A day of several agents at once, on several running servers in turns: the wall time of all of it.

    morning    questions   a loop of tool calls   a subagent that shares the head
    restart    of the server, where a command for it is given
    evening    the last reply again   the last question put differently   one more

Replies have a fixed length where the ids of the tokens that end them are known. Every server gets
conversations of its own that differ in nothing but one word.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from everwarm.errors import EverwarmError
from everwarm.lab.asked_server import AskedServer, Heard, together
from everwarm.lab.conversation import TOOLS, WORDS, code, prose, tool_call
from everwarm.lab.parallel import TOKENS_A_LINE
from everwarm.lab.result import Result

CALLS: Final = 5
RESULT_LINES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DayPlan:
    """`turns`: questions of each agent before its tool loop. `context`: about how many tokens its
    conversation begins with."""

    agents: int = 4
    turns: int = 2
    context: int = 500
    reply_tokens: int = 48
    rounds: int = 2
    seed: int = 0


@dataclass(slots=True)
class AgentDay:
    """One agent's conversation and what it heard. Live: one thread at a time."""

    random: Random
    talk: list[dict[str, Any]]
    n_tokens: int
    heard: list[Heard] = field(default_factory=list)

    def morning(self, server: AskedServer, turns: int) -> None:
        """Questions, a loop of tool calls, and a subagent that shares the head."""
        with server.another() as own:
            head = self.talk[:]
            self._answer(own)
            for _ in range(turns):
                self._say(own)
            for _ in range(CALLS):
                self._call(own)
            self.heard.append(own.ask([*head, self._question()], self.n_tokens))

    def evening(self, server: AskedServer) -> None:
        """The last reply again, the last question put differently, and one more."""
        with server.another() as own:
            self.talk.pop()
            self._answer(own)
            del self.talk[-2:]
            self._say(own)
            self._say(own)

    def _say(self, own: AskedServer) -> None:
        self.talk.append(self._question())
        self._answer(own)

    def _call(self, own: AskedServer) -> None:
        """Put a call behind the reply, as the client of a model that calls does, and its result."""
        path = "/".join(self.random.choices(WORDS, k=3))
        call = tool_call(self.random, str(TOOLS[0]["function"]["name"]), {"path": path})
        self.talk[-1] = self.talk[-1] | {"tool_calls": [call]}
        result = code(self.random, RESULT_LINES)
        self.talk.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        self._answer(own)

    def _answer(self, own: AskedServer) -> None:
        self.heard.append(own.ask(self.talk, self.n_tokens))
        self.talk.append(self.heard[-1].message)

    def _question(self) -> dict[str, Any]:
        return {"role": "user", "content": prose(self.random, 12) + "?"}


class DayRun:
    """The day on every server. Live: `measured()` is one thread's, and starts one an agent."""

    def __init__(self, servers: Sequence[AskedServer], plan: DayPlan, result: Result) -> None:
        self.plan, self.result, self._servers = plan, result, servers
        self._round = 0
        self.doing = "starting"

    def time_left(self) -> None:
        """Not known: servers differ too much."""

    def measured(self) -> Iterator[dict[str, Any]]:
        """The day on every server, round after round; another one begins in each."""
        for n in range(self.plan.rounds):
            self._round = n
            at = n % len(self._servers)
            for server in [*self._servers[at:], *self._servers[:at]]:
                kind = f"a day of {self.plan.agents} agents"
                row: dict[str, Any] = {"kind": kind, "server": server.name, "round": n}
                try:
                    row |= self._day(server)
                except EverwarmError as error:
                    row["error"] = error.message
                self.result.rows.append(row)
                yield row
        self.result.complete = True

    def _day(self, server: AskedServer) -> dict[str, Any]:
        agents = [self._agent(server, i) for i in range(self.plan.agents)]
        self._now(server, "before the restart" if server.restart else "the first half")
        began = time.perf_counter()
        together([lambda a=a: a.morning(server, self.plan.turns) for a in agents])  # type: ignore[misc]
        restart_s = 0.0
        if server.restart:
            self._now(server, "restarting")
            restart_s = server.restarted()
        self._now(server, "behind the restart" if server.restart else "the second half")
        together([lambda a=a: a.evening(server) for a in agents])  # type: ignore[misc]
        took_s = time.perf_counter() - began
        heard = [h for a in agents for h in a.heard]
        tokens = sum(h.tokens for h in heard)
        return {
            "wall_s": took_s,
            "restart_s": restart_s,
            "tokens": tokens,
            "tokens_per_s": tokens / (took_s - restart_s),
            "prompt_tokens": sum(h.prompt_tokens for h in heard),
            "cached_tokens": sum(h.cached_tokens for h in heard),
            "ttft_s": statistics.median(h.ttft_s for h in heard),
            "worst_ttft_s": max(h.ttft_s for h in heard),
            "longest_gap_s": max((g for h in heard for g in h.gaps_s), default=0.0),
        }

    def _now(self, server: AskedServer, what: str) -> None:
        self.doing = f"round {self._round + 1} of {self.plan.rounds}: {server.name}, {what}"

    def _agent(self, server: AskedServer, i: int) -> AgentDay:
        random = Random(f"{self.plan.seed} {self._round} {i}")
        lines = code(random, max(1, self.plan.context // TOKENS_A_LINE))
        system = f"{self.result.started} {self._round} {server.name}. You are a coding agent."
        asked = f"{lines}\n{prose(random, 10)}?"
        talk = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
        return AgentDay(random, talk, self.plan.reply_tokens)
