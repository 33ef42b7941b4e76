"""Conversations with a renderer: what clients send, what a model writes, what is read twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from everwarm.codec import Codec
from everwarm.events import Miss
from everwarm.messages import Message, Reasoning, Role, Text, ToolCall, call_key
from everwarm.prompt.render import Renderer
from everwarm.prompt.why import difference
from everwarm.request import Request, Tool
from everwarm.tokens import Prompt, Tokens, common_length, tokens_of

TOOLS = (Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}}),)


def says(role: Role, text: str) -> Message:
    return Message(role, (Text(text),))


def user(text: str) -> Message:
    return says("user", text)


def system(text: str) -> Message:
    return says("system", text)


def said(text: str, *calls: ToolCall, thought: str = "") -> Message:
    thoughts = (Reasoning(thought),) if thought else ()
    texts = (Text(text),) if text else ()
    return Message("assistant", (*thoughts, *texts, *calls))


def look(call_id: str, **arguments: object) -> ToolCall:
    return ToolCall(call_id, "look", json.dumps(arguments))


def result(call: ToolCall, text: str) -> Message:
    return Message("tool", (Text(text),), call.id)


@dataclass
class Talk:
    """One conversation. `read` are all tokens that the model has seen in it, reply included."""

    renderer: Renderer
    codec: Codec
    tools: tuple[Tool, ...] = TOOLS
    messages: list[Message] = field(default_factory=list)
    read: Tokens[int] = field(default_factory=tokens_of)
    prefilled: int = 0
    new: int = 0

    def ask(self, client: Callable[[Message], Message] = lambda m: m, **changes: Any) -> Prompt:
        """Send the messages as a client would, and count what has to be read."""
        sent = tuple(client(m) for m in self.messages)
        prompt = self.renderer.prompt(Request(None, sent, self.tools, **changes))
        self.prefilled += len(prompt.tokens) - common_length(self.read, prompt.tokens)
        self.new += prompt.new_tokens
        return prompt

    def answer(self, prompt: Prompt, ids: Sequence[int], message: Message) -> None:
        """The model wrote these tokens, which a client got as this message."""
        self.renderer.remember(prompt, ids, message)
        self.read = tokens_of([*prompt.tokens, *ids])
        self.messages.append(message)

    def miss(self, prompt: Prompt) -> Miss:
        """Where and why a prompt is not what was read before."""
        evidence = self.renderer.evidence(prompt)
        assert evidence is not None
        return difference(prompt, evidence)

    def turn(self, text: str, answer: str, thought: str = "", **changes: Any) -> Prompt:
        """A user's message and an answer; reasoning is written, and never sent back."""
        self.messages.append(user(text))
        prompt = self.ask(**changes)
        self.answer(prompt, self.codec.encode(thought + answer), said(answer))
        return prompt

    @property
    def reprocessed(self) -> float:
        """Tokens read for each new one; 1.0 is perfect."""
        return self.prefilled / self.new


# --- how clients bring a message back ---


def drops_reasoning(m: Message) -> Message:
    return replace(m, parts=tuple(p for p in m.parts if not isinstance(p, Reasoning)))


def trims_text(m: Message) -> Message:
    parts = (Text(p.text.strip()) if isinstance(p, Text) else p for p in m.parts)
    return drops_reasoning(replace(m, parts=tuple(parts)))


def _calls(m: Message, change: Callable[[ToolCall], ToolCall]) -> Message:
    return replace(m, parts=tuple(change(p) if isinstance(p, ToolCall) else p for p in m.parts))


def respells_arguments(m: Message) -> Message:
    def compact(c: ToolCall) -> ToolCall:
        return replace(c, arguments=json.dumps(json.loads(c.arguments), separators=(",", ":")))

    return _calls(m, compact)


def reorders_keys(m: Message) -> Message:
    def turned(c: ToolCall) -> ToolCall:
        return replace(
            c, arguments=json.dumps(dict(reversed(json.loads(c.arguments).items())), indent=1)
        )

    return _calls(drops_reasoning(m), turned)


def rewrites_values(m: Message) -> Message:
    return _calls(drops_reasoning(m), lambda c: replace(c, arguments='{"at": "elsewhere"}'))


def strips_ids(m: Message) -> Message:
    m = _calls(drops_reasoning(m), lambda c: replace(c, id=call_key(c.id)))
    return replace(m, tool_call_id=call_key(m.tool_call_id)) if m.tool_call_id else m


CLIENTS = [
    lambda m: m,
    drops_reasoning,
    trims_text,
    respells_arguments,
    reorders_keys,
    rewrites_values,
    strips_ids,
]
CLIENT_NAMES = ["sends_all", *(c.__name__ for c in CLIENTS[1:])]
