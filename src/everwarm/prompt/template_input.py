"""Messages as one chat template wants them.

Templates differ in what they accept. What one refuses, or would move to another place, is given in
another form: a system message in the middle as a user's, two user messages in a row as one. Each
rule looks only at earlier messages, so that a history keeps its form when it grows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from everwarm.messages import Message, Role, Text, ToolCall, arguments_value, call_key
from everwarm.prompt.call_ids import own_id
from everwarm.request import Tool

Dicts = list[dict[str, Any]]
_SCHEMAS: Final = frozenset(("items", "additionalProperties", "anyOf", "oneOf", "allOf"))
"""Keys of a JSON schema that hold schemas, besides `properties`."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a chat template accepts, and keeps in its place. See `probe.probed`.

    - `text_parts`: it reads messages as lists of parts; a bare text it would drop or refuse.
    - `no_tools`: it takes a request without tools; if not, it is given an empty list of them.
    - `tools`: it takes tools at all. `bare_schemas`: their parameters may lack a description.
    - `spelled_arguments`: a call's arguments have to be JSON text; it cannot write an object.
    - `tool_messages`: it writes results of tools; if not, calls and results become texts.
    - `own_id`: the dialect's pattern of ids that the model writes itself, see `call_ids`.
    - `names`: the roles whose speakers' names it writes.
    """

    text_parts: bool = False
    no_tools: bool = True
    tools: bool = True
    bare_schemas: bool = True
    spelled_arguments: bool = False
    tool_messages: bool = True
    system_first: bool = True
    system_anywhere: bool = True
    users_in_a_row: bool = True
    user_after_tool: bool = True
    replies_in_a_row: bool = True
    parallel_calls: bool = True
    text_arguments: bool = True
    text_beside_thinking: bool = True
    call_id_length: int | None = None
    own_id: str = ""
    names: frozenset[Role] = frozenset()


_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def shows_name(message: Message, habits: Habits) -> bool:
    """Whether the template writes who says this.

    A name that is the word for a role is never written: it would stand where the role stands.
    """
    name = (message.name or "").strip().lower()
    return bool(name) and message.role in habits.names and name not in _ROLES


def tool_dicts(tools: Sequence[Tool]) -> Dicts:
    """Tools as chat templates and call parsers know them."""
    return [
        {
            "type": "function",
            "function": {
                "name": t.name,
                "description": t.description,
                "parameters": dict(t.parameters or {"type": "object", "properties": {}}),
            },
        }
        for t in tools
    ]


def shaped_tools(tools: Dicts | None, habits: Habits) -> Dicts | None:
    """Tools as the template's input."""
    if not tools or not habits.tools:
        return None if habits.no_tools else []
    return tools if habits.bare_schemas else [_described(t) for t in tools]


def _described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The tool with an empty description and an empty `required` where a schema has none."""
    function = tool["function"]
    parameters = _filled(function["parameters"])
    return {**tool, "function": {**function, "parameters": parameters}}


def _filled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_filled(s) for s in schema]
    if not isinstance(schema, Mapping):
        return schema
    out = {k: _filled(v) if k in _SCHEMAS else v for k, v in schema.items()}
    if isinstance(schema.get("properties"), Mapping):
        members = ((k, _filled(v)) for k, v in schema["properties"].items())
        described = {k: {"description": "", **v} if isinstance(v, dict) else v for k, v in members}
        out = {"required": [], **out, "properties": described}
    return out


def in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of the template's input with its text as a list of one part."""
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def shaped(messages: Sequence[Message], habits: Habits) -> Dicts:
    """Messages as the template's input."""
    if not habits.tool_messages:
        messages = [_as_text(m) for m in messages]
    out: Dicts = []
    names: dict[str, str] = {}
    waiting: Dicts = []  # calls that a template without parallel calls gets one by one
    for m in messages:
        if m.role == "assistant":
            out += waiting
            names.update((call_key(c.id), c.name) for c in m.tool_calls)
            first, *waiting = _assistant(m, habits)
            _reply(out, first, habits)
        elif m.role == "tool":
            out.append(_result(m, names, habits))
            if waiting:
                out.append(waiting.pop(0))
        else:
            out += waiting
            waiting = []
            _say(out, m, habits)
    return out + waiting


def _as_text(m: Message) -> Message:
    """A call or a result in words, for a template that would refuse or drop it."""
    if m.role == "tool":
        return Message("user", (Text(m.text),))
    if not m.tool_calls:
        return m
    calls = (f'{{"name": {json.dumps(c.name)}, "arguments": {c.arguments}}}' for c in m.tool_calls)
    kept = (p for p in m.parts if not isinstance(p, Text | ToolCall))
    text = "\n".join([*([m.text] if m.text else []), *calls])
    return replace(m, parts=(*kept, Text(text)))


def _say(out: Dicts, m: Message, habits: Habits) -> None:
    """Add a system or user message."""
    role, last = m.role, out[-1] if out else None
    leads = all(d["role"] == "system" for d in out)
    if role == "system" and not (habits.system_first if leads else habits.system_anywhere):
        role = "user"
    joins = last is not None and last["role"] == role
    if joins and (
        (role == "system" and not habits.system_anywhere)
        or (role == "user" and not habits.users_in_a_row)
    ):
        assert last is not None
        last["content"] = f"{last['content']}\n\n{m.text}"
        return
    if role == "user" and last and last["role"] == "tool" and not habits.user_after_tool:
        out.append({"role": "assistant", "content": ""})
    out.append({"role": role, "content": m.text, **_speaker(m)})


def _speaker(m: Message) -> dict[str, str]:
    return {"name": m.name} if m.name else {}


def _reply(out: Dicts, entry: dict[str, Any], habits: Habits) -> None:
    """Add an assistant message; where roles have to alternate, join it with the one before."""
    last = out[-1] if out else None
    if last is None or last["role"] != "assistant" or habits.replies_in_a_row:
        out.append(entry)
        return
    texts = [t for t in (last["content"], entry["content"]) if t.strip()]
    calls = [*last.get("tool_calls", ()), *entry.get("tool_calls", ())]
    out[-1] = last | entry | {"content": "\n\n".join(texts)}
    if calls:
        out[-1]["tool_calls"] = calls


def _assistant(m: Message, habits: Habits) -> Dicts:
    entry: dict[str, Any] = {"role": "assistant", "content": m.text, **_speaker(m)}
    calls = [_call(c, habits) for c in m.tool_calls]
    if m.reasoning:
        entry["reasoning_content"] = m.reasoning
        if habits.text_beside_thinking or not (calls and m.text.strip()):
            entry["thinking"] = m.reasoning
    if not calls:
        return [entry]
    if habits.parallel_calls:
        return [entry | {"tool_calls": calls}]
    rest: Dicts = [{"role": "assistant", "content": "", "tool_calls": [c]} for c in calls[1:]]
    return [entry | {"tool_calls": calls[:1]}, *rest]


def _call(c: ToolCall, habits: Habits) -> dict[str, Any]:
    value = arguments_value(c.arguments)
    if not isinstance(value, Mapping) and not habits.text_arguments:
        value = {"arguments": value}
    if habits.spelled_arguments and not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    function = {"name": c.name, "arguments": value}
    return {"id": _id(c.id, c.name, habits), "type": "function", "function": function}


def _result(m: Message, names: Mapping[str, str], habits: Habits) -> dict[str, Any]:
    known = m.tool_call_id or ""
    name = names.get(call_key(known), "")
    return {
        "role": "tool",
        "content": m.text,
        "tool_call_id": _id(known, name, habits),
        "name": name,
    }


def _id(call_id: str, name: str, habits: Habits) -> str:
    """The id as the template accepts it: the model's own, or one of nine letters and digits."""
    n, call_id = habits.call_id_length, own_id(call_id, name, habits.own_id)
    if n is None or (len(call_id) == n and call_id.isalnum()):
        return call_id
    return hashlib.blake2b(call_key(call_id).encode(), digest_size=16).hexdigest()[:n]
