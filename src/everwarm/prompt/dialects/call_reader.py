"""Reads one section of tool calls while it is written.

    <open> blanks CALL (, blanks CALL)* blanks <close>
           ^ the reader's text begins here; `read` says where the section ends in it

A call is told when it is complete and its arguments are a JSON object, never before: nobody runs a
tool with half of its arguments. What is no complete call is text, from the end of the last call on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everwarm.prompt.call_ids import carried
from everwarm.prompt.dialects.dialect import CallSyntax
from everwarm.prompt.dialects.json_reader import (
    KEYS,
    JsonArgumentReader,
    JsonReader,
    called,
    valid_arguments,
)
from everwarm.prompt.dialects.literal_reader import LiteralReader
from everwarm.prompt.dialects.scan import begins, blank_end, words_of
from everwarm.prompt.dialects.tag_reader import NestedReader, TagReader
from everwarm.prompt.partial_reply import PartialReply

Parse = Callable[[str], list[dict[str, Any]]]
_LONGEST_HEAD = 512
_FIRST_KEY = re.compile(r'\{\s*"([^"\\]*)("?)')
_FIRST_NAME = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]*)("?)')


class CallReader:
    """Reads one section. Live: owned by one parser.

    `syntaxes` share the opening marker. `tools`: the parameters of each tool, by name. `parse`
    reads a whole section in a notation of its own. `n_read`: how much of the text was examined.
    """

    def __init__(
        self,
        syntaxes: Sequence[CallSyntax],
        draft: PartialReply,
        tools: Mapping[str, Mapping[str, Any]],
        parse: Parse | None = None,
    ) -> None:
        self._draft, self._tools, self._parse = draft, tools, parse
        self._close = words_of(next((s.close for s in syntaxes if s.close), ""))
        self._objects = [(s, _lead(s), _first_word(s)) for s in syntaxes if s.object]
        self._named = [(s, _head(s), _first_word(s)) for s in syntaxes if not s.object]
        self._bare = all(s.bare for s in syntaxes)
        self._repeats = any(s.between is not None for s in syntaxes)
        self._listed = bool(self._objects) or any("[" in s.head for s in syntaxes)
        self._step = self._whole if any(s.own for s in syntaxes) else self._begin
        self._at, self._done, self.n_read = 0, 0, 0
        self._end: int | None = None
        self._in_list = False
        self._syntax: CallSyntax | None = None
        self._object = JsonReader(0)
        self._body: JsonArgumentReader | TagReader | NestedReader | LiteralReader | None = None
        self._name, self._carried, self._told = "", "", list[str]()
        self._suffix: Sequence[str] = ()
        self._text, self._final = "", False
        self.n_calls = 0

    def read(self, text: str, *, final: bool) -> int | None:
        """Where the section ends in `text`, which holds all behind the opening marker.

        None: more text is needed. Where `n_calls` stays 0, it was no section of calls.
        """
        self._text, self._final = text, final
        while self._end is None and self._step():
            pass
        self.n_read = len(text)
        return self._end

    # --- steps: each returns whether another can follow ---

    def _begin(self) -> bool:
        """Before a call."""
        text, at = self._text, blank_end(self._text, self._at)
        if at == len(text):
            return self._wait()
        if self._listed and text[at] == "[" and not self.n_calls and not self._in_list:
            self._in_list, self._at = True, at + 1
            return True
        for syntax, lead, _ in self._objects:
            found = lead.match(text, at)
            if found:
                self._at, self._syntax, self._step = found.end(), syntax, self._in_object
                self._object = JsonReader(self._at)
                return True
        for syntax, head, _ in self._named:
            found = head.match(text, at)
            if found and found.end() - at <= _LONGEST_HEAD and self._known(found["name"]):
                return self._begin_named(syntax, found)
        return self._wait() if self._may_begin(at) else self._stop()

    def _may_begin(self, at: int) -> bool:
        """Whether what stands there may become the head of a call with more text."""
        text = self._text
        if len(text) - at > _LONGEST_HEAD:
            return False
        if self._close and text.find(self._close[0], at) >= 0:
            return False
        if self._bare and any(not w for *_, w in self._named):
            names = list(self._tools)
            return begins(text, at, names)
        firsts = [w for *_, w in (*self._objects, *self._named)]
        return any(not w for *_, w in self._named) or begins(text, at, firsts)

    def _begin_named(self, syntax: CallSyntax, found: re.Match[str]) -> bool:
        slots = found.groupdict()
        self._name = found["name"]
        self._carried = carried(slots.get("n"), slots.get("id")) if syntax.own_id else ""
        self._suffix = _suffix(syntax, self._name)
        ends = [*self._suffix[:1], *self._close]
        schema, at = self._tools.get(self._name, {}), found.end()
        if syntax.literals:
            self._body = LiteralReader(syntax.literals, schema, ends, at)
        elif syntax.tags and syntax.tags.nests:
            self._body = NestedReader(syntax.tags, schema, ends, at)
        elif syntax.tags:
            self._body = TagReader(syntax.tags, schema, ends, at)
        else:
            self._body = JsonArgumentReader(ends, at)
        self._told, self._step = [], self._in_arguments
        return True

    def _in_object(self) -> bool:
        """In a call that is a JSON object."""
        assert self._syntax is not None
        begin = self._at
        if self._bare and not self._may_be_call(begin):
            return self._stop()
        self._suffix = _suffix(self._syntax, "")
        ends = [*self._suffix[:1], *self._close]
        self._object.advance(self._text, ends)
        if not self._object.closed:
            broken = any(self._text.startswith(e, self._object.at) for e in ends)
            return self._stop() if broken else self._wait()
        found = called(self._text[begin : self._object.at], self._syntax)
        if found is None or not self._known(found[0]):
            return self._stop()
        self._name, self._carried = found[0], ""
        return self._tell(found[1], self._object.at)

    def _in_arguments(self) -> bool:
        """In the arguments of a call whose name is known."""
        body = self._body
        assert body is not None
        self._told.append(body.read(self._text, final=self._final))
        if body.state == "more":
            return self._wait()
        arguments = valid_arguments("".join(self._told)) if body.state == "ended" else None
        return self._stop() if arguments is None else self._tell(arguments, body.at)

    def _tell(self, arguments: str, at: int) -> bool:
        """A call is complete."""
        self._draft.tell_call(self._name, arguments, self._carried)
        self.n_calls += 1
        self._at = self._done = at
        self._step = self._after_arguments
        return True

    def _after_arguments(self) -> bool:
        """Behind the arguments, where what closes the call may be incomplete."""
        at = self._past(self._suffix)
        if at is None:
            return False
        self._at = self._done = at
        self._step = self._after
        return True

    def _after(self) -> bool:
        """Behind a call: another one, or the section's end."""
        text = self._text
        blanks = " \t\r\n,;" if self._objects or self._in_list else " \t\r\n"
        at = blank_end(text, self._done, blanks)
        marks = self._close[:1] + [w for w in self._close if w[0] in "<["]
        if any(text.startswith(w, at) for w in marks):
            end = self._past(self._close, at)
            return False if end is None else self._stop(end)
        if not self._final and begins(text, at, self._close):
            return False
        if self._in_list and text.startswith("]", at):
            self._in_list, self._done = False, at + 1
            return True
        if not self._close and not self._in_list and not self._bare:
            return self._stop()
        firsts = [w for *_, w in (*self._objects, *self._named)]
        if at < len(text) and (
            any(w and text.startswith(w, at) for w in firsts)
            or ((self._in_list or self._repeats) and "" in firsts)
        ):
            self._at, self._step = at, self._begin
            return True
        waits = at == len(text) or begins(text, at, firsts)
        return False if waits and not self._final else self._stop()

    def _whole(self) -> bool:
        """In a section in a notation of its own, which is read when it is complete."""
        close = next((s for s in self._close), "")
        at = self._text.find(close, max(0, self.n_read - len(close))) if close else -1
        if at < 0 and (close or not self._final):
            return self._wait()
        body = self._text if at < 0 else self._text[:at]
        calls = self._parse(body) if self._parse else []
        spelled = [valid_arguments(_spelled(c.get("arguments", {}))) for c in calls]
        if not calls or None in spelled:
            return self._stop()
        for call, arguments in zip(calls, spelled, strict=True):
            self._draft.tell_call(str(call["name"]), arguments or "{}")
        self.n_calls = len(calls)
        return self._stop(len(body) + (len(close) if at >= 0 else 0))

    # --- what they share ---

    def _past(self, words: Sequence[str], at: int | None = None) -> int | None:
        """Where the words end that stand here, in order; None: more text is needed."""
        end = self._at if at is None else at
        for word in words:
            at = blank_end(self._text, end)
            if self._text.startswith(word, at):
                end = at + len(word)
            elif not self._final and begins(self._text, at, [word]):
                return None
        return end

    def _wait(self) -> bool:
        """Wait for more text; where none follows, the section ends here."""
        return self._stop() if self._final else False

    def _stop(self, at: int | None = None) -> bool:
        self._end = (self._done if at is None else at) if self.n_calls else 0
        return False

    def _known(self, name: str) -> bool:
        return not self._bare or name in self._tools

    def _may_be_call(self, begin: int) -> bool:
        """Whether an object without a marker may be a call of a known tool."""
        key = _FIRST_KEY.match(self._text, begin)
        if not key:
            return blank_end(self._text, begin + 1) == len(self._text)
        keys = self._tools if self._syntax and self._syntax.names_key else KEYS
        if not (key[1] in keys if key[2] else any(k.startswith(key[1]) for k in keys)):
            return False
        name = _FIRST_NAME.match(self._text, begin)
        if not name:
            return True
        if name[2]:
            return name[1] in self._tools
        return any(t.startswith(name[1]) for t in self._tools)


def _spelled(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _suffix(syntax: CallSyntax, name: str) -> Sequence[str]:
    """The words behind a call's arguments, or behind its JSON object."""
    text = syntax.call[syntax.object.stop :] if syntax.object else ""
    if not syntax.object:
        text = syntax.call.partition("«arguments»")[2]
    return words_of(text.replace("«name»", name))


def _lead(syntax: CallSyntax) -> re.Pattern[str]:
    """What stands before a call's JSON object, up to it."""
    assert syntax.object is not None
    words = syntax.call[: syntax.object.start].split()
    return re.compile(r"\s*".join([*map(re.escape, words), r"(?=\{)"]))


def _head(syntax: CallSyntax) -> re.Pattern[str]:
    """What a call looks like up to its arguments. Blanks may stand wherever two parts meet."""
    slots = {
        "name": r"(?P<name>[^\s<>\[\]{}()\"'|｜]+?)",
        "n": r"(?P<n>\d+)",
        "id": r"(?P<id>[A-Za-z0-9_-]+)",
    }
    out = list[str]()
    seen = set[str]()
    for kind, text in syntax.parts:
        if kind == "arguments":
            break
        words = [re.escape(w) for w in text.split()]
        slot = f"(?P={kind})" if kind in seen else slots.get(kind, "")
        out += [w.replace('"', '"?') for w in words] if kind == "text" else [slot]
        seen.add(kind)
    pattern = r"\s*".join(out).replace(r"functions\.", r"(?:functions\.)?")
    return re.compile(pattern + _behind_head(syntax))


def _behind_head(syntax: CallSyntax) -> str:
    """What has to follow a head: only that shows where the name ends."""
    if syntax.literals:
        lits = syntax.literals
        opens, closes, equals = (re.escape(x) for x in (lits.open, lits.close, lits.equals))
        return rf"\s*(?={opens}\s*(?:{closes}|[^\s,()\[\]{{}}]+?\s*{equals}))"
    if syntax.tags is None:
        return r"\s*(?=\{)"
    ends = [w for w in (*_suffix(syntax, "")[:1], *words_of(syntax.close)[:1]) if w]
    follows = "|".join(map(re.escape, [syntax.tags.open.strip(), *ends]))
    return rf"\s*(?={follows})"


def _first_word(syntax: CallSyntax) -> str:
    """The first word of a call; empty where that is its name."""
    if syntax.object:
        return (syntax.call[: syntax.object.start].split() or ["{"])[0]
    kind, text = syntax.parts[0]
    return text.split()[0] if kind == "text" and text.strip() else ""
