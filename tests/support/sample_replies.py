"""A reply as a client puts it together from events."""

from __future__ import annotations

from collections.abc import Iterable

from everwarm.events import CallDelta, CallEnd, CallStart, Event, ReasoningDelta, TextDelta
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall


def fold(events: Iterable[Event]) -> Message:
    """The reply that a client puts together."""
    parts: list[Part] = []
    for e in events:
        last = parts[-1] if parts else None
        match e:
            case TextDelta(text) if isinstance(last, Text):
                parts[-1] = Text(last.text + text)
            case TextDelta(text) if text:
                parts.append(Text(text))
            case ReasoningDelta(text) if isinstance(last, Reasoning):
                parts[-1] = Reasoning(last.text + text)
            case ReasoningDelta(text):
                parts.append(Reasoning(text))
            case CallStart(_, call_id, name):
                parts.append(ToolCall(call_id, name, ""))
            case CallDelta(_, arguments):
                assert isinstance(last, ToolCall)
                parts[-1] = ToolCall(last.id, last.name, last.arguments + arguments)
            case CallEnd():
                assert isinstance(last, ToolCall)
    return Message("assistant", tuple(parts))
