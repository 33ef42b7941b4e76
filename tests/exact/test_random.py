"""Random histories over real tiny models: every turn's logits against the calls that made them.

`EVERWARM_HISTORIES` says how many for each family; all families take part where it is set.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from client_replay import Turn, Warm, zoo
from operations import SYSTEM, words

pytestmark = [
    pytest.mark.exact,
    pytest.mark.skipif(
        os.environ.get("EVERWARM_BLAS") != "reference",
        reason="needs EVERWARM_BLAS=reference, in a process of its own",
    ),
]
HISTORIES = int(os.environ.get("EVERWARM_HISTORIES", 0))
FEW = ("llama", "gemma3_text", "qwen3_5", "falcon_h1", "recurrent_gemma")
ROUNDING = 1e-4
TURNS, LONGEST = 9, 110


class Client:
    """Talks to one warm model as it likes. `talks` are histories with the places of messages."""

    def __init__(self, warm: Warm, random: Random) -> None:
        self.warm, self.random = warm, random
        self.talks: list[list[int]] = []
        self.borders: dict[int, list[int]] = {}
        self.new()

    def keep(self, turn: Turn, borders: list[int]) -> None:
        talk = turn.tokens + turn.reply
        self.borders[len(self.talks)] = [*borders, len(talk)]
        self.talks.append(talk)

    def new(self) -> None:
        prompt = words(0, SYSTEM) + self.words()
        self.keep(self.warm.turn(prompt, SYSTEM), [SYSTEM])

    def words(self) -> list[int]:
        return words(self.random.randrange(3), self.random.choice([1, 5, 17, 30]))

    def choose(self) -> tuple[list[int], list[int]]:
        """Where to go on: a history that is cut behind one of its messages."""
        i = self.random.randrange(len(self.talks))
        borders = [b for b in self.borders[i] if b < LONGEST]
        n = self.random.randrange(1, len(borders) + 1)
        return self.talks[i][: borders[n - 1]], borders[:n]

    def ask(self) -> None:
        history, borders = self.choose()
        self.keep(self.warm.turn(history + self.words(), *borders), borders)

    def give_up(self) -> None:
        history, borders = self.choose()
        turn = self.warm.opened(history + self.words(), *borders).steps(self.random.randrange(1, 6))
        self.keep(turn if turn.over else turn.cancel(), borders)

    def fork(self) -> None:
        history, borders = self.choose()
        one = self.warm.opened(history + self.words(), *borders).steps(self.random.randrange(4))
        other = self.warm.opened(history + self.words(), *borders)
        for _ in range(60):
            one.steps(self.random.randrange(3))
            other.steps(self.random.randrange(3))
        self.keep(one.steps(1000), borders)
        self.keep(other.steps(1000), borders)

    def press(self) -> None:
        """Somebody else needs the room."""
        cache, memory = self.warm.cache, self.warm.cache.memory
        budget, memory.budget = memory.budget, cache.nbytes // self.random.choice([2, 5])
        cache.evict()
        memory.budget = budget


@pytest.mark.parametrize("n", range(HISTORIES or 1))
@pytest.mark.parametrize("family", zoo.FAMILIES if HISTORIES else FEW)
def test_any_history_is_warm_as_cold(family: str, n: int) -> None:
    random = Random(f"{family} {n}")
    client = Client(Warm(zoo.make(zoo.small(family))), random)
    for _ in range(TURNS):
        what = random.choice([client.ask, client.ask, client.ask, client.give_up, client.fork,
                              client.press, client.new])  # fmt: skip
        what()
    # Where the same place was read twice, in other calls, rows of one reading and a checkpoint of
    # the other may meet: no single sequence of calls makes that state, and rounding shows.
    assert client.warm.difference < ROUNDING
