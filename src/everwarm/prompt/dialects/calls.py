"""Reads one section of tool calls while it is written.

    <open> blanks CALL (, blanks CALL)* blanks <close>
           ^ the reader's text begins here; `read` says where the section ends in it

A call is told as soon as it can only be one, and its arguments as they come. Until the first is
told, the section may still turn out to be none: then nothing of it was said, and it is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everwarm.prompt.call_ids import carried
from everwarm.prompt.dialects.json_text import JsonObject, begins, blank_end
from everwarm.prompt.dialects.literals import LiteralReader
from everwarm.prompt.dialects.syntax import CallSyntax
from everwarm.prompt.dialects.tags import TagReader
from everwarm.prompt.draft import Draft

Parse = Callable[[str], list[dict[str, Any]]]
_LONGEST_HEAD = 512
_STRING = r'"((?:[^"\\]|\\.)*)"'
_KEYS = {"name", "tool_name", "arguments", "parameters", "type", "function", "tool_call_id", "id"}
_EARLY = re.compile(
    r'\{\s*(?:"(?:id|tool_call_id|type)"\s*:\s*"[^"\\]*"\s*,\s*)*'
    rf'"(?:tool_)?name"\s*:\s*{_STRING}\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{{)'
)
_FIRST_KEY = re.compile(r'\{\s*"([^"\\]*)("?)')
_FIRST_NAME = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]*)("?)')


class CallReader:
    """Reads one section. Live: owned by one parser.

    `syntaxes` share the opening marker. `tools`: the parameters of each, by name. `parse` reads a
    whole section in a notation of its own.
    """

    def __init__(
        self,
        syntaxes: Sequence[CallSyntax],
        draft: Draft,
        tools: Mapping[str, Mapping[str, Any]],
        parse: Parse | None = None,
    ) -> None:
        self._syntaxes, self._draft, self._tools, self._parse = syntaxes, draft, tools, parse
        self._close = next((s.close for s in syntaxes if s.close), "")
        self._heads = [(s, _head(s), _start(s)) for s in syntaxes if not s.keys and not s.own]
        self._bare = all(s.bare for s in syntaxes)
        self._takes_objects = any(s.keys for s in syntaxes)
        self._step = self._begin if not any(s.own for s in syntaxes) else self._whole
        self._at, self._told, self._done = 0, 0, 0
        self._end: int | None = None
        self._in_list = False
        self._json: JsonObject | None = None
        self._listed = any(s.head.startswith("[") and not s.keys for s in syntaxes)
        self._written: TagReader | LiteralReader | None = None
        self._suffix, self._ends = "", [self._close]
        self._text, self._final = "", False
        self.n_calls = 0

    def read(self, text: str, *, final: bool) -> int | None:
        """Where the section ends in `text`, all of which came since the opening marker.

        None: more must come. With `n_calls` 0 it is no section of calls.
        """
        self._text, self._final = text, final
        while self._end is None and self._step():
            pass
        return self._end

    # --- steps: each says whether there is another to take ---

    def _begin(self) -> bool:
        """In front of a call."""
        at = blank_end(self._text, self._at)
        if at == len(self._text):
            return self._wait(at)
        lists = self._takes_objects or self._listed
        if lists and self._text[at] == "[" and not self.n_calls:
            self._in_list, self._at = True, at + 1
        elif self._takes_objects and self._text[at] == "{":
            self._at, self._step = at, self._object
            self._json = JsonObject(at)
        else:
            return self._named(at)
        return True

    def _named(self, at: int) -> bool:
        """In front of a call that begins with its name."""
        for syntax, head, _ in self._heads:
            found = head.match(self._text, at)
            if found and found.end() - at <= _LONGEST_HEAD and self._known(found["name"]):
                slots = found.groupdict()
                self._start(found["name"], carried(slots.get("n"), slots.get("id")))
                self._ends = [*_cores(_suffix(syntax)), self._close]
                self._suffix = _suffix(syntax).strip()
                self._written = self._reader_of(syntax, found["name"], found.end())
                self._step = self._own_arguments if self._written else self._arguments
                self._json = JsonObject(found.end())
                self._told = found.end()
                return True
        close = self._text.find(self._close, at) if self._close else -1
        if close >= 0 or len(self._text) - at > _LONGEST_HEAD or not self._heads:
            return self._stop(self._done)
        return self._wait(self._done)

    def _reader_of(
        self, syntax: CallSyntax, name: str, at: int
    ) -> TagReader | LiteralReader | None:
        """Who reads arguments that are not JSON."""
        schema, ends = self._tools.get(name, {}), [e for e in self._ends if e]
        if syntax.literals:
            return LiteralReader(syntax.literals, schema, ends, at)
        return TagReader(syntax.tags, schema, ends, at) if syntax.tags else None

    def _object(self) -> bool:
        """In a call that is a JSON object."""
        assert self._json is not None
        begin = self._at
        early = _EARLY.match(self._text, begin)
        name = json.loads(f'"{early[1]}"', strict=False) if early else ""
        if early and self._known(name):
            self._start(name)
            self._json = JsonObject(early.end())
            self._ends, self._suffix = [self._close], ""
            self._told, self._step = early.end(), self._arguments_of_object
            return True
        if self._bare and not self._may_be_call(begin):
            return self._stop(self._done)
        self._json.advance(self._text, [self._close])
        if self._json.closed:
            return self._tell(self._text[begin : self._json.at])
        at_close = bool(self._close) and self._text.startswith(self._close, self._json.at)
        return self._stop(self._done) if at_close else self._wait(self._done)

    def _arguments(self) -> bool:
        """In JSON arguments behind a name."""
        return self._follow(self._after_suffix)

    def _arguments_of_object(self) -> bool:
        """In JSON arguments inside a JSON object."""
        return self._follow(self._rest_of_object)

    def _follow(self, then: Callable[[], bool]) -> bool:
        assert self._json is not None
        self._json.advance(self._text, self._ends)
        self._at = self._json.at
        self._draft.argue(self._text[self._told : self._at])
        self._told = self._at
        if self._json.closed:
            self._draft.end_call()
            self._step = then
            self._json = JsonObject(self._at, depth=1)
            return True
        if any(e and self._text.startswith(e, self._at) for e in self._ends):
            self._draft.end_call()
            self._step = self._after_suffix
            return True
        return self._wait(self._at)

    def _rest_of_object(self) -> bool:
        """Behind the arguments in a JSON object: other keys are of no use."""
        assert self._json is not None
        self._json.advance(self._text, [self._close])
        self._at = self._json.at
        if self._json.closed or (self._close and self._text.startswith(self._close, self._at)):
            self._step = self._after
            return True
        return self._wait(self._at)

    def _own_arguments(self) -> bool:
        """In arguments that are not written as JSON."""
        assert self._written is not None
        self._draft.argue(self._written.read(self._text, final=self._final))
        self._at = self._written.at
        if self._written.state == "more":
            return self._wait(self._at)
        self._draft.end_call()
        if self._written.state == "broken":
            return self._stop(self._at)
        self._step = self._after_suffix
        return True

    def _after_suffix(self) -> bool:
        """Behind the arguments: what closes the call may stand there, in parts."""
        for core in _cores(self._suffix):
            at = blank_end(self._text, self._at)
            if self._text.startswith(core, at):
                self._at = at + len(core)
            elif not self._final and begins(self._text, at, [core]):
                return False
        self._suffix, self._step = "", self._after
        return True

    def _after(self) -> bool:
        """Behind a call: another one, or the section's end."""
        self._done = max(self._done, self._at)
        blanks = " \t\r\n,;" if self._takes_objects or self._in_list else " \t\r\n"
        at = blank_end(self._text, self._done, blanks)
        if self._close and self._text.startswith(self._close, at):
            return self._stop(at + len(self._close))
        if self._in_list and self._text.startswith("]", at):
            self._in_list, self._at = False, at + 1
            return True
        if not self._close and not self._in_list and not self._bare:
            return self._stop(self._done)
        if self._in_list and self._listed and at < len(self._text):
            self._at, self._step = at, self._begin
            return True
        starts = [s for _, _, s in self._heads if s] + ["{"] * self._takes_objects
        if any(self._text.startswith(s, at) for s in starts):
            self._at, self._step = at, self._begin
            return True
        if not self._final and (
            at == len(self._text) or begins(self._text, at, [self._close, *starts])
        ):
            return False
        return self._stop(self._done)

    def _whole(self) -> bool:
        """In a section that is read when it is complete."""
        at = self._text.find(self._close) if self._close else -1
        if at < 0 and not self._final:
            return False
        body = self._text if at < 0 else self._text[:at]
        calls = self._parse(body) if self._parse else []
        for call in calls:
            self._tell_call(call)
        return self._stop(len(body) + (len(self._close) if at >= 0 else 0) if calls else 0)

    # --- what they share ---

    def _wait(self, at: int) -> bool:
        """More must come; where none does, the section ends here."""
        if self._final:
            self._draft.end_call()
            return self._stop(at)
        return False

    def _stop(self, at: int) -> bool:
        self._end = at if self.n_calls else 0
        return False

    def _known(self, name: str) -> bool:
        return not self._bare or name in self._tools

    def _start(self, name: str, carried: str = "") -> None:
        self.n_calls += 1
        self._draft.start_call(name, carried)

    def _tell(self, text: str) -> bool:
        """A whole object is there: a call, or the end of the section."""
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            return self._stop(self._done)
        call = _call(value)
        if call is None or not self._known(call["name"]):
            return self._stop(self._done)
        self._tell_call(call)
        self._at += len(text)
        self._step = self._after
        return True

    def _tell_call(self, call: Mapping[str, Any]) -> None:
        arguments = call.get("arguments", {})
        self._start(str(call["name"]))
        self._draft.argue(arguments if isinstance(arguments, str) else json.dumps(arguments))
        self._draft.end_call()

    def _may_be_call(self, begin: int) -> bool:
        """Whether an object with nothing to mark it may still be a call of a known tool."""
        key = _FIRST_KEY.match(self._text, begin)
        if not key:
            return blank_end(self._text, begin + 1) == len(self._text)
        if not (key[1] in _KEYS if key[2] else any(k.startswith(key[1]) for k in _KEYS)):
            return False
        name = _FIRST_NAME.match(self._text, begin)
        if not name:
            return True
        if name[2]:
            return name[1] in self._tools
        return any(t.startswith(name[1]) for t in self._tools)


def _call(value: Any) -> dict[str, Any] | None:
    """The name and arguments of a call that was read as a whole."""
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = value.get("name") or value.get("tool_name") or inner
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str) or not name or not isinstance(arguments, dict | str):
        return None
    return {"name": name, "arguments": arguments}


def _suffix(syntax: CallSyntax) -> str:
    """What stands behind the arguments of a call."""
    return syntax.call.partition("«arguments»")[2]


def _cores(text: str) -> list[str]:
    """The words of a literal, between blanks."""
    return text.split()


def _head(syntax: CallSyntax) -> re.Pattern[str]:
    """What a call looks like up to its arguments. Blanks may stand wherever two parts meet."""
    slots = {
        "name": r"(?P<name>[^\s<>\[\]{}()\"'|｜]+?)",
        "n": r"(?P<n>\d+)",
        "id": r"(?P<id>[A-Za-z0-9]+)",
    }
    out = []
    for kind, text in syntax.parts:
        if kind == "arguments":
            break
        words = [re.escape(w) for w in text.split()]
        out += [w.replace('"', '"?') for w in words] if kind == "text" else [slots[kind]]
    behind = r"\s*" if syntax.tags else r"\s*(?=\{)"
    if syntax.literals:
        lits = syntax.literals
        opens, closes, equals = (re.escape(x) for x in (lits.open, lits.close, lits.equals))
        behind = rf"\s*(?={opens}\s*(?:{closes}|[^\s,()\[\]{{}}]+?\s*{equals}))"
    pattern = r"\s*".join(out).replace(r"functions\.", r"(?:functions\.)?")
    if syntax.tags and out and out[-1] == slots["name"]:
        behind = rf"\s*(?={re.escape(syntax.tags.open)}|{re.escape(syntax.close)})"
    return re.compile(pattern + behind)


def _start(syntax: CallSyntax) -> str:
    """The first word of a call; empty where that is its name."""
    kind, text = syntax.parts[0]
    return text.split()[0] if kind == "text" else ""
