"""What one conversation costs, and what the model recalls of it, with each cache strategy.

Eight facts are told at the start, then turns of reading and replying follow, and at the end each
fact is asked for on its own, behind the same conversation. Every strategy is a server with flags of
its own and sees the same messages. Replies are dictated, reasoning included, so that all strategies
hold the same conversation; what is recalled the model writes itself, greedily. With `own_replies`
the model writes everything itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from everwarm.client import ChatClient, ChatReply
from everwarm.errors import EverwarmError
from everwarm.lab.inside import Inside
from everwarm.lab.result import Result

FACTS: Final = (
    ("What is my name?", "Your name is Bernard.", "bernard"),
    ("What is my dog called?", "Your dog is called Biscuit.", "biscuit"),
    ("In which city do I live?", "You live in Lisbon.", "lisbon"),
    ("What do I play?", "You play the violin.", "violin"),
    ("Which colour do I love?", "You love turquoise.", "turquoise"),
    ("What do I drive?", "You drive a tractor.", "tractor"),
    ("When was I born?", "You were born in 1974.", "1974"),
    ("What do I like to eat?", "You like to eat lasagna.", "lasagna"),
)
"""How each is asked for, the answer, and the word that makes an answer a right one."""
PEOPLE: Final = ("baker", "teacher", "sailor", "doctor", "farmer", "painter", "pilot", "clerk")
DEEDS: Final = ("found", "lost", "bought", "sold", "carried", "cleaned", "repaired")
LOOKS: Final = ("red", "small", "heavy", "wooden", "broken", "yellow", "new")
THINGS: Final = ("basket", "chair", "lamp", "boat", "clock", "bag", "bottle", "bicycle")
PLACES: Final = ("near the river", "at the market", "behind the house", "on Monday", "in the rain")
ANSWER_TOKENS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategiesPlan:
    """The conversation, and what bounds the strategies that have a bound."""

    turns: int = 8
    sentences: int = 2
    thinking_words: int = 24
    budget: int = 8
    window: int = 256
    group_size: int = 64
    own_replies: bool = False
    reply_tokens: int = 512
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Strategy:
    """A cache strategy: its key, what people call it, the server's flags.

    `has_budget`: dictated replies end their reasoning where the server's budget would end it.
    """

    key: str
    name: str
    flags: tuple[str, ...] = ()
    has_budget: bool = False


def strategies(plan: StrategiesPlan) -> list[Strategy]:
    """All of them, in the order of the published table."""
    group = f"--kv-group-size={plan.group_size}"
    return [
        Strategy("none", "no cache", ("--no-cache",)),
        Strategy("warm", "warm, reasoning kept"),
        Strategy(
            "budget",
            f"warm, thinking budget of {plan.budget}",
            (f"--thinking-budget={plan.budget}",),
            has_budget=True,
        ),
        Strategy("template", "template history, reasoning dropped", ("--history=template",)),
        Strategy(
            "window", f"rotating window of {plan.window:,}", (f"--max-kv-size={plan.window}",)
        ),
        Strategy("kv8", "rows in 8 bits", ("--kv-bits=8", group)),
        Strategy("kv4", "rows in 4 bits", ("--kv-bits=4", group)),
    ]


MeasuredRows = Generator[dict[str, Any], None, None]
Serve = Callable[[Strategy], AbstractContextManager[ChatClient]]


class StrategiesRun:
    """One run, or the rest of one. Live: one thread.

    `measured()` yields after each row that it has added to `result.rows`. `serve` starts a server
    with a strategy's flags; up to `together` run at a time, and take turns, so that whatever else
    the machine does meets all of them alike. A strategy that was interrupted is measured anew.
    """

    def __init__(
        self, serve: Serve, plan: StrategiesPlan, result: Result, *, together: int = 1
    ) -> None:
        self._serve, self.plan, self.result, self._together = serve, plan, result, together
        self._began = time.monotonic() - result.seconds
        self._new_from = time.monotonic()
        self._new_rows = 0
        self.doing = "starting"

    def measured(self) -> Iterator[dict[str, Any]]:
        """Measure every strategy that is not done yet."""
        rows = self.result.rows
        todo = [s for s in strategies(self.plan) if not is_done(rows, s.key, self.plan)]
        rows[:] = [r for r in rows if r["strategy"] not in {s.key for s in todo}]
        waiting, active = [self._measure(s) for s in todo], list[MeasuredRows]()
        try:
            while waiting or active:
                while waiting and len(active) < self._together:
                    active.append(waiting.pop(0))
                for one in list(active):
                    if (row := next(one, None)) is None:
                        active.remove(one)
                        continue
                    yield self._file(row)
        finally:
            for one in active:
                one.close()
        self.result.complete = True

    def time_left(self) -> float | None:
        """Seconds that the rest will take if it goes on as it went."""
        if not self._new_rows:
            return None
        whole = len(strategies(self.plan)) * (self.plan.turns + len(FACTS))
        ended = sum(1 for r in self.result.rows if r["kind"] == "refused")
        left = whole - len(self.result.rows) - ended * (self.plan.turns + len(FACTS) - 1)
        return max(0.0, float(left) * (time.monotonic() - self._new_from) / self._new_rows)

    def _file(self, row: dict[str, Any]) -> dict[str, Any]:
        self.result.rows.append(row)
        self.result.seconds = time.monotonic() - self._began
        self._new_rows += 1
        return row

    def _measure(self, s: Strategy) -> MeasuredRows:
        try:
            with self._serve(s) as client:
                yield from _Measured(self, client, s).rows()
        except EverwarmError as error:
            yield {"strategy": s.key, "kind": "refused", "why": str(error)}


class _Measured:
    """One strategy's conversation with its server. Live."""

    def __init__(self, run: StrategiesRun, client: ChatClient, s: Strategy) -> None:
        self._run, self._plan, self._client, self._s = run, run.plan, client, s
        self._inside = Inside(client)
        self._model = client.models()[0]

    def rows(self) -> Iterator[dict[str, Any]]:
        messages: list[dict[str, Any]] = [*opening()]
        for turn in range(1, self._plan.turns + 1):
            self._run.doing = f"{self._s.name}: turn {turn} of {self._plan.turns}"
            messages.append({"role": "user", "content": story(self._plan, turn)})
            reply = self._say(messages, turn)
            messages.append({"role": "assistant", "content": reply.text})
            yield self._row("turn", reply, turn=turn, **self._inside.memory())
        for question, _, word in FACTS:
            self._run.doing = f"{self._s.name}: what is recalled"
            reply = self._ask([*messages, {"role": "user", "content": question}], ANSWER_TOKENS)
            right = word in reply.text.lower()
            yield self._row("recall", reply, asked=question, right=right, said=reply.text)

    def _say(self, messages: Sequence[dict[str, Any]], turn: int) -> ChatReply:
        if not self._plan.own_replies:
            text = dictated(self._plan, turn, cut=self._s.has_budget)
            return self._ask(messages, 4096, everwarm={"reply": text})
        return self._ask(messages, self._plan.reply_tokens)

    def _ask(self, messages: Sequence[dict[str, Any]], most: int, **more: Any) -> ChatReply:
        fixed = {"model": self._model, "max_tokens": most, "temperature": 0}
        return self._client.ask(messages, **fixed, **more)

    def _row(self, kind: str, reply: ChatReply, **more: Any) -> dict[str, Any]:
        return {
            "strategy": self._s.key,
            "kind": kind,
            "prompt_tokens": reply.prompt_tokens,
            "cached_tokens": reply.cached_tokens,
            "prefilled_tokens": reply.prefilled_tokens,
            "completion_tokens": reply.completion_tokens,
            "ttft_s": reply.ttft_s or reply.total_s,
            "tokens_per_s": reply.decode_tps,
            **more,
        }


def opening() -> list[dict[str, Any]]:
    """The facts: in the system prompt, and then asked for and answered, twice.

    So often, since a small model recalls next to nothing of what it has read once.
    """
    told = "\n".join(answer for _, answer, _ in FACTS)
    about = f"You are a helpful assistant. What you know about the user:\n{told}"
    said = [{"role": "system", "content": about}]
    for question, answer, _ in FACTS * 2:
        said.append({"role": "user", "content": question})
        said.append({"role": "assistant", "content": answer})
    return said


def story(plan: StrategiesPlan, turn: int) -> str:
    """What a turn gives to read. Equal seeds make equal stories."""
    r = Random(f"{plan.seed} story {turn}")
    told = (
        f"The {r.choice(PEOPLE)} {r.choice(DEEDS)} a {r.choice(LOOKS)} {r.choice(THINGS)} "
        f"{r.choice(PLACES)}."
        for _ in range(plan.sentences)
    )
    return " ".join(told)


def dictated(plan: StrategiesPlan, turn: int, *, cut: bool) -> str:
    """The reply of a turn; `cut`: with so much reasoning as the budget leaves.

    These words are common ones, a token each, so that the budget counts words.
    """
    told = story(plan, turn).split(" ")
    thought = (told * -(-plan.thinking_words // len(told)))[: plan.thinking_words]
    kept = thought[: plan.budget] if cut else thought
    return f"<think>\n{' '.join(kept)}\n</think>\n\nOK."


def is_done(rows: Sequence[dict[str, Any]], key: str, plan: StrategiesPlan) -> bool:
    """Whether a strategy has all its rows, or was refused."""
    own = [r["kind"] for r in rows if r["strategy"] == key]
    return "refused" in own or (own.count("turn"), own.count("recall")) == (plan.turns, len(FACTS))
