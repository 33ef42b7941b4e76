"""Answers with several choices: samples of one prompt, or the replies to a list of prompts.

Each choice is a turn of its own with an encoder of its own, in any format whose chunks and answers
have `choices`. The choice of sample `s` of prompt `p` has the index p * n_samples + s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from everwarm.events import Event, Finished, Progress, Started, TurnRecord
from everwarm.wire.format import Chunk, StreamEncoder


@dataclass(frozen=True, slots=True)
class ChoiceEvent:
    """An event of one of the turns that answer a request; `index` is its choice's."""

    index: int
    event: Event


class ChoicesEncoder:
    """Says the turns of one answer in its format's words. Live: belongs to one answer.

    A single turn is spelled by its format alone. With several, each chunk has its choice's index,
    and the usage comes once, at the end: each prompt's tokens once, and the tokens of all replies.
    """

    def __init__(
        self, make: Callable[[], StreamEncoder], *, n_prompts: int, n_samples: int
    ) -> None:
        self._encoders = [make() for _ in range(n_prompts * n_samples)]
        self._n_samples = n_samples
        self._records: dict[int, TurnRecord] = {}
        self._pending: dict[int, list[Event]] = {}
        self._answers: dict[int, Chunk] = {}

    def chunks(self, of: ChoiceEvent) -> list[Chunk]:
        """The chunks that an event becomes."""
        index, event = of.index, of.event
        if len(self._encoders) == 1:
            return self._encoders[0].chunks(event)
        if isinstance(event, Started):
            return self._begun(index, event)
        if isinstance(event, Finished):
            event = self._ended(index, event)
        chunks = _of_choice(index, self._encoders[index].chunks(event))
        # Every turn ends with its usage; only the last one's counts all turns.
        return chunks if self._is_over else [c for c in chunks if c["choices"]]

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """Empty events of a choice that has not ended."""
        if len(self._encoders) == 1:
            return self._encoders[0].keepalive(progress)
        index = next((i for i in range(len(self._encoders)) if i not in self._records), 0)
        return _of_choice(index, self._encoders[index].keepalive(progress))

    def failed(self, error: Exception) -> list[Chunk]:
        """What ends a failed stream."""
        return self._encoders[0].failed(error)

    def take(self, of: ChoiceEvent) -> None:
        """Keep an event for `answer`. Once a turn has ended, only its response is kept."""
        index, event = of.index, of.event
        if isinstance(event, Finished):
            event = self._ended(index, event)
        turn = self._pending.setdefault(index, [])
        turn.append(event)
        if isinstance(event, Finished):
            self._answers[index] = self._encoders[index].fold(self._pending.pop(index))

    def answer(self) -> Chunk:
        """The one response of all turns, whose events went through `chunks` or `take`."""
        if len(self._encoders) == 1:
            return self._answers[0] if self._answers else self._encoders[0].fold(())
        last = next(reversed(self._answers.values()))
        each = (_of_choice(i, [self._answers[i]])[0] for i in range(len(self._encoders)))
        return {**last, "choices": [choice for answer in each for choice in answer["choices"]]}

    def _begun(self, index: int, event: Started) -> list[Chunk]:
        """Begin all samples of a prompt with the first one: some clients order choices by when
        they first hear of them."""
        if index % self._n_samples:
            return []
        samples = range(index, index + self._n_samples)
        return [c for i in samples for c in _of_choice(i, self._encoders[i].chunks(event))]

    def _ended(self, index: int, event: Finished) -> Finished:
        """The end of a turn; the last one carries what all turns have cost."""
        self._records[index] = event.record
        return replace(event, record=self._sum()) if self._is_over else event

    @property
    def _is_over(self) -> bool:
        return len(self._records) == len(self._encoders)

    def _sum(self) -> TurnRecord:
        """What all turns have cost, in the fields that usage shows."""
        records = [self._records[i] for i in range(len(self._encoders))]
        first_samples = records[:: self._n_samples]
        return replace(
            records[0],
            prompt_tokens=sum(r.prompt_tokens for r in first_samples),
            cached_tokens=sum(r.cached_tokens for r in first_samples),
            completion_tokens=sum(r.completion_tokens for r in records),
            reasoning_tokens=sum(r.reasoning_tokens for r in records),
        )


def _of_choice(index: int, chunks: Iterable[Chunk]) -> list[Chunk]:
    """Give the choices of these chunks this index."""
    return [
        {**c, "choices": [{**choice, "index": index} for choice in c["choices"]]} for c in chunks
    ]
