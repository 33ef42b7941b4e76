"""A reply's tokens to events: text, reasoning and tool calls, as early as they are certain.

Nothing that may still turn out to be part of a marker or of a stop text is let out. A call that
cannot be read becomes text: nothing the model wrote is lost silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from everwarm.codec import Codec
from everwarm.events import (
    CallDelta,
    CallEnd,
    CallStart,
    Event,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
)
from everwarm.job import Token
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall
from everwarm.prompt.dialects.early import JsonObject, arguments_start, early_name
from everwarm.prompt.shape import tool_dicts
from everwarm.request import Tool

Mode = Literal["text", "reasoning", "call"]
_ALIVE_EVERY = 16  # tokens between empty deltas of a call whose arguments come at its end


def partial(text: str, markers: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the start of a marker."""
    best = 0
    for marker in markers:
        for n in range(min(len(marker) - 1, len(text)), best, -1):
            if text.endswith(marker[:n]):
                best = n
                break
    return best


class ReplyParser:
    """Parses one reply. Owned by one caller."""

    def __init__(
        self,
        codec: Codec,
        *,
        tools: Sequence[Tool],
        tools_allowed: bool,
        opens_reasoning: bool,
        stop: tuple[str, ...],
        new_call_id: Callable[[], str],
        raw: bool = False,
    ) -> None:
        """`raw`: all of the reply is text, whatever markers it holds."""
        self._codec, self._detok = codec, codec.detokenizer()
        self._think = None if raw else codec.think_markers
        self._tool = codec.tool_markers if tools and tools_allowed else None
        self._tools, self._stop, self._new_id = tool_dicts(tools), stop, new_call_id
        self._mode: Mode = "reasoning" if opens_reasoning else "text"
        self._buf, self._taken, self._seen = "", 0, 0
        self._trim, self._gap, self._final = False, "", False
        self._ids: list[int] = []
        self._ends: list[int] = []
        self._out: list[Event] = []
        self._parts: list[Part] = []
        self._logprobs: list[TokenLogprob] = []
        self._n_calls, self._call_tokens = 0, 0
        self._started: CallStart | None = None
        self._args, self._name_end = "", 0
        self._json: JsonObject | None = None
        self.stopped = False
        self.stop_text: str | None = None
        self.n_reasoning = 0

    def feed(self, token: Token) -> list[Event]:
        """Take the next token and give what became certain."""
        if self.stopped:
            return []
        text = self._detok.add(token.id)
        self._ids.append(token.id)
        self.n_reasoning += self._mode == "reasoning"
        self._note_logprob(token)
        self._add(text)
        self._ends.append(self._seen)
        self._keep_alive()
        return self._drain()

    def finish(self) -> list[Event]:
        """Give what was held back: no token follows."""
        if not self.stopped:
            self._final = True
            self._add(self._detok.finish())
            if self._mode == "call":
                self._end_call(self._buf, "")
            elif self._mode == "reasoning":
                self._reasoning(self._buf)
            elif not self.stopped:
                self._text(self._buf)
            self._buf = ""
        return self._drain()

    @property
    def message(self) -> Message:
        """The reply so far; a call that is not finished yet belongs to it as far as it came."""
        started = self._started
        open_call = (ToolCall(started.id, started.name, self._args),) if started else ()
        return Message("assistant", (*self._parts, *open_call))

    @property
    def ids(self) -> list[int]:
        """The tokens to remember: with a stop text, those that end before it."""
        if not self.stopped:
            return list(self._ids)
        ends = self._ends + [self._seen] * (len(self._ids) - len(self._ends))
        return [t for t, end in zip(self._ids, ends, strict=True) if end <= self._taken]

    @property
    def has_calls(self) -> bool:
        """Whether the reply holds a tool call."""
        return self._n_calls > 0

    def _add(self, text: str) -> None:
        self._buf += text
        self._seen += len(text)
        steps = {"text": self._in_text, "reasoning": self._in_reasoning, "call": self._in_call}
        while steps[self._mode]():
            pass

    def _take(self, n: int) -> str:
        text, self._buf = self._buf[:n], self._buf[n:]
        self._taken += n
        return text

    def _in_text(self) -> bool:
        if self.stopped:
            return False
        if self._trim:
            self._take(len(self._buf) - len(self._buf.lstrip()))
            self._trim = not self._buf
        opens = [m[0] for m in (self._think, self._tool) if m]
        found = [(self._buf.find(m), -len(m), m) for m in (*opens, *self._stop) if m in self._buf]
        held = partial(self._buf, (*opens, *self._stop))
        end = len(self._buf) - held
        if not found or (not self._final and end < min(found)[0]):
            body = self._buf[:end]
            self._text(self._take(len(body.rstrip() if self._tool else body)))
            return False
        at, _, marker = min(found)
        if marker in self._stop:
            self._text(self._take(at))
            self.stopped, self.stop_text = True, marker
            return False
        text = self._take(at)
        is_call = bool(self._tool) and marker == (self._tool or ("",))[0]
        body = text.rstrip() if is_call else text
        self._gap = text[len(body) :]
        self._text(body)
        self._take(len(marker))
        self._mode = "call" if is_call else "reasoning"
        return True

    def _in_reasoning(self) -> bool:
        close = self._think[1] if self._think else ""
        at = self._buf.find(close) if close else -1
        if at < 0:
            self._reasoning(self._take(len(self._buf) - partial(self._buf, [close])))
            return False
        self._reasoning(self._take(at))
        self._take(len(close))
        self._mode, self._trim = "text", True
        return True

    def _in_call(self) -> bool:
        close = self._tool[1] if self._tool else ""
        self._show_call(len(self._buf) - (partial(self._buf, [close]) if close else 0))
        if not close:
            return False
        start = self._json.at if self._json else 0
        if self._json and not self._json.closed and self._json.in_string:
            return False
        at = self._buf.find(close, start)
        if at < 0:
            return False
        body = self._take(at)
        self._take(len(close))
        n_before = self._n_calls
        started = self._started is not None
        self._end_call(body, close)
        self._mode, self._trim = "text", started or self._n_calls > n_before
        return True

    def _show_call(self, end: int) -> None:
        """Give the name, and JSON arguments, as far as they can be read."""
        kind = self._codec.tool_format
        if not self._started and (name := early_name(kind, self._buf[:end])):
            self._start(name[0])
            self._name_end = name[1]
        if self._started and not self._json:
            at = arguments_start(kind, self._buf, self._name_end)
            self._json = JsonObject(at) if at is not None else None
        if self._json and not self._json.closed:
            at = self._json.at
            self._json.advance(self._buf, self._tool[1] if self._tool else "")
            self._arguments(self._buf[at : self._json.at])

    def _start(self, name: str) -> None:
        self._started = CallStart(self._n_calls, self._new_id(), name)
        self._n_calls += 1
        self._out.append(self._started)

    def _arguments(self, text: str) -> None:
        if text and self._started:
            self._args += text
            self._out.append(CallDelta(self._started.index, text))

    def _end_call(self, body: str, close: str) -> None:
        calls = [] if self._json else self._parsed(body)
        if not calls and not self._started:
            self._text(self._gap + (self._tool[0] if self._tool else "") + body + close)
        for call in calls or [{}]:
            if not self._started and call:
                self._start(str(call["name"]))
            if call:
                args = call.get("arguments", {})
                self._arguments(args if isinstance(args, str) else json.dumps(args))
            self._close_call()
        self._call_tokens = 0

    def _close_call(self) -> None:
        if self._started:
            self._parts.append(ToolCall(self._started.id, self._started.name, self._args))
            self._out.append(CallEnd(self._started.index))
        self._started, self._json, self._args = None, None, ""

    def _parsed(self, body: str) -> list[dict[str, Any]]:
        try:
            calls = self._codec.parse_calls(body, self._tools)
        except ValueError:
            return []
        return [c for c in calls if c.get("name")]

    def _text(self, text: str) -> None:
        if text:
            self._out.append(TextDelta(text, tuple(self._logprobs)))
            self._logprobs.clear()
            self._fold(Text(text))

    def _reasoning(self, text: str) -> None:
        if text:
            self._out.append(ReasoningDelta(text))
            self._fold(Reasoning(text))

    def _fold(self, part: Text | Reasoning) -> None:
        last = self._parts[-1] if self._parts else None
        if isinstance(part, Text) and isinstance(last, Text):
            self._parts[-1] = Text(last.text + part.text)
        elif isinstance(part, Reasoning) and isinstance(last, Reasoning):
            self._parts[-1] = Reasoning(last.text + part.text)
        else:
            self._parts.append(part)

    def _keep_alive(self) -> None:
        if self._started and not self._json:
            self._call_tokens += 1
            if self._call_tokens % _ALIVE_EVERY == 0:
                self._out.append(CallDelta(self._started.index, ""))

    def _note_logprob(self, token: Token) -> None:
        if token.logprob is not None:
            top = tuple((i, self._codec.decode([i]), p) for i, p in token.top)
            text = self._codec.decode([token.id])
            self._logprobs.append(TokenLogprob(token.id, text, token.logprob, top))

    def _drain(self) -> list[Event]:
        if self._logprobs and self._mode == "text":
            self._out.append(TextDelta("", tuple(self._logprobs)))
        self._logprobs.clear()
        out, self._out = self._out, []
        return out
