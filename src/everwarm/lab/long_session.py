"""An agent's whole session on a server, with all that real sessions do besides appending.

Made up from a seed, with the shares and lengths of recorded sessions: tool results of very
different lengths, a person's messages after a pause, replies asked for again, edited messages, side
requests (a title; a throw-away last message), and subagents, alone or two in turns. Replies are
dictated (`--forced-replies`), so that equal seeds make equal sessions on every model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from everwarm.client import ChatClient
from everwarm.lab.conversation import code, prose
from everwarm.lab.dictated import AgentLine, Dictated, calling
from everwarm.lab.result import Result

SHARES: Final = {"side": 0.03, "again": 0.02, "subagents": 0.03}
"""How often something happens behind a tool's result."""
EDITED: Final = 0.2
"""How often a person edits a task after its turn."""
STEPS: Final = 12
SPREAD: Final = 1.2
"""Lengths are log-normal: the 90th of a hundred is five times the median."""
TOKENS_A_LINE: Final = 21.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """How long the main conversation gets, in messages and tokens."""

    messages: int = 266
    to: int = 131_000
    reply_words: int = 24
    pause_s: float = 0.2
    seed: int = 0


class SessionRun:
    """One session. Live: one thread. `measured()` yields after each row added to the result."""

    def __init__(self, client: ChatClient, plan: SessionPlan, result: Result) -> None:
        self.plan, self.result = plan, result
        self._dictated = Dictated(client, result)
        # Two streams: what happens must not depend on how many tokens a text became.
        self._r, self._text = Random(f"{plan.seed} steps"), Random(f"{plan.seed} text")
        self.main = AgentLine(
            "main", [{"role": "system", "content": self._system("coding agent", 900)}]
        )
        self._helper = self._system("subagent that searches code", 500)

    @property
    def doing(self) -> str:
        """How far the main conversation is."""
        n, of = len(self.main.messages), self.plan.messages
        return f"{n} of {of} messages, {self.main.tokens:,} tokens"

    def time_left(self) -> float:
        """Seconds that the rest will take."""
        return self._dictated.time_left(len(self.main.messages) / self.plan.messages)

    def measured(self) -> Iterator[dict[str, Any]]:
        """Send requests until the main conversation is as long as planned."""
        while len(self.main.messages) < self.plan.messages:
            yield from self._user_turn()
        self.result.complete = True

    def _user_turn(self) -> Iterator[dict[str, Any]]:
        line, first = self.main, len(self.main.messages) == 1
        time.sleep(self.plan.pause_s)
        line.messages.append({"role": "user", "content": f"Task: {prose(self._text, 40)}."})
        yield self._ask("user", line, calls=True)
        if first:
            yield self._title()
        steps = 1 + int(self._r.expovariate(1 / STEPS))
        for step in range(steps):
            last = step == steps - 1 or len(line.messages) >= self.plan.messages - 2
            yield from self._between()
            line.result(self._result_text(line))
            yield self._ask("tool", line, calls=not last)
            if self._r.random() < SHARES["again"]:
                line.messages.pop()
                yield self._ask("again", line, calls=not last)
            if last:
                break
        if self._r.random() < EDITED and len(line.messages) < self.plan.messages:
            yield from self._edit()

    def _between(self) -> Iterator[dict[str, Any]]:
        """What happens while a tool runs."""
        if self._r.random() < SHARES["side"]:
            yield self._side()
        if self._r.random() < SHARES["subagents"]:
            yield from self._subagents(self._r.choice((1, 1, 2)))

    def _edit(self) -> Iterator[dict[str, Any]]:
        """Replace the last task by another wording, and drop what followed it."""
        line = self.main
        at = max(i for i, m in enumerate(line.messages) if _is_task(m))
        del line.messages[at:]
        line.messages.append({"role": "user", "content": f"Task: {prose(self._text, 50)}."})
        yield self._ask("edit", line, calls=False)

    def _title(self) -> dict[str, Any]:
        """Ask for a title: a short request about the first message."""
        system = {"role": "system", "content": "Write a title of five words for this task."}
        line = AgentLine("title", [system, self.main.messages[1]])
        return self._ask("side", line, calls=False, tools=False)

    def _side(self) -> dict[str, Any]:
        """Send the conversation with a last message that is thrown away afterwards."""
        ask = {"role": "user", "content": "Suggest in five words what the user may want next."}
        kept = self.main.messages
        if self.main.called:  # a call without its result is not a whole conversation
            kept = kept[:-1]
        return self._ask("side", AgentLine("side", [*kept, ask]), calls=False)

    def _subagents(self, n: int) -> Iterator[dict[str, Any]]:
        """Run one subagent, or two in turns, each with its own task and the same system prompt."""
        system = {"role": "system", "content": self._helper}
        lines = [AgentLine(f"subagent {i}", [system]) for i in range(n)]
        for line in lines:
            line.messages.append({"role": "user", "content": f"Find: {prose(self._text, 30)}."})
        steps = self._r.randint(3, 8)
        for step in range(steps):
            for line in lines:
                if step:
                    line.result(code(self._text, self._text.randint(5, 60)))
                yield self._ask("subagent", line, calls=step < steps - 1)

    def _result_text(self, line: AgentLine) -> str:
        """A tool's result, long enough that the session ends near its planned length."""
        left = (self.plan.messages - len(line.messages)) / 2
        share = max(0.0, self.plan.to - line.tokens) / max(1.0, left)
        spread = self._text.lognormvariate(-(SPREAD**2) / 2, SPREAD)
        return code(self._text, max(1, int(share * min(spread, 8.0) / TOKENS_A_LINE)))

    def _ask(
        self, kind: str, line: AgentLine, *, calls: bool, tools: bool = True
    ) -> dict[str, Any]:
        said = prose(self._text, self._text.randint(4, 2 * self.plan.reply_words))
        reply = calling(said, self._text) if calls else said
        return self._dictated.ask(kind, line, reply, tools=tools)

    def _system(self, what: str, n: int) -> str:
        return f"You are a {what}. {prose(self._text, n)}"


def _is_task(message: dict[str, Any]) -> bool:
    return message["role"] == "user" and str(message["content"]).startswith("Task: ")
