"""Events become Anthropic's message: content blocks, streamed or whole.

Blocks follow each other, and one at a time is open. `message_start` waits for the first event that
tells how much is cached, or for the first keepalive, whichever comes first.

    message_start  (content_block_start content_block_delta* content_block_stop)*
    message_delta  message_stop

The usage splits the prompt's tokens into three: those read from the cache, those read and now in
the cache, and the rest, which is the last token: even a repeated request has to read it.
"""

from __future__ import annotations

from collections.abc import Iterable

from everwarm import events as ev
from everwarm.events import Event, Finish, Progress, TurnRecord
from everwarm.messages import json_value
from everwarm.wire.error_json import anthropic_error
from everwarm.wire.format import Chunk, Head, progress_field
from everwarm.wire.seals import seal

_STOP_REASONS: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "cancelled": "end_turn",
    "error": "end_turn",
}
_EMPTY = {
    "text": {"type": "text_delta", "text": ""},
    "thinking": {"type": "thinking_delta", "thinking": ""},
    "tool_use": {"type": "input_json_delta", "partial_json": ""},
}
"""An empty delta of each kind of block."""


class Encoder:
    """Says one turn's events in Anthropic's words. Belongs to one answer.

    `hides_thinking`: the client wants only the signature of the reasoning.
    """

    def __init__(self, head: Head, *, hides_thinking: bool = False) -> None:
        self._head, self._hides = head, hides_thinking
        self._blocks: list[Chunk] = []
        self._open: Chunk | None = None
        self._texts: list[str] = []
        self._begun = False
        self._prompt_tokens = 0
        self._end: ev.Finished | None = None

    def chunks(self, event: Event) -> list[Chunk]:
        """The events that an event becomes."""
        match event:
            case ev.Started(prompt_tokens):
                self._prompt_tokens = prompt_tokens
                return []
            case ev.Progress():
                return [] if event.waits else self._begin(event.cached)
            case ev.TextDelta(text):
                return self._block_text("text", text)
            case ev.ReasoningDelta(text):
                return self._block_text("thinking", text)
            case ev.CallStart(_, id, name):
                call = {"type": "tool_use", "id": id, "name": name, "input": {}}
                return [*self._begin(), *self._open_block(call)]
            case ev.CallDelta(_, arguments):
                self._texts.append(arguments)
                return [self._delta({"type": "input_json_delta", "partial_json": arguments})]
            case ev.CallEnd():
                return self._close()
            case ev.Finished():
                self._end = event
                return [*self._begin(), *self._close(), *self._last(event)]

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """A ping and an empty delta: one client gives up where only pings arrive for long."""
        begin = self._begin(progress.cached if progress else 0)
        opens = [] if self._open else self._open_block({"type": "text", "text": ""})
        assert self._open is not None
        ping = {"type": "ping"} | progress_field(progress)
        return [*begin, *opens, ping, self._delta(_EMPTY[self._open["type"]])]

    def failed(self, error: Exception) -> list[Chunk]:
        """The error event that ends a stream."""
        return [anthropic_error(error)[1]]

    def fold(self, events: Iterable[Event]) -> Chunk:
        """The whole message of a turn's events, which end with `Finished`."""
        for event in events:
            self.chunks(event)
        end = self._end
        assert end is not None, "a turn ends with Finished or an exception"
        usage = self._usage(end.record)
        return self._message(usage) | {"content": self._blocks} | _stopped(end)

    def _message(self, usage: Chunk) -> Chunk:
        return {
            "id": self._head.id,
            "type": "message",
            "role": "assistant",
            "model": self._head.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _begin(self, cached: int = 0) -> list[Chunk]:
        if self._begun:
            return []
        self._begun = True
        usage = _split(self._prompt_tokens, cached, self._head.caches) | {"output_tokens": 0}
        return [{"type": "message_start", "message": self._message(usage)}]

    def _last(self, end: ev.Finished) -> list[Chunk]:
        usage = self._usage(end.record)
        delta = {"type": "message_delta", "delta": _stopped(end), "usage": usage}
        return [delta, {"type": "message_stop"}]

    def _usage(self, record: TurnRecord) -> Chunk:
        split = _split(record.prompt_tokens, record.cached_tokens, self._head.caches)
        thoughts = {"thinking_tokens": record.reasoning_tokens}
        out = {"output_tokens": record.completion_tokens, "output_tokens_details": thoughts}
        return {**split, **out}

    def _block_text(self, kind: str, text: str) -> list[Chunk]:
        if not text:
            return []
        begin = self._begin()
        opens: list[Chunk] = []
        if self._open is None or self._open["type"] != kind:
            empty: Chunk = {"type": kind, kind: ""}
            opens = self._open_block(empty | ({"signature": ""} if kind == "thinking" else {}))
        self._texts.append(text)
        if kind == "thinking" and self._hides:
            return [*begin, *opens]
        return [*begin, *opens, self._delta({"type": f"{kind}_delta", kind: text})]

    def _open_block(self, block: Chunk) -> list[Chunk]:
        closed = self._close()
        self._open, self._texts = block, []
        self._blocks.append(block)
        start = {"type": "content_block_start", "index": self._index, "content_block": dict(block)}
        return [*closed, start]

    def _close(self) -> list[Chunk]:
        block, text = self._open, "".join(self._texts)
        if block is None:
            return []
        self._open = None
        out: list[Chunk] = []
        match block["type"]:
            case "text":
                block["text"] = text
            case "thinking":
                block["thinking"] = "" if self._hides else text
                block["signature"] = seal(text)
                signature = {"type": "signature_delta", "signature": block["signature"]}
                out.append(self._delta(signature))
            case "tool_use":
                value = json_value(text)
                block["input"] = value if isinstance(value, dict) else {}
        return [*out, {"type": "content_block_stop", "index": self._index}]

    def _delta(self, delta: Chunk) -> Chunk:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    @property
    def _index(self) -> int:
        return len(self._blocks) - 1


def _stopped(end: ev.Finished) -> Chunk:
    if end.reason == "stop" and end.stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stop}
    return {"stop_reason": _STOP_REASONS[end.reason], "stop_sequence": None}


def _split(prompt_tokens: int, cached: int, caches: bool) -> dict[str, int]:
    rest = prompt_tokens - cached
    written = max(0, rest - 1) if caches else 0
    return {
        "input_tokens": rest - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
    }
