"""The request types of the official SDKs, walked beside the models that read their bodies.

Each `Place` is one field of the SDKs' at one place in a body, with the class that our models give
it, and bodies that hold it.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import typing_extensions as te
from anthropic.types import message_count_tokens_params as count
from anthropic.types import message_create_params as create
from anthropic.types.beta import message_count_tokens_params as beta_count
from anthropic.types.beta import message_create_params as beta_create
from openai.types import completion_create_params as completions
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses
from pydantic import BaseModel

from everwarm.wire.fields import Hint
from everwarm.wire.formats import BODIES
from everwarm.wire.hosted_tools import HostedTool, is_run_by_clients
from everwarm.wire.reference import Class, class_of, names_of, objects_in, tags_of

ROOTS: dict[str, tuple[Any, ...]] = {
    "/v1/chat/completions": (
        chat.CompletionCreateParamsNonStreaming,
        chat.CompletionCreateParamsStreaming,
    ),
    "/v1/completions": (
        completions.CompletionCreateParamsNonStreaming,
        completions.CompletionCreateParamsStreaming,
    ),
    "/v1/responses": (
        responses.ResponseCreateParamsNonStreaming,
        responses.ResponseCreateParamsStreaming,
    ),
    "/v1/messages": (
        create.MessageCreateParamsNonStreaming,
        create.MessageCreateParamsStreaming,
        beta_create.MessageCreateParamsNonStreaming,
    ),
    "/v1/messages/count_tokens": (
        count.MessageCountTokensParams,
        beta_count.MessageCountTokensParams,
    ),
}
VALUES: dict[str, list[Any]] = {
    "prompt": ["hi", [1, 2]],
    "max_tokens": [7, 9],
    "budget_tokens": [1024, 2048],
    "logit_bias": [{"5": 1}],
    "metadata": [{"a": "b"}],
    "n": [1],
    "best_of": [1],
    "stream": [True, False],
    "top_p": [0.5, 0.9],
    "function_call": [{"name": "x"}],
    "modalities": [["text"]],
    "stop": ["END", ["a", "b"]],
    "include": [["message.output_text.logprobs"], ["reasoning.encrypted_content"]],
    "source": [
        {"type": "text", "media_type": "text/plain", "data": data} for data in ("A page.", "B")
    ],
    "schema": [{"type": "object"}, {"type": "array"}],
    "edits": [[{"type": "clear_thinking_20251015", "keep": "all"}]],
    "arguments": ['{"a": 1}', "{}"],
    "top_logprobs": [3],
    "clear_at": ["never", "next_user_message"],
}
"""Values of fields, where the type alone does not give one that is valid."""


_OF_REPLIES = frozenset({"tool_use", "thinking", "redacted_thinking"})
"""Blocks that only make sense in a reply, though the SDK's type of a user's message has them."""


@dataclass(frozen=True)
class Place:
    """One field. `path` has positions, `kind_path` has none, as a header has it."""

    route: str
    path: str
    kind_path: str
    kind: Class | None
    is_object: bool
    bodies: list[dict[str, Any]] = field(compare=False)
    without: dict[str, Any] | None = field(compare=False)


def places() -> Iterator[Place]:
    """Every field of the SDKs' request types; `kind` None: our models do not know it."""
    for route, roots in ROOTS.items():
        seen: set[Any] = set()
        for root in roots:
            yield from _walk(_Spot(route, root, root, BODIES[route], (), "", ""), seen)


@dataclass(frozen=True)
class _Spot:
    """An object of the SDK's beside ours. `steps`: how it is reached from the body."""

    route: str
    root: Any
    sdk: Any
    own: type[BaseModel]
    steps: tuple[tuple[str, Any, bool], ...]
    path: str
    kind_path: str


def _walk(at: _Spot, seen: set[Any]) -> Iterator[Place]:
    if (at.sdk, at.own, at.kind_path) in seen:
        return
    seen.add((at.sdk, at.own, at.kind_path))
    own = names_of(at.own)
    for name, hint in typing.get_type_hints(at.sdk).items():
        kind = class_of(own[name])[0] if name in own else None
        if getattr(at.own, "AS_A_WHOLE", None):
            kind = at.own.AS_A_WHOLE[0]
        yield _place(at, name, hint, kind)
        if kind != "honoured":
            continue
        for variant, is_many in _variants(hint):
            step = (name, variant, is_many)
            where, kind_where = (f"{at.path}{name}{'.0' if is_many else ''}.",
                                 f"{at.kind_path}{name}{'[]' if is_many else ''}.")  # fmt: skip
            models = [m for _, m in objects_in(own[name].annotation)]
            found = _match(variant, models)
            if found is None and models and not any(_has_open_tag(m) for m in models):
                yield _other_kind(at, step, where, own[name].annotation)
            elif found is not None:
                inner = _Spot(
                    at.route, at.root, variant, found, (*at.steps, step), where, kind_where
                )
                if found is not HostedTool:
                    yield from _walk(inner, seen)


def _place(at: _Spot, name: str, hint: Any, kind: Class | None) -> Place:
    values = VALUES.get(name) or list(_samples(hint))
    is_required = name in _required(at.sdk)
    bodies = [_body(at, {name: v}) for v in values]
    without = None if is_required else _body(at, {})
    own = names_of(at.own).get(name)
    is_object = own is not None and any(objects_in(own.annotation))
    return Place(at.route, at.path + name, at.kind_path + name, kind, is_object, bodies, without)


def _other_kind(at: _Spot, step: Any, where: str, annotation: Any) -> Place:
    """An object of a kind that our models do not have: as a whole it is refused, or a tool of the
    provider's."""
    name, variant, _ = step
    hosted = HostedTool in [m for _, m in objects_in(annotation)]
    tag = next((t for t in ("type", "role") if t in typing.get_type_hints(variant)), "type")
    (kind_of, *_) = get_args(typing.get_type_hints(variant).get(tag)) or ("?",)
    inner = _Spot(at.route, at.root, variant, at.own, (*at.steps, step), where, where)
    body = _body(inner, {})
    shown = f"{at.kind_path}{name}[type={kind_of}]"
    noted = hosted and not is_run_by_clients(kind_of)
    kind: Class = "noted" if noted else "refused"
    return Place(at.route, where + tag, shown, kind, False, [body], None)


def _variants(hint: Any) -> Iterator[tuple[Any, bool]]:
    """The objects in a type, and whether they stand in a list."""
    if te.is_typeddict(hint):
        yield hint, False
        return
    origin = get_origin(hint)
    if origin in (Literal, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return
    is_list = isinstance(origin, type) and issubclass(origin, Iterable)
    for inner in get_args(hint):
        yield from ((v, many or is_list) for v, many in _variants(inner))


def _has_open_tag(model: type[BaseModel]) -> bool:
    """Whether the field that tells this object from others is a hint: unknown kinds are noted."""
    tag, _ = tags_of(model)
    return bool(tag) and any(isinstance(m, Hint) for m in model.model_fields[tag].metadata)


def _match(variant: Any, models: list[type[BaseModel]]) -> type[BaseModel] | None:
    hints = typing.get_type_hints(variant)
    for model in models:
        tag, values = tags_of(model)
        if not tag and model is not HostedTool:
            return model
        known = _literals(hints.get(tag))
        if known & set(values) or (not known and tag not in hints and len(models) == 1):
            return model
    untyped = "type" not in hints and "role" not in hints
    return models[0] if untyped and models else None


def _literals(hint: Any) -> set[Any]:
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    return {v for inner in get_args(hint) for v in _literals(inner)}


def _body(at: _Spot, changes: dict[str, Any]) -> dict[str, Any]:
    """A body with this object in it, and otherwise as little as there may be."""
    value: Any = {**_minimal(at.sdk), **changes}
    for (name, _, is_many), outer in zip(
        reversed(at.steps), reversed([at.root, *(v for _, v, _ in at.steps)][:-1]), strict=True
    ):
        value = {**_minimal(outer), name: [value] if is_many else value}
    body: dict[str, Any] = copy.deepcopy(value)
    messages = body.get("messages")
    for m in messages or ():
        blocks = m["content"] if isinstance(m["content"], list) else []
        if any(b.get("type") in _OF_REPLIES for b in blocks if isinstance(b, dict)):
            m["role"] = "assistant"
    if "/messages" in at.route and messages and messages[-1].get("role") != "user":
        messages.append({"role": "user", "content": "hi"})
    if "stream_options" in body:
        body["stream"] = True
    if body.get("top_logprobs") is not None and "chat" in at.route:
        body["logprobs"] = True
    return body


def _minimal(sdk: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(sdk)
    known = {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "m",
        "input_schema": {"type": "object"},
        "parameters": {"type": "object"},
        "stream": True,
    }
    return {
        name: known.get(name) or (VALUES.get(name) or list(_samples(hints[name])))[0]
        for name in _required(sdk)
    }


def _required(sdk: Any) -> list[str]:
    """The SDKs' annotations are texts: what they require is known when they are read. Some things
    they do not require, though there is no request without."""
    hints = typing.get_type_hints(sdk, include_extras=True)
    said = {n for n, h in hints.items() if get_origin(h) is te.Required}
    said |= {n for n in sdk.__required_keys__ if get_origin(hints[n]) is not te.NotRequired}
    always = {"input", "call_id", *(["content"] if "role" in hints else [])}
    return [n for n in hints if n in said | always]


def _samples(hint: Any) -> Iterator[Any]:
    """Valid values of a type: for small ones all, else two."""
    origin, args = get_origin(hint), get_args(hint)
    if te.is_typeddict(hint):
        yield _minimal(hint)
    elif origin is Literal:
        yield from args
    elif hint is bool:
        yield from (True, False)
    elif hint in (int, float):
        yield from (1, 2)
    elif hint is str:
        yield from ("x", "y")
    elif hint is object or hint is Any:
        yield from ({"a": 1}, {"b": 1})
    elif origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        yield from ({name: next(_samples(args[1]), 1)} for name in "ab")
    elif isinstance(origin, type) and issubclass(origin, Iterable):
        yield from ([s] for s in _samples(args[0]))
    else:
        for inner in args:
            if inner is not type(None):
                yield from _samples(inner)
