"""EngineCalls that wait for an answer of the engine.

A call waits until there is an engine. One that its engine's death interrupted is asked once more
where asking twice does no harm: a node of the tree has another number in the next engine, and a
grammar may be what ended this one.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from concurrent.futures import Future
from typing import Final

from everwarm.errors import EverwarmError, Overloaded
from everwarm.link.link import Link
from everwarm.link.packets import (
    Call,
    CallAnswer,
    CallRefused,
    CheckGrammar,
    DeleteNode,
    PinNode,
)

ENGINE_S: Final = 15.0
"""How long a call waits for an engine that loads or starts again: a thread waits with it."""
_NOT_TWICE: Final = (PinNode, DeleteNode, CheckGrammar)


class _EngineLost(Exception):
    """The engine was gone before it answered."""

    def __init__(self, why: EverwarmError) -> None:
        super().__init__(why.message)
        self.why = why


class EngineCalls:
    """Live: any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._link: Link | None = None
        self._refusal: EverwarmError | None = None
        self._numbers = itertools.count()
        self._asked: dict[str, Future[CallAnswer]] = {}
        self._compiling: set[str] = set()

    def ask(self, call: Call, timeout_s: float) -> CallAnswer:
        """The engine's answer. Raises what the engine raised, Overloaded where that takes longer,
        EngineError where there is no engine any more."""
        until = time.monotonic() + timeout_s
        for is_last in (isinstance(call, _NOT_TWICE), True):
            try:
                return self._answer(call, until, timeout_s)
            except _EngineLost as lost:
                if is_last:
                    raise lost.why from None
        raise AssertionError("the last attempt returns or raises")

    @property
    def is_compiling(self) -> bool:
        """Whether the engine makes something of a text that a client wrote."""
        return bool(self._compiling)

    def opened(self, link: Link) -> None:
        """An engine takes calls."""
        with self._changed:
            self._link = link
            self._changed.notify_all()

    def take(self, number: str, answer: CallAnswer) -> None:
        """Settle a call; one that nobody waits for any more is ignored."""
        with self._changed:
            future = self._asked.pop(number, None)
            self._compiling.discard(number)
        if future is not None:
            future.set_result(answer)

    def lost(self, why: EverwarmError) -> None:
        """The engine is gone."""
        with self._changed:
            self._link = None
            asked, self._asked = list(self._asked.values()), {}
            self._compiling.clear()
        for future in asked:
            future.set_exception(_EngineLost(why))

    def close(self, why: EverwarmError) -> None:
        """There will be no engine any more."""
        with self._changed:
            self._refusal = why
            self._changed.notify_all()
        self.lost(why)

    def _answer(self, call: Call, until: float, timeout_s: float) -> CallAnswer:
        number, future = self._asking(call, until, timeout_s)
        try:
            answer = future.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            with self._changed:
                self._asked.pop(number, None)
            raise _too_long(timeout_s) from None
        if not isinstance(answer, CallRefused):
            return answer
        if answer.error is not None:
            raise answer.error
        raise ValueError(answer.reason)

    def _asking(self, call: Call, until: float, timeout_s: float) -> tuple[str, Future[CallAnswer]]:
        """Send a call as soon as there is an engine.

        A grammar is part of a request, which waits for as long as the model is loaded; a person
        who deletes something, or looks, is told to come back.
        """
        most_s = timeout_s if isinstance(call, CheckGrammar) else ENGINE_S
        with self._changed:
            self._changed.wait_for(
                lambda: self._link is not None or self._refusal is not None,
                max(0.0, min(most_s, until - time.monotonic())),
            )
            if self._refusal is not None:
                raise self._refusal
            if self._link is None:
                raise _too_long(min(most_s, timeout_s))
            number, future = str(next(self._numbers)), Future[CallAnswer]()
            self._link.post(call, number)  # `take` waits for us: it needs the same lock
            self._asked[number] = future
            if isinstance(call, CheckGrammar):
                self._compiling.add(number)
            return number, future


def _too_long(timeout_s: float) -> Overloaded:
    return Overloaded(
        f"The engine did not answer within {timeout_s:.0f} s; ask again later.",
        retry_after_s=math.ceil(timeout_s),
    )
