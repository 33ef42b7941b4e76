"""One request that becomes several turns: samples of a prompt, and the prompts of a list.

    prompt 0   [ sample 0 reads the prompt | writes …        ]
                                           [ sample 1 writes … ]     all at a time
                                           [ sample 2 writes … ]
    prompt 1                                                     [ sample 0 reads …

A prompt is read once: its other samples begin when the first has read it, and fork from there.
Prompts follow each other, since there is nothing to be gained by reading two at a time. Whoever
closes the stream of events, or one turn that fails, ends all turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from everwarm.errors import RequestError
from everwarm.events import Event, Progress, Started
from everwarm.request import Request, nth_sample
from everwarm.server.queue import Queue
from everwarm.server.turn import Turn
from everwarm.wire.choices import ChoiceEvent


class Answers(Protocol):
    """Who answers requests: `turns.Turns`."""

    queue: Queue

    def answer(
        self, request: Request, turn: Turn, place: object | None = None
    ) -> AsyncGenerator[Event, None]: ...

    async def checked(self, request: Request) -> Request:
        """The same request, where it would not be refused as a turn."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """The turns of one request. `prompts`: a request for each, which tells the number of samples.

    `turns`: those that answer, the samples of a prompt next to each other.
    """

    answers: Answers
    prompts: Sequence[Request]
    turns: Sequence[Turn]

    async def events(self) -> AsyncGenerator[ChoiceEvent, None]:
        """The events of all turns. Closing the generator cancels what is left of them."""
        n_samples = self.prompts[0].samples
        if len(self.turns) == 1:
            async with aclosing(self._turn(0, self.prompts[0])) as events:
                async for event in events:
                    yield ChoiceEvent(0, event)
            return
        with self.answers.queue.place() as place:
            # None begins where another one would be refused.
            checked = [await self._checked(n) for n in range(len(self.prompts))]
            for at, prompt in enumerate(checked):
                samples = [nth_sample(prompt, n) for n in range(n_samples)]
                async with aclosing(self._samples(at * n_samples, samples, place)) as said:
                    async for choice_event in said:
                        yield choice_event

    async def _checked(self, n: int) -> Request:
        """A prompt's request. A refusal says which prompt it is for."""
        try:
            return await self.answers.checked(self.prompts[n])
        except RequestError as e:
            if len(self.prompts) > 1:
                e.message = f"Prompt {n + 1} of {len(self.prompts)}: {e.message}"
            raise

    async def _samples(
        self, first: int, samples: Sequence[Request], place: object
    ) -> AsyncGenerator[ChoiceEvent, None]:
        """The events of one prompt's samples, as they come."""
        merged: asyncio.Queue[ChoiceEvent | BaseException | None] = asyncio.Queue()
        is_read = asyncio.Event()

        async def run(n: int) -> None:
            if n:
                await is_read.wait()
            async with aclosing(self._turn(first + n, samples[n], place=place)) as events:
                async for event in events:
                    if _tells_read(event):
                        is_read.set()
                    merged.put_nowait(ChoiceEvent(first + n, event))

        def over(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is None:  # its end may be all that is heard of it
                is_read.set()
            merged.put_nowait(error)

        def begun(n: int) -> asyncio.Task[None]:
            task = asyncio.create_task(run(n))
            task.add_done_callback(over)
            return task

        tasks = [begun(n) for n in range(len(samples))]
        n_running = len(tasks)
        try:
            while n_running:
                said = await merged.get()
                if isinstance(said, ChoiceEvent):
                    yield said
                elif said is not None:
                    raise said
                else:
                    n_running -= 1
        finally:
            await _end(tasks)
            # An error holds this frame and its turn's. Were it held by them too, what the turns had
            # would stay until the next full collection.
            said = None
            while not merged.empty():
                merged.get_nowait()

    def _turn(
        self, index: int, request: Request, place: object | None = None
    ) -> AsyncGenerator[Event, None]:
        return self.answers.answer(request, self.turns[index], place)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel what has not ended, and wait for it. The list is empty behind it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()


def _tells_read(event: Event) -> bool:
    """Whether the prompt is read by now, all but its last token."""
    match event:
        case Started():
            return False
        case Progress(done, total):
            return done >= total - 1
        case _:
            return True
