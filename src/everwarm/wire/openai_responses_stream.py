"""Events become OpenAI's response: output items, streamed or whole.

    response.created  response.in_progress
    (output_item.added  deltas  output_item.done)*
    response.completed | response.incomplete | response.failed

An item's id names its answer, so that the items of one reply can be joined when they come back.
Where a client wants a summary of the reasoning, it gets the reasoning itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from everwarm import events as ev
from everwarm.events import Event, Progress, TokenLogprob, TurnRecord
from everwarm.messages import json_value
from everwarm.wire.error_json import openai_error
from everwarm.wire.format import Chunk, Head, progress_field
from everwarm.wire.openai_parts import logprob_entry
from everwarm.wire.openai_responses_tools import ToolName
from everwarm.wire.seals import seal

PREFIX = "resp_"
_KINDS = {"reasoning": "rs", "message": "msg", "function_call": "fc", "custom_tool_call": "ctc"}


def turn_of_item(item_id: str | None) -> str:
    """The answer that an item was part of; empty where the id is not one of ours."""
    kind, _, rest = (item_id or "").partition("_")
    turn, _, number = rest.rpartition("_")
    return turn if kind in _KINDS.values() and number.isdecimal() else ""


class Encoder:
    """Says one turn's events in the words of OpenAI's responses. Belongs to one answer.

    `echo`: fields of the request that the response repeats. `names`: the client's names of tools.
    `summarizes`: the reasoning goes into the summary, which clients show. `seals`: it also goes
    into `encrypted_content`, which clients send back.
    """

    def __init__(
        self,
        head: Head,
        *,
        echo: Mapping[str, Any],
        names: Mapping[str, ToolName],
        summarizes: bool,
        seals: bool,
    ) -> None:
        self._head, self._echo, self._names = head, echo, names
        self._summarizes, self._seals = summarizes, seals
        self._output: list[Chunk] = []
        self._open: Chunk | None = None
        self._texts: list[str] = []
        self._logprobs: list[Chunk] = []
        self._sequence = 0
        self._end: ev.Finished | None = None

    def chunks(self, event: Event) -> list[Chunk]:
        """The events that an event becomes."""
        match event:
            case ev.Started():
                return [self._whole("response.created"), self._whole("response.in_progress")]
            case ev.Progress():
                return []
            case ev.TextDelta(text, logprobs):
                return self._text(text, logprobs) if text or logprobs else []
            case ev.ReasoningDelta(text):
                return self._reasoning(text) if text else []
            case ev.CallStart(_, id, name):
                return self._call(id, name)
            case ev.CallDelta(_, arguments):
                return self._arguments(arguments)
            case ev.CallEnd():
                return self._close("completed")
            case ev.Finished():
                self._end = event
                is_cut = event.reason not in ("stop", "tool_calls")
                closed = self._close("incomplete" if is_cut else "completed")
                kind = "response.incomplete" if is_cut else "response.completed"
                return [*closed, self._whole(kind)]

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """`response.in_progress` once more, with how far the prompt is read."""
        return [self._whole("response.in_progress") | progress_field(progress)]

    def failed(self, error: Exception) -> list[Chunk]:
        """The event that ends a failed response."""
        e = openai_error(error)[1]["error"]
        closed = self._close("incomplete")
        is_long = e["code"] == "context_length_exceeded"  # by which clients shorten their prompt
        failure = {
            "code": e["code"] if is_long else "server_error",
            "message": e["message"],
        }
        chunk = self._whole("response.failed")
        chunk["response"] |= {"status": "failed", "error": failure}
        return [*closed, chunk]

    def fold(self, events: Iterable[Event]) -> Chunk:
        """The whole response of a turn's events, which end with `Finished`.

        Events that `chunks` has seen count too: at the end of a stream, none are left.
        """
        for event in events:
            self.chunks(event)
        assert self._end is not None, "a turn ends with Finished or an exception"
        return self._response()

    def _event(self, kind: str, **more: Any) -> Chunk:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **more}

    def _whole(self, kind: str) -> Chunk:
        return self._event(kind, response=self._response())

    def _response(self) -> Chunk:
        end = self._end
        status, details = "in_progress", None
        if end and end.reason in ("stop", "tool_calls"):
            status = "completed"
        elif end:
            status = "incomplete" if end.reason == "length" else "cancelled"
            details = {"reason": "max_output_tokens"} if end.reason == "length" else None
        return {
            "id": self._head.id,
            "object": "response",
            "created_at": self._head.created,
            "status": status,
            "error": None,
            "incomplete_details": details,
            "model": self._head.model,
            "output": [dict(item) for item in self._output],
            "usage": _usage(end.record, self._head.caches) if end else None,
            **self._echo,
        }

    def _text(self, text: str, logprobs: Iterable[TokenLogprob]) -> list[Chunk]:
        opened: list[Chunk] = []
        if not self._open or self._open["type"] != "message":
            opened = self._open_item({"type": "message", "role": "assistant", "content": []})
            opened.append(self._in_part("response.content_part.added", part=_output_text("", [])))
        shown = [logprob_entry(t) for t in logprobs]
        self._texts.append(text)
        self._logprobs += shown
        return [*opened, self._in_part("response.output_text.delta", delta=text, logprobs=shown)]

    def _reasoning(self, text: str) -> list[Chunk]:
        opened: list[Chunk] = []
        if not self._open or self._open["type"] != "reasoning":
            opened = self._open_item({"type": "reasoning", "summary": []})
            opened.append(self._thought("part.added", part=self._thought_part("")))
        self._texts.append(text)
        return [*opened, self._thought("text.delta", delta=text)]

    def _thought(self, what: str, **more: Any) -> Chunk:
        if self._summarizes:
            return self._in_item(f"response.reasoning_summary_{what}", summary_index=0, **more)
        family = "content_" if what.startswith("part") else "reasoning_"
        return self._in_part(f"response.{family}{what}", **more)

    def _thought_part(self, text: str) -> Chunk:
        return {"type": "summary_text" if self._summarizes else "reasoning_text", "text": text}

    def _call(self, id: str, name: str) -> list[Chunk]:
        tool = self._names.get(name, ToolName(name))
        space = {"namespace": tool.namespace} if tool.namespace else {}
        call: Chunk = {"call_id": id, "name": tool.name, **space}
        if tool.is_custom:
            return self._open_item({"type": "custom_tool_call", **call, "input": ""})
        return self._open_item({"type": "function_call", **call, "arguments": ""})

    def _arguments(self, text: str) -> list[Chunk]:
        self._texts.append(text)
        if self._open and self._open["type"] == "custom_tool_call":
            return []  # the text is known when the arguments are whole
        return [self._in_item("response.function_call_arguments.delta", delta=text)]

    def _open_item(self, item: Chunk) -> list[Chunk]:
        closed = self._close("completed")
        turn = self._head.id.removeprefix(PREFIX)
        item = {"id": f"{_KINDS[item['type']]}_{turn}_{len(self._output)}", **item}
        if item["type"] != "reasoning":
            item["status"] = "in_progress"
        self._open, self._texts, self._logprobs = item, [], []
        self._output.append(item)
        added = self._event(
            "response.output_item.added", output_index=len(self._output) - 1, item=dict(item)
        )
        return [*closed, added]

    def _close(self, status: str) -> list[Chunk]:
        item, text = self._open, "".join(self._texts)
        if item is None:
            return []
        kind = item["type"]
        if kind == "message":
            out = self._close_text(item, text)
        elif kind == "reasoning":
            out = self._close_reasoning(item, text)
        elif kind == "function_call":
            item["arguments"] = text
            done = "response.function_call_arguments.done"
            out = [self._in_item(done, name=item["name"], arguments=text)]
        else:
            out = self._close_custom(item, text)
        if kind != "reasoning":
            item["status"] = status
        self._open = None
        index = len(self._output) - 1
        done_item = self._event("response.output_item.done", output_index=index, item=dict(item))
        return [*out, done_item]

    def _close_text(self, item: Chunk, text: str) -> list[Chunk]:
        part = _output_text(text, self._logprobs)
        item["content"] = [part]
        return [
            self._in_part("response.output_text.done", text=text, logprobs=self._logprobs),
            self._in_part("response.content_part.done", part=part),
        ]

    def _close_reasoning(self, item: Chunk, text: str) -> list[Chunk]:
        part = self._thought_part(text)
        item["summary" if self._summarizes else "content"] = [part]
        if self._seals:
            item["encrypted_content"] = seal(text)
        return [self._thought("text.done", text=text), self._thought("part.done", part=part)]

    def _close_custom(self, item: Chunk, text: str) -> list[Chunk]:
        value = json_value(text)
        given = value.get("input") if isinstance(value, dict) else None
        item["input"] = given if isinstance(given, str) else text
        return [
            self._in_item("response.custom_tool_call_input.delta", delta=item["input"]),
            self._in_item("response.custom_tool_call_input.done", input=item["input"]),
        ]

    def _in_item(self, kind: str, **more: Any) -> Chunk:
        assert self._open is not None
        index = len(self._output) - 1
        return self._event(kind, item_id=self._open["id"], output_index=index, **more)

    def _in_part(self, kind: str, **more: Any) -> Chunk:
        return self._in_item(kind, content_index=0, **more)


def _output_text(text: str, logprobs: list[Chunk]) -> Chunk:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _usage(record: TurnRecord, caches: bool) -> Chunk:
    written = record.prompt_tokens - record.cached_tokens if caches else 0
    return {
        "input_tokens": record.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": record.cached_tokens,
            "cache_write_tokens": written,
        },
        "output_tokens": record.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": record.reasoning_tokens},
        "total_tokens": record.prompt_tokens + record.completion_tokens,
    }
