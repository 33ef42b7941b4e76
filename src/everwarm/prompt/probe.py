"""What one chat template accepts, and the proof that replies can be spliced into its text.

Both are found by rendering small conversations when a model is loaded. A template is proved if,
for a conversation with reasoning, tool calls, tool results and three user turns, and for every
reply and every later moment, the text found behind the reply's sentinel

- is how the unspliced conversation ends, and
- is nothing but what was said since, with nothing of the reply left in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from everwarm.errors import RequestError
from everwarm.messages import Message, Reasoning, Role, Text, ToolCall
from everwarm.prompt.shape import Habits, tool_dicts
from everwarm.prompt.splice import Frame, Splicer, call
from everwarm.request import Tool

_TOOL = Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
_SPEAKERS: tuple[Role, ...] = ("system", "user", "assistant")
_FRAME = Frame(tool_dicts([_TOOL]), {}, datetime(2001, 2, 3))


@dataclass(frozen=True, slots=True)
class Proof:
    """Which replies can be spliced. `reason` says why not all can; empty where all can."""

    texts: bool
    calls: bool
    reason: str = ""


def habits_of(splicer: Splicer) -> Habits:
    """Find out what the template accepts."""
    keeps = _Keeps(splicer)
    sys, user, said = _says("system"), _says("user"), _says("assistant")
    found = Habits(
        system_first=keeps(sys("s1w"), user("u1w")),
        system_anywhere=keeps(sys("s1w"), user("u1w"), said("a1w"), sys("s2w"), user("u2w")),
        users_in_a_row=keeps(user("u1w"), user("u2w"), said("a1w"), user("u3w")),
    )
    one = (user("u1w"), _calls("", "c1w"), _result("c1w", "t1w"))
    if not keeps(*one):
        short = replace(found, call_id_length=9)
        found = short if keeps(*one, habits=short) else found
    return replace(
        found,
        replies_in_a_row=keeps(
            user("u1w"), said("a1w"), *one[1:], said("a2w"), user("u2w"), habits=found
        ),
        user_after_tool=keeps(*one, user("u2w"), habits=found),
        parallel_calls=keeps(
            user("u1w"), _calls("", "c1w", "c2w"), _result("c1w", "t1w"), _result("c2w", "t2w"),
            habits=found, also=("c1w", "c2w") if keeps(*one, habits=found, also=("c1w",)) else (),
        ),
        text_arguments=keeps(
            user("u1w"), Message("assistant", (ToolCall("callc1w", "look", "{a1w"),)),
            _result("c1w", "t1w"), habits=found,
        ),
        text_beside_thinking=keeps(
            user("u1w"), _calls("x", "c1w"), _result("c1w", "t1w"), habits=found, words=False
        ),
        names=frozenset(r for r in _SPEAKERS if keeps(*_spoken(r), habits=found, also=("n1w",))),
    )  # fmt: skip


def _spoken(role: Role) -> list[Message]:
    """A small conversation in which somebody of this role has a name."""
    talk = [_says("system")("s1w"), _says("user")("u1w"), _says("assistant")("a1w")]
    named = [replace(m, name="n1w") if m.role == role else m for m in talk]
    return [*(named if role == "system" else named[1:]), _says("user")("u2w")]


class _Keeps:
    """Whether the template accepts messages and keeps their texts, once each and in order."""

    def __init__(self, splicer: Splicer) -> None:
        self._splicer = splicer

    def __call__(
        self,
        *messages: Message,
        habits: Habits | None = None,
        also: Sequence[str] = (),
        words: bool = True,
    ) -> bool:
        self._splicer.habits = habits or Habits()
        try:
            text = self._splicer.render(messages, _FRAME)
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


def reads_reasoning(splicer: Splicer, reasoning: tuple[str, str]) -> bool:
    """Whether the template looks for markers of reasoning in an assistant's text.

    `splicer` quotes them: where that changes what the template writes, it looks for them.
    """
    said = f"{reasoning[0]}r1w{reasoning[1]}a1w"
    user, plain = _says("user"), Splicer(splicer.codec)
    plain.habits = splicer.habits
    for text in (said, said.removeprefix(reasoning[0])):
        reply = Message("assistant", (Text(text),))
        for talk in ([user("u1w"), reply], [user("u1w"), reply, user("u2w")]):
            try:
                read = plain.render(talk, _FRAME)
                quoted = splicer.render(talk, _FRAME)
            except RequestError:
                continue
            if read != splicer.quotes.unquoted(quoted):
                return True
    return False


def prove(splicer: Splicer) -> Proof:
    """Try every reply of the probe conversation. Sets whether shortened histories may be used."""
    talk = _conversation(parallel=splicer.habits.parallel_calls)
    failed: dict[bool, str] = {}
    short = True
    for k, m in enumerate(talk):
        if m.role != "assistant":
            continue
        for end in _moments(talk, k):
            reason = _fault(splicer, talk[:end], k)
            if reason:
                failed.setdefault(bool(m.tool_calls), reason)
            elif short:
                whole = splicer.behind(talk[:end], k, _FRAME, short=False)
                short = whole == splicer.behind(talk[:end], k, _FRAME, short=True)
    splicer.short = short and not failed
    splicer.tools_once = not failed and _moves_tools(splicer, talk)
    return Proof(False not in failed, True not in failed, "; ".join(failed.values()))


def _moves_tools(splicer: Splicer, talk: Sequence[Message]) -> bool:
    """Whether the template writes the tools, in one place, again behind a reply."""
    k = max(i for i, m in enumerate(talk) if m.role == "assistant")
    told = splicer.behind(talk, k, _FRAME, short=False)
    bare = splicer.behind(talk, k, replace(_FRAME, tools=None), short=False)
    if not told or not bare or told == bare or len(told) <= len(bare):
        return False
    n = next((i for i, (a, b) in enumerate(zip(told, bare, strict=False)) if a != b), len(bare))
    return told.endswith(bare[n:]) and _TOOL.description in told[n : len(told) - len(bare) + n]


def _moments(talk: Sequence[Message], k: int) -> list[int]:
    """Ends of the histories in which the conversation may have been asked on, behind reply k."""
    return [
        end
        for end in range(k + 2, len(talk) + 1)
        if talk[end - 1].role != "assistant" and (end == len(talk) or talk[end].role == "assistant")
    ]


def _fault(splicer: Splicer, talk: Sequence[Message], k: int) -> str:
    """Why what follows reply k in this history is not certain; empty where it is."""
    kind = "a reply with tool calls" if talk[k].tool_calls else "a reply"
    tail = splicer.behind(talk, k, _FRAME, short=False)
    if tail is None:
        return f"the end of {kind} cannot be found in the template's text"
    try:
        whole = splicer.render(talk, _FRAME)
    except RequestError as e:
        return e.message
    if not whole.endswith(tail):
        return f"what the template writes behind {kind} depends on the reply"
    left = [m.text for m in talk[: k + 1] if m.text and m.text in tail]
    lost = [m.text for m in talk[k + 1 :] if m.role != "assistant" and m.text not in tail]
    if left or lost:
        return f"messages are not in order behind {kind}"
    return ""


def _conversation(*, parallel: bool) -> list[Message]:
    user, said = _says("user"), _says("assistant")
    thought = Reasoning("r1w")
    first = [_calls("r1w", "c1w", "c2w"), _result("c1w", "t1w"), _result("c2w", "t2w")]
    if not parallel:
        first = [_calls("r1w", "c1w"), _result("c1w", "t1w")]
        first += [_calls("r2w", "c2w"), _result("c2w", "t2w")]
    return [
        user("u1w"), *first,
        replace(said("a1w"), parts=(thought, Text("a1w"))),
        user("u2w"), _calls("r3w", "c3w"), _result("c3w", "t3w"), said("a2w"),
        user("u3w"), said("a3w"), user("u4w"),
    ]  # fmt: skip


def _says(role: Role) -> Callable[[str], Message]:
    return lambda text: Message(role, (Text(text),))


def _calls(thought: str, *words: str) -> Message:
    """A reply that calls a tool with each of these words."""
    calls = (call("look", f"call{w}", at=w) for w in words)
    if thought == "x":
        return Message("assistant", (Reasoning("x"), Text("x"), *calls))
    return Message("assistant", (*((Reasoning(thought),) if thought else ()), *calls))


def _result(word: str, text: str) -> Message:
    return Message("tool", (Text(text),), f"call{word}")
