"""Small conversations as a template writes them: what a dialect is derived from.

Names, keys, values and texts in them are words that no template writes of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from everwarm.codec import Writing
from everwarm.errors import EngineError, RequestError

USER, TEXT, THOUGHT, RESULT = "userzq", "textzq", "thoughtzq", "resultzq"
NAMES = ("lookupzq", "jumperzq")
KEYS = ("keyonezq", "keytwozq")
VALUES = ("valonezq", "valtwozq")
TYPED: Mapping[str, Any] = {
    "number": 4711,
    "boolean": True,
    "null": None,
    "array": ["elemzq", 7],
    "object": {"innerzq": "deepzq"},
}
_SECONDS = 3.0
"""Of this thread's CPU time, so that a model gets its dialect on a busy machine, too."""
_NOW = datetime(2001, 2, 3)
_ID_SPELLINGS = ("", "functions.{name}:{n}")
"""Call ids as templates want them: nine letters and digits, or the call's name and number."""

Calls = Sequence[tuple[str, Mapping[str, Any]]]
TemplateMessages = list[dict[str, Any]]


class TooSlow(Exception):
    """The template takes more time than deriving its dialect may."""


def parameters(names: Mapping[str, str]) -> dict[str, Any]:
    """A tool's parameters of these types."""
    more: dict[str, dict[str, Any]] = {"array": {"items": {}}, "object": {"properties": {}}}
    own = {
        key: {"type": kind, "description": f"The {key}."} | more.get(kind, {})
        for key, kind in names.items()
    }
    return {"type": "object", "properties": own, "required": list(own)[:1]}


def tool(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as templates know it."""
    described = {"name": name, "description": f"Does {name}.", "parameters": dict(schema)}
    return {"type": "function", "function": described}


class Renderings:
    """Renders with one codec. Live: for as long as its dialect is derived."""

    def __init__(self, codec: Writing) -> None:
        self._codec = codec
        self._until = time.thread_time() + _SECONDS
        schema = parameters(dict.fromkeys(KEYS, "string"))
        self._tools: TemplateMessages = [tool(n, schema) for n in NAMES]
        self.spelling = _ID_SPELLINGS[0]
        self._spells_arguments = False
        self._content: str | None = ""

    def whole(
        self, messages: TemplateMessages, *, scaffold: bool = False, tools: bool = True
    ) -> str | None:
        """All that the template writes; None where it refuses."""
        if time.thread_time() > self._until:
            raise TooSlow
        try:
            return self._codec.render(
                messages,
                self._tools if tools else None,
                scaffold=scaffold,
                args={"enable_thinking": True},
                now=_NOW,
            )
        except (RequestError, RecursionError, LookupError, ArithmeticError):
            return None
        except EngineError as e:
            raise TooSlow from e

    def behind_user(self, *messages: dict[str, Any], scaffold: bool = False) -> str | None:
        """What the template writes behind a user's text."""
        text = self.whole([{"role": "user", "content": USER}, *messages], scaffold=scaffold)
        at = text.rfind(USER) if text else -1
        return text[at + len(USER) :] if text and at >= 0 else None

    def answer(self, thought: str = "") -> dict[str, Any]:
        """An answer in text."""
        return {"role": "assistant", "content": TEXT, **_thinks(thought)}

    def reply(self, calls: Calls, thought: str = "") -> dict[str, Any]:
        """A reply that calls tools."""
        made = []
        for n, (name, arguments) in enumerate(calls):
            given = json.dumps(dict(arguments)) if self._spells_arguments else dict(arguments)
            function = {"name": name, "arguments": given}
            made.append({"id": self.call_id(n, name), "type": "function", "function": function})
        return {
            "role": "assistant",
            "content": self._content,
            **_thinks(thought),
            "tool_calls": made,
        }

    def call_id(self, n: int, name: str) -> str:
        """The id of a reply's nth call."""
        return self.spelling.format(name=name, n=n) if self.spelling else f"c{n}1zqzqzq"

    def results(self, calls: Calls) -> TemplateMessages:
        """What tools answer."""
        return [
            {"role": "tool", "content": RESULT, "tool_call_id": self.call_id(n, name), "name": name}
            for n, (name, _) in enumerate(calls)
        ]

    def called(self, calls: Calls, thought: str = "") -> str | None:
        """A reply with these calls, behind a user's text."""
        return self.behind_user(self.reply(calls, thought))

    def find_shape(self) -> bool:
        """Find how calls are given to this template. Whether it writes any."""
        calls = [(NAMES[0], {KEYS[0]: VALUES[0]})]
        for self._spells_arguments in (False, True):
            for self._content in ("", None):
                for self.spelling in _ID_SPELLINGS:
                    text = self.called(calls)
                    if text and all(w in text for w in (NAMES[0], KEYS[0], VALUES[0])):
                        return True
        return False


def _thinks(thought: str) -> dict[str, Any]:
    return {"reasoning_content": thought, "thinking": thought} if thought else {}
