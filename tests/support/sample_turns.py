"""Turns as lists of events: what any encoder must be able to say."""

from __future__ import annotations

from hypothesis import strategies as st
from sample_replies import fold

from everwarm.events import (
    CallDelta,
    CallEnd,
    CallStart,
    Event,
    Finish,
    Finished,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    TurnRecord,
)
from everwarm.wire.format import Head

HEAD = Head("resp_abc", "tiny", 1_700_000_000)


def record(finish: Finish = "stop") -> TurnRecord:
    return TurnRecord(
        id="t",
        model="tiny",
        at=0.0,
        finish=finish,
        prompt_tokens=100,
        cached_tokens=90,
        prefilled_tokens=10,
        completion_tokens=7,
        reasoning_tokens=3,
    )


def turn(*said: Event, finish: Finish = "stop", stop: str | None = None) -> list[Event]:
    """A whole turn around what was said."""
    begin: list[Event] = [Started(100), Progress(90, 100, 90), Progress(100, 100, 90)]
    return [*begin, *said, Finished(finish, record(finish), fold(said), stop)]


def call(index: int, id: str, name: str, *arguments: str) -> list[Event]:
    deltas = [CallDelta(index, a) for a in arguments]
    return [CallStart(index, id, name), *deltas, CallEnd(index)]


FULL = turn(
    ReasoningDelta("Where "),
    ReasoningDelta("is it?"),
    TextDelta("I "),
    TextDelta("look."),
    *call(0, "calla", "look", '{"at": ', '"lake"}'),
    *call(1, "callb", "look", "", "{}"),
    finish="tool_calls",
)

_text = st.builds(TextDelta, st.text(max_size=5))
_thought = st.builds(ReasoningDelta, st.text(max_size=5))


@st.composite
def turns(draw: st.DrawFn) -> list[Event]:
    """Any turn: texts, thoughts and calls in any order, cut anywhere between them."""
    said: list[Event] = []
    n_calls = 0
    for kind in draw(st.lists(st.sampled_from(["text", "thought", "call"]), max_size=6)):
        if kind == "call":
            arguments = draw(st.sampled_from([("{}",), ('{"a"', ': "\\n"}'), ("", "{}"), ("no",)]))
            said += call(n_calls, f"call{n_calls}", "look", *arguments)
            n_calls += 1
        else:
            said += draw(st.lists(_text if kind == "text" else _thought, min_size=1, max_size=3))
    finish: Finish = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    return turn(*said, finish=finish)
