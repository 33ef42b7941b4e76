"""Answers with several choices: samples of one prompt, or the replies to a list of prompts.

Each choice is a turn of its own with an encoder of its own, in any format whose chunks and answers
have `choices`. The choice of sample `s` of prompt `p` has the index p * n_samples + s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from everwarm.events import Event, Finished, Progress, Started, TurnRecord
from everwarm.wire.format import Chunk, Encoder


@dataclass(frozen=True, slots=True)
class ChoiceEvent:
    """An event of one of the turns that answer a request; `index` is its choice's."""

    index: int
    event: Event


class ChoicesEncoder:
    """Says the turns of one answer in its format's words. Live: belongs to one answer.

    A single turn is said as its format says it. Of several, each chunk has its choice's index, and
    usage stands at the end of all: each prompt's tokens once, and the tokens of all replies.
    """

    def __init__(self, make: Callable[[], Encoder], *, n_prompts: int, n_samples: int) -> None:
        self._encoders = [make() for _ in range(n_prompts * n_samples)]
        self._n_samples = n_samples
        self._ends: dict[int, Finished] = {}

    def chunks(self, said: ChoiceEvent) -> list[Chunk]:
        """The chunks that an event becomes."""
        index, event = said.index, said.event
        match event:
            case _ if len(self._encoders) == 1:
                return self._encoders[0].chunks(event)
            case Started():
                return self._begun(index, event)
            case Finished():
                return self._ended(index, event)
            case _:
                return _of_choice(index, self._encoders[index].chunks(event))

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """Real events that say nothing, of a choice that has not ended."""
        if len(self._encoders) == 1:
            return self._encoders[0].keepalive(progress)
        index = next((i for i in range(len(self._encoders)) if i not in self._ends), 0)
        return _of_choice(index, self._encoders[index].keepalive(progress))

    def failed(self, error: Exception) -> list[Chunk]:
        """What ends a stream that cannot go on."""
        return self._encoders[0].failed(error)

    def fold(self, events: Iterable[ChoiceEvent]) -> Chunk:
        """The one response of all turns' events, as `Encoder.fold` makes it of one turn's."""
        if len(self._encoders) == 1:
            return self._encoders[0].fold(said.event for said in events)
        turns: list[list[Event]] = [[] for _ in self._encoders]
        for said in events:
            turns[said.index].append(said.event)
        self._ends = {i: e for i, turn in enumerate(turns) if isinstance(e := turn[-1], Finished)}
        whole: list[Chunk] = []
        for index, turn in enumerate(turns):
            end = replace(self._ends[index], record=self._sum())
            answer = self._encoders[index].fold([*turn[:-1], end])
            whole += _of_choice(index, [answer])
        return {**whole[0], "choices": [choice for answer in whole for choice in answer["choices"]]}

    def _begun(self, index: int, event: Started) -> list[Chunk]:
        """All samples of a prompt begin with its first one: some clients file choices in the order
        in which they first hear of them."""
        if index % self._n_samples:
            return []
        samples = range(index, index + self._n_samples)
        return [c for i in samples for c in _of_choice(i, self._encoders[i].chunks(event))]

    def _ended(self, index: int, event: Finished) -> list[Chunk]:
        self._ends[index] = event
        is_last = len(self._ends) == len(self._encoders)
        if is_last:
            event = replace(event, record=self._sum())
        chunks = _of_choice(index, self._encoders[index].chunks(event))
        return chunks if is_last else [c for c in chunks if c["choices"]]

    def _sum(self) -> TurnRecord:
        """What all turns cost, as far as usage tells it."""
        records = [self._ends[i].record for i in sorted(self._ends)]
        first_samples = records[:: self._n_samples]
        return replace(
            records[0],
            prompt_tokens=sum(r.prompt_tokens for r in first_samples),
            cached_tokens=sum(r.cached_tokens for r in first_samples),
            completion_tokens=sum(r.completion_tokens for r in records),
            reasoning_tokens=sum(r.reasoning_tokens for r in records),
        )


def _of_choice(index: int, chunks: Iterable[Chunk]) -> list[Chunk]:
    """Chunks of a format that knows one choice, as those of the choice with this index."""
    return [
        {**c, "choices": [{**choice, "index": index} for choice in c["choices"]]} for c in chunks
    ]
