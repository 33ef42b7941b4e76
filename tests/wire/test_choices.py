"""Several turns in one answer: each choice is what its own turn says, and usage is counted once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_turns import FULL, HEAD, turn, turns

from everwarm.events import Event, Finished, Progress, TextDelta
from everwarm.request import Request, Sampling, nth_sample
from everwarm.wire import formats
from everwarm.wire.choices import ChoiceEvent, ChoicesEncoder
from everwarm.wire.format import Format, StreamEncoder

CHAT = (formats.CHAT, {"messages": [{"role": "user", "content": "hi"}]})
COMPLETIONS = (formats.COMPLETIONS, {"prompt": "hi"})
BOTH = pytest.mark.parametrize("asked", [CHAT, COMPLETIONS], ids=["chat", "completions"])
Asked = tuple[Format, dict[str, Any]]


def made(asked: Asked) -> StreamEncoder:
    fmt, body = asked
    raw = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    return fmt.parse(raw, "").encoder(HEAD)


def encoder(asked: Asked, n_prompts: int, n_samples: int) -> ChoicesEncoder:
    return ChoicesEncoder(partial(made, asked), n_prompts=n_prompts, n_samples=n_samples)


def whole_of(several: ChoicesEncoder, said: list[ChoiceEvent]) -> dict[str, Any]:
    for event in said:
        several.take(event)
    return several.answer()


def interleaved(draw: st.DrawFn, answers: list[list[Event]]) -> Iterator[ChoiceEvent]:
    """The events of all turns in any order that keeps each turn's own, the first one's first."""
    left = [list(events) for events in answers]
    yield ChoiceEvent(0, left[0].pop(0))
    while any(left):
        index = draw(st.sampled_from([i for i, events in enumerate(left) if events]))
        yield ChoiceEvent(index, left[index].pop(0))


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[list[Event]], list[ChoiceEvent]]:
    each = draw(st.lists(turns(), min_size=2, max_size=4))
    return each, list(interleaved(draw, each))


def of_choice(chunks: list[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    """The chunks of one choice, as if it were the only one."""
    own = [c for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
    return [{**c, "choices": [{**c["choices"][0], "index": 0}]} for c in own]


@BOTH
@given(answer=answers())
def test_a_choice_is_streamed_as_its_turn_alone(
    asked: Asked, answer: tuple[list[list[Event]], list[ChoiceEvent]]
) -> None:
    each, said = answer
    several = encoder(asked, 1, len(each))
    chunks = [chunk for event in said for chunk in several.chunks(event)]
    for index, events in enumerate(each):
        alone = made(asked)
        own = [c for event in events for c in alone.chunks(event) if c["choices"]]
        assert of_choice(chunks, index) == own
    assert [bool(c["choices"]) for c in chunks].count(False) == 1
    first_heard = list(dict.fromkeys(c["choices"][0]["index"] for c in chunks if c["choices"]))
    if asked is CHAT:
        assert first_heard == list(range(len(each)))


@BOTH
@given(answer=answers())
def test_whole_and_streamed_tell_the_same(
    asked: Asked, answer: tuple[list[list[Event]], list[ChoiceEvent]]
) -> None:
    each, said = answer
    whole = whole_of(encoder(asked, 1, len(each)), said)
    several = encoder(asked, 1, len(each))
    chunks = [chunk for event in said for chunk in several.chunks(event)]
    assert chunks[-1]["usage"] == whole["usage"]
    for index, (choice, events) in enumerate(zip(whole["choices"], each, strict=True)):
        (alone,) = made(asked).fold(events)["choices"]
        assert choice == {**alone, "index": index}


def counted(prompt: int, cached: int, completion: int, reasoning: int) -> list[Event]:
    events = turn(TextDelta("so"))
    end = events[-1]
    assert isinstance(end, Finished)
    record = replace(
        end.record,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
    )
    return [*events[:-1], replace(end, record=record)]


@BOTH
def test_a_prompt_s_tokens_are_counted_once_and_each_reply_s_tokens(asked: Asked) -> None:
    each = [counted(10, 4, 1, 1), counted(10, 9, 2, 0), counted(30, 0, 4, 2), counted(30, 29, 8, 0)]
    said = [ChoiceEvent(i, event) for i, events in enumerate(each) for event in events]
    usage = whole_of(encoder(asked, 2, 2), said)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (40, 15)
    assert usage["total_tokens"] == 55
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    if asked is CHAT:
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 3


@BOTH
def test_a_sign_of_life_is_of_a_choice_that_goes_on(asked: Asked) -> None:
    several = encoder(asked, 1, 2)
    assert several.keepalive(Progress(1, 2, 0))[0]["choices"][0]["index"] == 0
    for event in FULL:
        several.chunks(ChoiceEvent(0, event))
    (alive,) = several.keepalive(Progress(1, 2, 0))
    assert alive["choices"][0]["index"] == 1
    assert alive["everwarm"]["progress"]["done"] == 1


def test_a_single_turn_is_said_as_ever() -> None:
    for fmt, body in (
        (formats.MESSAGES, {"messages": CHAT[1]["messages"], "max_tokens": 9}),
        (formats.RESPONSES, {"input": "hi"}),
    ):
        asked = (fmt, body)
        parsed = fmt.parse(json.dumps(body).encode(), "")
        one = ChoicesEncoder(partial(parsed.encoder, HEAD), n_prompts=1, n_samples=1)
        alone = parsed.encoder(HEAD)
        said = [one.chunks(ChoiceEvent(0, event)) for event in FULL]
        assert said == [alone.chunks(event) for event in FULL], asked


def test_each_sample_has_a_seed_of_its_own() -> None:
    seeded = Request(None, (), sampling=Sampling(seed=7))
    seeds = [nth_sample(seeded, n).sampling.seed for n in range(8)]
    assert seeds[0] == 7 and len(set(seeds)) == 8
    assert seeds == [nth_sample(seeded, n).sampling.seed for n in range(8)]
    others = [nth_sample(replace(seeded, sampling=Sampling(seed=8)), n) for n in range(8)]
    assert not set(seeds) & {r.sampling.seed for r in others}
    assert all(s is not None and 0 <= s < 2**64 for s in seeds)
    assert nth_sample(Request(None, ()), 3).sampling.seed is None


def completions(**fields: Any) -> Any:
    return formats.COMPLETIONS.parse(json.dumps(fields).encode(), "")


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [(1, 2)]),
        ([[1, 2]], [(1, 2)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
def test_prompts_are_one_or_a_list(prompt: Any, prompts: list[Any]) -> None:
    asked = completions(prompt=prompt, n=2)
    assert [r.raw for r in asked.prompts] == prompts
    assert {r.samples for r in asked.prompts} == {2}
    assert asked.n_choices == 2 * len(prompts)
