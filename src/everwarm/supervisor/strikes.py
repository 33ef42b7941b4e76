"""Which prompts end the engine.

Who was beside a prompt that ended the engine is no culprit, and an engine may die of one job while
it does a step of another. So all prompts that were with it are suspects, and after two deaths a
suspect runs with no other beside it. Only if the engine dies then, too, the prompt is refused for a
while. A suspect that has lived longer than at its deaths gets company again, and one that was
answered is none any more.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from everwarm.errors import PromptRefused
from everwarm.tokens import Tokens

REFUSED_S: Final = 600.0
DEATHS_OF_A_SUSPECT: Final = 2
DEATHS_OF_A_CULPRIT: Final = 3
LONGER_S: Final = 5.0
_MOST: Final = 1000


@dataclass(slots=True)
class Suspicion:
    """What is held against one prompt. Times are monotonic seconds."""

    deaths: int = 0
    at: float = 0.0
    ran_s: float = 0.0
    is_culprit: bool = False


class Strikes:
    """Live: under its owner's lock."""

    def __init__(self) -> None:
        self._suspicions: OrderedDict[bytes, Suspicion] = OrderedDict()

    def died(self, ran: Mapping[str, tuple[Tokens[int], float]], now: float) -> None:
        """The engine died by a fault while these jobs were with it, for so many seconds.

        Several jobs of one prompt are one suspect: a request may ask for several replies.
        """
        longest: dict[bytes, float] = {}
        for tokens, ran_s in ran.values():
            name = _name(tokens)
            longest[name] = max(ran_s, longest.get(name, 0.0))
        for name, ran_s in longest.items():
            known = self._suspicions.setdefault(name, Suspicion())
            known.deaths, known.at = known.deaths + 1, now
            known.ran_s = max(known.ran_s, ran_s)
            known.is_culprit = len(longest) == 1 and known.deaths >= DEATHS_OF_A_CULPRIT
            self._suspicions.move_to_end(name)
        while len(self._suspicions) > _MOST:
            self._suspicions.popitem(last=False)

    def answered(self, tokens: Tokens[int]) -> None:
        """A prompt was answered whole."""
        if self._suspicions:
            self._suspicions.pop(_name(tokens), None)

    def refusal(self, tokens: Tokens[int], now: float) -> PromptRefused | None:
        """Why a prompt is not run; None where it may be."""
        known = self._known(tokens, now)
        if known is None or not known.is_culprit:
            return None
        left_s = known.at + REFUSED_S - now
        return PromptRefused(
            f"The engine died {known.deaths} times while it ran this very prompt, which is refused "
            f"for {math.ceil(left_s / 60)} more minutes. Change the conversation, or report it "
            "with the server's log.",
            retry_after_s=math.ceil(left_s),
        )

    def alone_s(self, tokens: Tokens[int], now: float) -> float:
        """For how long a prompt has to be the engine's only one; 0: it may have company."""
        known = self._known(tokens, now)
        if known is None or known.deaths < DEATHS_OF_A_SUSPECT:
            return 0.0
        return known.ran_s + LONGER_S

    def _known(self, tokens: Tokens[int], now: float) -> Suspicion | None:
        while self._suspicions:
            name, oldest = next(iter(self._suspicions.items()))
            if now - oldest.at < REFUSED_S:
                break
            del self._suspicions[name]
        return self._suspicions.get(_name(tokens)) if self._suspicions else None


def _name(tokens: Tokens[int]) -> bytes:
    return hashlib.blake2b(memoryview(tokens).cast("B"), digest_size=16).digest()
