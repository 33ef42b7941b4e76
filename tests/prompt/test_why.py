"""A prompt that is not what was read before says where, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from prompt_templates import DROPS_REASONING, REPEATS_REPLIES
from sample_turns import record
from talk import TOOLS, Talk, said, system, user

from everwarm.codec import Codec
from everwarm.events import Miss
from everwarm.messages import Message
from everwarm.prompt.marks import NEAR_END
from everwarm.prompt.render import Renderer
from everwarm.prompt.why import unknown
from everwarm.prompt.why import why as explain
from everwarm.request import Tool


@pytest.fixture
def talk(codec: Callable[..., Codec]) -> Talk:
    """Three answered turns behind a system prompt, and a fourth question."""
    made = codec(DROPS_REASONING)
    talk = Talk(Renderer(made), made)
    talk.messages.append(system("Be brief. Today is 2026-11-24. The branch is main."))
    for n in range(3):
        talk.turn(f"question {n} please", f"answer {n}", thought="hm\n</think>\n\n")
    talk.messages.append(user("and now?"))
    return talk


def why(talk: Talk) -> Miss:
    return talk.miss(talk.ask())


def unknown_cause(talk: Talk) -> str:
    prompt = talk.ask()
    evidence = talk.renderer.evidence(prompt)
    assert evidence is not None
    return unknown(prompt, evidence)


def edit(talk: Talk, at: int, was: str, now: str) -> None:
    talk.messages[at] = Message(
        talk.messages[at].role, user(talk.messages[at].text.replace(was, now)).parts
    )


@pytest.mark.parametrize(
    ("was", "now", "cause"),
    [
        ("2026-11-24", "2026-11-25", "a date or time changed in the system prompt"),
        ("main", "feature", "the system prompt was edited"),
        (" The branch is main.", "", "something was taken out of the system prompt"),
        ("main.", "main. Ask first.", "something was added to the system prompt"),
    ],
)
def test_the_system_prompt_changed(talk: Talk, was: str, now: str, cause: str) -> None:
    edit(talk, 0, was, now)
    miss = why(talk)
    assert (miss.part, miss.cause) == ("system", cause)
    n = next(i for i, (a, b) in enumerate(zip(miss.before, miss.after, strict=False)) if a != b)
    assert miss.before[:n] == miss.after[:n] != ""
    assert was in miss.before or now in miss.after


@pytest.mark.parametrize(
    ("tools", "cause"),
    [
        ((replace(TOOLS[0], description="Looks well."),), "the description of tool look changed"),
        ((replace(TOOLS[0], parameters={}),), "the schema of tool look changed"),
        ((*TOOLS, Tool("go")), "tool go was added"),
        ((Tool("go"),), "tool look was removed, tool go was added"),
    ],
)
def test_the_tools_changed(talk: Talk, tools: tuple[Tool, ...], cause: str) -> None:
    talk.tools = tools
    miss = why(talk)
    assert (miss.part, miss.cause) == ("tools", cause)


def test_an_earlier_message_was_edited(talk: Talk) -> None:
    edit(talk, 3, "please", "at once")
    miss = why(talk)
    assert (miss.part, miss.cause) == ("message 4 (user)", "message 4 was edited")
    assert "please" in miss.before and "at once" in miss.after


def test_an_earlier_message_was_taken_out_or_put_in(talk: Talk) -> None:
    taken = list(talk.messages)
    del taken[3:5]
    put = [*talk.messages[:3], user("by the way"), *talk.messages[3:]]
    talk.messages = taken
    assert "taken out" in why(talk).cause or "edited" in why(talk).cause
    talk.messages = put
    assert why(talk).cause == "message 4 was put in"


def test_a_part_that_the_last_request_had_alone_is_named(talk: Talk) -> None:
    talk.messages[-1] = user("and now?\n<reminder>")
    prompt = talk.ask()
    talk.answer(prompt, talk.codec.encode("fine"), said("fine"))
    talk.messages[-2] = user("and now?")
    talk.messages.append(user("go on"))
    assert why(talk).cause == "something was taken out of message 8"


def test_the_template_mode_says_so(talk: Talk) -> None:
    miss = talk.miss(talk.ask(history="template"))
    assert miss.cause.startswith("history is set to template")
    assert miss.part == "message 3 (assistant)"


def test_a_template_that_could_not_be_proved_says_so(codec: Callable[..., Codec]) -> None:
    made = codec(REPEATS_REPLIES)
    talk = Talk(Renderer(made), made)
    talk.turn("one", "yes", thought="hm\n</think>\n\n")
    talk.messages.append(user("two"))
    miss = why(talk)
    assert miss.cause.startswith("replies cannot be put back into this template: the end of")


def test_what_only_the_cache_lost_has_no_difference(talk: Talk) -> None:
    miss = why(talk)
    assert (miss.part, miss.cause, miss.before) == ("nowhere", "", "")
    assert miss.at == len(talk.read)


def test_the_few_tokens_behind_a_checkpoint_are_explained_without_decoding(talk: Talk) -> None:
    """Most turns of layers that cannot be cut read some; the work would slow the engine down."""
    prompt = talk.ask()
    counts = replace(
        record(), prefilled_tokens=23, new_tokens=20, unseen_tokens=18, cached_tokens=900
    )
    evidence = talk.renderer.evidence(prompt)
    assert evidence is not None
    blind = replace(evidence, codec=None)  # type: ignore[arg-type]
    miss = explain(counts, prompt, blind, has_cache=True)
    assert miss is not None
    assert (miss.is_scaffold, miss.at, miss.by_text, miss.by_cache) == (True, 900, 0, 5)
    lost = replace(counts, prefilled_tokens=20 + NEAR_END + 1, cached_tokens=1)
    miss = explain(lost, prompt, evidence, has_cache=True)
    assert miss is not None
    assert not miss.is_scaffold


def test_an_unknown_conversation_is_said_to_be_unknown(talk: Talk) -> None:
    other = Talk(talk.renderer, talk.codec, messages=[user("hey"), said("you"), user("there")])
    assert "does not know" in unknown_cause(other)
    assert unknown_cause(talk) == ""
