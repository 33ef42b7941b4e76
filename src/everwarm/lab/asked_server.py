"""A running server that benchmarks ask, alone or several sessions at once."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from everwarm.client import ChatClient, ChatMessage, ChatReply, Delta
from everwarm.errors import ConfigError, EverwarmError

START_S: Final = 600.0
"""How long a server may take to answer behind its restart."""
FORBIDDEN: Final = -100.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What one streamed reply was like: `gaps_s` between two pieces of it."""

    ttft_s: float
    tokens: int
    cached_tokens: int
    prompt_tokens: int
    gaps_s: tuple[float, ...]
    text: str

    @property
    def message(self) -> dict[str, Any]:
        """The reply as it goes back into the conversation."""
        return {"role": "assistant", "content": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedServer:
    """`model`: what it calls the model. `ends`: ids of the tokens that end a reply, which are
    forbidden, so that replies have the length that is asked for. `restart`: a shell command that
    restarts it; "" where there is none. Used by one thread; `another` is for the next one.
    """

    name: str
    client: ChatClient
    model: str
    ends: Sequence[int] = ()
    restart: str = ""
    bias: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", {str(i): FORBIDDEN for i in self.ends})

    @contextmanager
    def another(self) -> Iterator[AskedServer]:
        """The same server over a connection of its own."""
        with self.client.again(read_timeout=600) as client:
            yield replace(self, client=client)

    def ask(self, talk: Sequence[ChatMessage], n_tokens: int) -> Heard:
        """Read a reply to its end, greedy. Raises EverwarmError."""
        began = last = time.perf_counter()
        gaps, ttft, reply = [], None, None
        bias = {"logit_bias": self.bias} if self.bias else {}
        stream = self.client.chat(
            talk, model=self.model, max_tokens=n_tokens, temperature=0, **bias
        )
        for part in stream:
            now = time.perf_counter()
            if isinstance(part, Delta):
                if ttft is None:
                    ttft = now - began
                else:
                    gaps.append(now - last)
                last = now
            else:
                reply = part
        assert isinstance(reply, ChatReply)
        return Heard(
            ttft if ttft is not None else reply.total_s,
            reply.completion_tokens,
            reply.cached_tokens,
            reply.prompt_tokens,
            tuple(gaps),
            reply.text,
        )

    def restarted(self) -> float:
        """Run the command that restarts it, and wait until it answers; the seconds of both.

        Raises ConfigError where the command fails, or nobody answers behind it.
        """
        began = time.perf_counter()
        done = subprocess.run(self.restart, shell=True, check=False)
        if done.returncode != 0:
            raise ConfigError(f"The restart of {self.name} failed: `{self.restart}` ended with "
                              f"{done.returncode}.")  # fmt: skip
        while True:
            try:
                self.client.models()
                return time.perf_counter() - began
            except EverwarmError:
                if time.perf_counter() - began > START_S:
                    raise ConfigError(
                        f"{self.name} does not answer {START_S:.0f} s behind its restart."
                    ) from None
                time.sleep(0.2)


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """All calls at once, each on a thread of its own. Raises what the first of them raised."""
    out: list[Any] = [None] * len(calls)

    def run(i: int) -> None:
        try:
            out[i] = calls[i]()
        except EverwarmError as error:
            out[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in out:
        if isinstance(found, EverwarmError):
            raise found
    return out
