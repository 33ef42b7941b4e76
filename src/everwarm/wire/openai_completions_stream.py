"""Events become OpenAI's text completion: chunks, or one response."""

from __future__ import annotations

from collections.abc import Iterable

from everwarm import events as ev
from everwarm.events import Event, Progress, TokenLogprob
from everwarm.wire.error_json import openai_error
from everwarm.wire.format import Chunk, Head, progress_field
from everwarm.wire.openai_parts import finite, usage


class Encoder:
    """Says one turn's events in the words of OpenAI's completions. Belongs to one answer."""

    def __init__(self, head: Head, *, shows_usage: bool) -> None:
        self._head, self._shows_usage = head, shows_usage
        self._offset = 0

    def chunks(self, event: Event) -> list[Chunk]:
        """The chunks that an event becomes."""
        match event:
            case ev.TextDelta(text, logprobs) if text or logprobs:
                return [self._object(text, self._logprobs(logprobs), None)]
            case ev.Finished():
                return self._last(event)
            case _:
                return []

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """An empty chunk."""
        return [self._object("", None, None) | progress_field(progress)]

    def failed(self, error: Exception) -> list[Chunk]:
        """The chunk that ends a failed stream."""
        return [openai_error(error)[1]]

    def fold(self, events: Iterable[Event]) -> Chunk:
        """The one response of a whole turn's events, which end with `Finished`."""
        chunks = [c for event in events for c in self.chunks(event)]
        whole = chunks[-1]
        choices = [c["choices"][0] for c in chunks if c["choices"]]
        shown = [c["logprobs"] for c in choices if c["logprobs"]]
        logprobs = {k: [x for s in shown for x in s[k]] for k in shown[0]} if shown else None
        text = "".join(c["text"] for c in choices)
        choice = choices[-1] | {"text": text, "logprobs": logprobs}
        return whole | {"choices": [choice]}

    def _last(self, end: ev.Finished) -> list[Chunk]:
        reason = "length" if end.reason == "length" else "stop"
        last = [self._object("", None, reason)]
        if self._shows_usage:
            empty = self._object("", None, None)
            last.append({**empty, "choices": [], "usage": usage(end.record)})
        return last

    def _object(self, text: str, logprobs: Chunk | None, reason: str | None) -> Chunk:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return {
            "id": self._head.id,
            "object": "text_completion",
            "created": self._head.created,
            "model": self._head.model,
            "choices": [choice],
        }

    def _logprobs(self, tokens: Iterable[TokenLogprob]) -> Chunk | None:
        shown = list(tokens)
        if not shown:
            return None
        offsets = []
        for t in shown:
            offsets.append(self._offset)
            self._offset += len(t.text)
        return {
            "tokens": [t.text for t in shown],
            "token_logprobs": [finite(t.logprob) for t in shown],
            "top_logprobs": [{text: finite(p) for _, text, p in t.top} for t in shown],
            "text_offset": offsets,
        }
