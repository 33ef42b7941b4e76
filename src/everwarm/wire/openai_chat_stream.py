"""Events become OpenAI's chat completion: chunks, or one response."""

from __future__ import annotations

from collections.abc import Iterable

from everwarm import events as ev
from everwarm.events import Event, Progress, TokenLogprob, TurnRecord
from everwarm.wire.error_json import openai_error
from everwarm.wire.format import Chunk, Head, progress_field
from everwarm.wire.openai_parts import logprob_entry, usage


class Encoder:
    """Says one turn's events in the words of OpenAI's chat completions. It holds no state."""

    def __init__(self, head: Head, *, include_usage: bool) -> None:
        self._head = {"id": head.id, "created": head.created, "model": head.model}
        self._include_usage = include_usage

    def chunks(self, event: Event) -> list[Chunk]:
        """The chunks that an event becomes: mostly one, two at the end, none for `Progress`."""
        match event:
            case ev.Started():
                return [self._chunk({"role": "assistant", "content": ""})]
            case ev.TextDelta("", ()) | ev.ReasoningDelta("") | ev.Progress() | ev.CallEnd():
                return []
            case ev.TextDelta(text, logprobs):
                return [self._chunk({"content": text}, logprobs=logprobs)]
            case ev.ReasoningDelta(text):
                return [self._chunk({"reasoning_content": text})]
            case ev.CallStart(index, id, name):
                return [self._chunk({"tool_calls": [{"index": index, **_call(id, name, "")}]})]
            case ev.CallDelta(index, arguments):
                call = {"index": index, "function": {"arguments": arguments}}
                return [self._chunk({"tool_calls": [call]})]
            case ev.Finished(reason, record):
                last = [self._chunk({}, finish_reason=reason)]
                if self._include_usage:
                    last.append(self._object([], {"usage": _usage(record)}))
                return last

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """An empty chunk."""
        return [self._chunk({}) | progress_field(progress)]

    def failed(self, error: Exception) -> list[Chunk]:
        """The chunk that ends a failed stream."""
        return [openai_error(error)[1]]

    def fold(self, events: Iterable[Event]) -> Chunk:
        """The one response of a whole turn's events, which end with `Finished`."""
        texts: list[str] = []
        thoughts: list[str] = []
        logprobs: list[TokenLogprob] = []
        calls: list[tuple[str, str, list[str]]] = []
        end: ev.Finished | None = None
        for event in events:
            match event:
                case ev.TextDelta(text, some):
                    texts.append(text)
                    logprobs.extend(some)
                case ev.ReasoningDelta(text):
                    thoughts.append(text)
                case ev.CallStart(_, id, name):
                    calls.append((id, name, []))
                case ev.CallDelta(index, arguments):
                    calls[index][2].append(arguments)
                case ev.Finished():
                    end = event
        assert end is not None, "a turn ends with Finished or an exception"
        content = "".join(texts)
        message: Chunk = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message["content"] = content or None
            message["tool_calls"] = [_call(id, name, "".join(a)) for id, name, a in calls]
        if any(thoughts):
            message["reasoning_content"] = "".join(thoughts)
        choice = _choice({"message": message}, logprobs, end.reason)
        usage = {"usage": _usage(end.record)}
        return {**self._head, "object": "chat.completion", "choices": [choice], **usage}

    def _chunk(
        self,
        delta: Chunk,
        logprobs: Iterable[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> Chunk:
        choice = _choice({"delta": delta}, logprobs, finish_reason)
        return self._object([choice], {"usage": None} if self._include_usage else {})

    def _object(self, choices: list[Chunk], more: Chunk) -> Chunk:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}


def _choice(content: Chunk, logprobs: Iterable[TokenLogprob], finish_reason: str | None) -> Chunk:
    if finish_reason == "cancelled":  # OpenAI has no word for a reply that somebody else stopped
        finish_reason = "stop"
    entries = [logprob_entry(t) for t in logprobs]
    shown = {"content": entries, "refusal": None} if entries else None
    return {"index": 0, **content, "logprobs": shown, "finish_reason": finish_reason}


def _call(id: str, name: str, arguments: str) -> Chunk:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _usage(record: TurnRecord) -> Chunk:
    details = {"completion_tokens_details": {"reasoning_tokens": record.reasoning_tokens}}
    return usage(record) | details
