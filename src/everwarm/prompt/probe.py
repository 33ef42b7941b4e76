"""Finds out what a chat template accepts and keeps in its place, by rendering small conversations.

It runs when a model is loaded. `proof.py` finds out whether replies can be spliced in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.messages import Message, Reasoning, Role, Text, ToolCall
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.scan import shared_length
from everwarm.prompt.quote import any_of, quotes_of
from everwarm.prompt.splice import Frame, Splicer, call
from everwarm.prompt.template_input import Habits, tool_dicts
from everwarm.request import Tool

_AT = {"type": "string", "description": "Where."}
LOOK = Tool("look", "Looks.", {"type": "object", "properties": {"at": _AT}, "required": ["at"]})
_BARE = Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
WITHOUT_TOOLS: Final = Frame()
WITH_TOOLS: Final = Frame(tool_dicts([LOOK]))
_BARE_TOOLS: Final = Frame(tool_dicts([_BARE]))
_SPEAKERS: Final[tuple[Role, ...]] = ("system", "user", "assistant")


_PYTHON: Final = "{'at': 'c1w'}"
"""How a template that expects JSON text writes arguments that are an object."""


def probed(codec: Codec, dialect: Dialect, *, control_tokens_in_text: bool) -> Splicer:
    """A splicer that knows what its template accepts, and what of a client's text it reads."""
    splicer = Splicer(codec, None if control_tokens_in_text else quotes_of(codec))
    own_id = next((c.own_id for c in dialect.calls if c.own_id), "")
    splicer.habits = replace(_habits_of(splicer), own_id=own_id)
    _find_turns(splicer)
    think = dialect.reasoning
    if think and not control_tokens_in_text and _reads_reasoning(splicer, think):
        splicer.quotes = quotes_of(codec, think)
    return splicer


def _habits_of(splicer: Splicer) -> Habits:
    """Find out what the template accepts."""
    tools = _tool_habits(splicer)
    keeps = _Keeps(splicer, tools)
    sys, user, said = says("system"), says("user"), says("assistant")
    found = replace(
        tools,
        system_first=keeps(sys("s1w"), user("u1w")),
        system_anywhere=keeps(sys("s1w"), user("u1w"), said("a1w"), sys("s2w"), user("u2w")),
        users_in_a_row=keeps(user("u1w"), user("u2w"), said("a1w"), user("u3w")),
    )
    one = (user("u1w"), calls("", "c1w"), result("c1w", "t1w"))
    found = _call_habits(keeps, found, one)
    return replace(
        found,
        replies_in_a_row=keeps(
            user("u1w"), said("a1w"), *one[1:], said("a2w"), user("u2w"), habits=found
        ),
        user_after_tool=keeps(*one, user("u2w"), habits=found),
        parallel_calls=keeps(
            user("u1w"), calls("", "c1w", "c2w"), result("c1w", "t1w"), result("c2w", "t2w"),
            habits=found, also=("c1w", "c2w") if keeps(*one, habits=found, also=("c1w",)) else (),
        ),
        text_arguments=keeps(
            user("u1w"), Message("assistant", (ToolCall("callc1w", "look", "{a1w"),)),
            result("c1w", "t1w"), habits=found,
        ),
        text_beside_thinking=keeps(
            user("u1w"), calls("x", "c1w"), result("c1w", "t1w"), habits=found, words=False
        ),
        names=frozenset(r for r in _SPEAKERS if keeps(*_spoken(r), habits=found, also=("n1w",))),
    )  # fmt: skip


def _call_habits(keeps: _Keeps, found: Habits, one: Sequence[Message]) -> Habits:
    """How the template takes a call and its result, if at all."""
    short, spelled = {"call_id_length": 9}, {"spelled_arguments": True}
    for changes in ({}, short, spelled, short | spelled):
        tried = replace(found, **changes)
        written = keeps(*one, habits=tried) and not keeps(*one, habits=tried, also=(_PYTHON,))
        if written:
            return tried
    if keeps(*one, habits=found) or keeps.somehow(one, "t1w", found):
        return found
    return replace(found, tool_messages=False)


def _tool_habits(splicer: Splicer) -> Habits:
    """How the template takes a text, tools, and a request without any."""
    user, found = says("user")("u1w"), Habits()

    def takes(frame: Frame, habits: Habits) -> bool:
        splicer.habits = habits
        try:
            return "u1w" in splicer.render([user], frame)
        except RequestError:
            return False

    if not takes(WITHOUT_TOOLS, found):
        found = replace(found, text_parts=takes(WITHOUT_TOOLS, replace(found, text_parts=True)))
    if not takes(WITHOUT_TOOLS, found):
        found = replace(found, no_tools=not takes(WITHOUT_TOOLS, replace(found, no_tools=False)))
    if not takes(_BARE_TOOLS, found):
        filled = replace(found, bare_schemas=False)
        refuses = takes(WITHOUT_TOOLS, found) and not takes(WITH_TOOLS, found)
        found = filled if takes(_BARE_TOOLS, filled) else replace(found, tools=not refuses)
    return found


def _spoken(role: Role) -> list[Message]:
    """A small conversation in which somebody of this role has a name."""
    talk = [says("system")("s1w"), says("user")("u1w"), says("assistant")("a1w")]
    named = [replace(m, name="n1w") if m.role == role else m for m in talk]
    return [*(named if role == "system" else named[1:]), says("user")("u2w")]


class _Keeps:
    """Whether the template accepts messages and keeps their texts, once each and in order."""

    def __init__(self, splicer: Splicer, tools: Habits) -> None:
        self._splicer, self._tools = splicer, tools

    def somehow(self, messages: Sequence[Message], word: str, habits: Habits) -> bool:
        """Whether this word comes into the text in any form of the input, wherever it stands."""
        spelled = replace(habits, spelled_arguments=True)
        tried = (habits, replace(habits, call_id_length=9), spelled)
        for changed in tried:
            for frame in (WITH_TOOLS, WITHOUT_TOOLS):
                self._splicer.habits = changed
                try:
                    if word in self._splicer.render(messages, frame):
                        return True
                except RequestError:
                    continue
        return False

    def __call__(
        self,
        *messages: Message,
        habits: Habits | None = None,
        also: Sequence[str] = (),
        words: bool = True,
    ) -> bool:
        self._splicer.habits = habits or self._tools
        try:
            text = self._splicer.render(messages, WITH_TOOLS)
        except RequestError:
            return False
        if not words:
            return True
        said = [m.text for m in messages if m.text]
        places = [text.find(w) for w in said]
        return (
            -1 not in places
            and places == sorted(places)
            and all(text.count(w) == 1 for w in said)
            and all(w in text for w in also)
        )


def _reads_reasoning(splicer: Splicer, reasoning: tuple[str, str]) -> bool:
    """Whether the template looks for markers of reasoning in an assistant's text.

    `splicer` quotes them: where that changes what the template writes, it looks for them.
    """
    said = f"{reasoning[0]}r1w{reasoning[1]}a1w"
    user, plain = says("user"), Splicer(splicer.codec)
    plain.habits = splicer.habits
    for text in (said, said.removeprefix(reasoning[0])):
        reply = Message("assistant", (Text(text),))
        for talk in ([user("u1w"), reply], [user("u1w"), reply, user("u2w")]):
            try:
                read = plain.render(talk, WITH_TOOLS)
                quoted = splicer.render(talk, WITH_TOOLS)
            except RequestError:
                continue
            if read != splicer.quotes.unquoted(quoted):
                return True
    return False


def _find_turns(splicer: Splicer) -> None:
    """Find what ends a reply's turn in this template, and what stands around users' turns.

        a1w <|close|>text<|sep|> <|end|>                    a reply that is the last message
        a1w <|close|>text<|sep|> <|end|> <|turn|>user u2w   one with a question behind it

    The last control token that both share ends the turn, unless it begins the whole text.
    """
    special, user, said = any_of(splicer.codec.special_texts), says("user"), says("assistant")
    last, asked = [user("u1w"), said("a1w")], [user("u1w"), said("a1w"), user("u2w")]
    try:
        alone = splicer.render(last, WITHOUT_TOOLS, scaffold=False).rpartition("a1w")[2]
        text = splicer.render(asked, WITHOUT_TOOLS).rpartition("a1w")[2].partition("u2w")[0]
        question = splicer.render(last[:1], WITHOUT_TOOLS)
    except RequestError:
        return
    shared = shared_length(alone, text)
    found, begins = list(special.finditer(text)), _leading(special, question)
    shared = next((m.start() for m in found if m.start() < shared < m.end()), shared)
    ends = [m[0] for m in found if m.end() <= shared and m[0] not in begins]
    end = ends[-1] if ends else "" if found else text[:shared].strip()
    if end and not any(e and e in text[:shared] for e in splicer.ends):
        splicer.ends = [*splicer.ends, end]
    splicer.opens = {m[0] for m in special.finditer(question)} - {*splicer.ends}


def _leading(special: re.Pattern[str], text: str) -> set[str]:
    """The control tokens with which a text begins."""
    out, at = set[str](), 0
    while m := special.match(text, at):
        out.add(m[0])
        at = m.end()
    return out


def says(role: Role) -> Callable[[str], Message]:
    """Makes messages of this role from their texts."""
    return lambda text: Message(role, (Text(text),))


def calls(thought: str, *words: str) -> Message:
    """A reply that calls a tool with each of these words."""
    made = (call("look", f"call{w}", at=w) for w in words)
    if thought == "x":
        return Message("assistant", (Reasoning("x"), Text("x"), *made))
    return Message("assistant", (*((Reasoning(thought),) if thought else ()), *made))


def result(word: str, text: str) -> Message:
    """What the call with this word brought."""
    return Message("tool", (Text(text),), f"call{word}")
