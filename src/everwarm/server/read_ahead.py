"""Reading ahead: the prefix of a request that is about to come is restored, or read, before it.

No turn waits for it: it begins only where no turn runs, and ends when a turn begins. What was read
by then is kept.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Literal

from everwarm.job import Ended, Engine, Failed, Job, Leased
from everwarm.request import Sampling
from everwarm.server.outbox import Outbox
from everwarm.tokens import Prompt

AheadState = Literal["ready", "reading", "busy", "too_long"]


@dataclass(slots=True)
class Ahead:
    """The one job that reads ahead. Live: event loop only."""

    engine: Engine
    _job: str | None = None
    _watch: asyncio.Task[None] | None = field(default=None, repr=False)

    def stop(self) -> None:
        """End at the next step, since a turn begins."""
        if self._job is not None:
            self.engine.cancel(self._job)

    async def read(self, prompt: Prompt, namespace: str) -> AheadState:
        """Begin to read a prompt. `ready`: all of it was in memory."""
        self.stop()
        job = Job(
            id="ahead_" + secrets.token_hex(8),
            tokens=prompt.tokens,
            marks=prompt.marks,
            sampling=Sampling(),
            max_tokens=0,
            namespace=namespace,
        )
        outbox = Outbox()
        self._job = job.id
        self.engine.submit(job, outbox.put)
        first = await outbox.get()
        self._watch = asyncio.create_task(self._until_over(job.id, outbox, first))
        is_there = isinstance(first, Leased) and first.cached_tokens >= len(prompt.tokens) - 1
        return "ready" if is_there else "reading"

    async def _until_over(self, job_id: str, outbox: Outbox, out: object) -> None:
        while not isinstance(out, Ended | Failed):
            out = await outbox.get()
        if self._job == job_id:
            self._job = None


def coming(prompt: Prompt) -> Prompt | None:
    """The prefix of a prompt before its last message, which is the same for any last message."""
    marks = [m for m in prompt.marks if m.kind != "prompt"]
    if not marks:
        return None
    at = marks[-1].at
    inside = tuple(m for m in marks if m.at < at)
    return Prompt(prompt.tokens[:at], inside, 0, prompt.head, thread=prompt.thread)
