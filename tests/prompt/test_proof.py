"""What is found out about a template: what it accepts, and which replies can be spliced."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from prompt_templates import (
    CLOSES_TEXTS,
    DESCRIBED_TOOLS,
    HABITS,
    NO_CONTROL_TOKENS,
    NO_SCAFFOLD_MOVES_SYSTEM,
    NO_TOOLS,
    OTHER_END_WITHOUT_SCAFFOLD,
    PRINTED_ARGUMENTS,
    PROVED,
    REPEATS,
    SPELLED_ARGUMENTS,
    TURNS_ALONE,
)
from talk import Talk, look, result, said, system, user

from everwarm.errors import RequestError
from everwarm.prompt.proof import KINDS
from everwarm.prompt.render import Renderer
from everwarm.prompt.splice import Frame
from everwarm.prompt.template_input import tool_dicts
from everwarm.request import Request, Tool
from everwarm.text.text_codec import TextCodec

MakeCodec = Callable[..., TextCodec]
NOW = datetime(2026, 11, 30)
A, B = look("callabc12", at="here"), look("callabc34", at="there")


@pytest.mark.parametrize("name", [*PROVED, *HABITS])
def test_every_kind_of_reply_is_proved_by_itself(codec: MakeCodec, name: str) -> None:
    assert Renderer(codec((PROVED | HABITS)[name])).proof.faults == {}


@pytest.mark.parametrize("kind", KINDS)
def test_what_depends_on_one_kind_of_reply_is_told_of_that_kind(
    codec: MakeCodec, kind: str
) -> None:
    renderer = Renderer(codec(REPEATS[kind]))
    also = {"texts": {"results"}}.get(kind, set())
    assert set(renderer.proof.faults) == {kind} | also
    assert renderer.verbatim
    assert renderer.proof.reason


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_proved_is_spliced(codec: MakeCodec, kind: str) -> None:
    covered = Renderer(codec(REPEATS[kind])).proof.covered
    texts = [user("u"), said("a"), user("v")]
    one = [user("u"), said("", A), result(A, "t"), said("a"), user("v")]
    two = [user("u"), said("", A, B), result(A, "t"), result(B, "t"), user("v")]
    thought = [user("u"), said("a", thought="r"), user("v")]
    assert covered(texts)[1] is (kind != "texts")
    assert covered(one)[1] is (kind != "calls")
    assert covered(one)[3] is (kind not in ("texts", "results"))
    assert covered(two)[1] is (kind != "parallel_calls")
    assert covered(thought)[1] is (kind not in ("texts", "reasoning"))
    assert not any(c for h in (texts, one, two) for c, m in zip(covered(h), h, strict=True)
                   if m.role != "assistant")  # fmt: skip


@pytest.mark.parametrize("template", [REPEATS["calls"], REPEATS["results"]])
def test_what_is_not_proved_stands_as_the_template_writes_it(
    codec: MakeCodec, template: str
) -> None:
    made = codec(template)
    talk = Talk(Renderer(made), made, messages=[user("go")])
    prompt = talk.ask()
    talk.answer(prompt, made.encode("  a call "), said("", A))
    talk.messages += [result(A, "seen"), said("done"), user("more")]
    whole = Renderer(made, history="template").prompt(
        Request(None, tuple(talk.messages), talk.tools)
    )
    spliced = talk.ask()
    assert (spliced.tokens == whole.tokens) is (template == REPEATS["calls"])


def test_a_template_that_cannot_do_without_descriptions_is_given_empty_ones(
    codec: MakeCodec,
) -> None:
    made = codec(DESCRIBED_TOOLS)
    bare = Tool("look", "", {"type": "object", "properties": {"at": {"type": "string"}}})
    talk = Talk(Renderer(made), made, tools=(bare,), messages=[user("go")])
    assert "at (string): <|im_end|>" in made.decode(talk.ask().tokens)
    full = Tool("look", "", {"properties": {"at": {"type": "string", "description": "Where."}}})
    told = Talk(talk.renderer, made, tools=(full,), messages=[user("go")])
    assert "at (string): Where.<|im_end|>" in made.decode(told.ask().tokens)
    none = Talk(talk.renderer, made, tools=(), messages=[user("go")])
    assert "<|system|><|im_end|><|user|>go" in made.decode(none.ask().tokens)


def test_a_tool_nested_too_deep_to_be_described_is_refused_by_name(codec: MakeCodec) -> None:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(5000):
        schema = {"type": "object", "properties": {"a": schema}}
    made = codec(DESCRIBED_TOOLS)
    talk = Talk(Renderer(made), made, tools=(Tool("look", "", schema),), messages=[user("go")])
    with pytest.raises(RequestError, match="nested too deep") as e:
        talk.renderer.splicer.render(talk.messages, Frame(tool_dicts(talk.tools), {}, NOW))
    assert e.value.param == "tools"


def test_a_template_that_refuses_tools_answers_as_a_chat(codec: MakeCodec) -> None:
    made = codec(NO_TOOLS)
    with_tools = Talk(Renderer(made), made, messages=[user("go")])
    without = Talk(Renderer(made), made, tools=(), messages=[user("go")])
    assert with_tools.ask().tokens == without.ask().tokens


@pytest.mark.parametrize("template", [OTHER_END_WITHOUT_SCAFFOLD, NO_CONTROL_TOKENS, TURNS_ALONE])
def test_calls_and_results_of_another_model_are_words_where_a_template_has_no_place_for_them(
    codec: MakeCodec, template: str
) -> None:
    made = codec(template)
    talk = Talk(Renderer(made), made)
    talk.messages = [user("go"), said("I look.", A, B), result(A, "r-one"), result(B, "r-two")]
    text = made.decode(talk.ask().tokens)
    words = ["go", "I look.", '"look"', '"here"', '"look"', '"there"', "r-one", "r-two"]
    at = 0
    for word in words:
        at = text.index(word, at) + 1
    talk.messages += [said("done"), user("bye")]
    assert talk.ask().tokens[: len(talk.read)] == talk.read


@pytest.mark.parametrize("template", [SPELLED_ARGUMENTS, PRINTED_ARGUMENTS])
def test_arguments_are_json_text_where_a_template_writes_no_object(
    codec: MakeCodec, template: str
) -> None:
    made = codec(template)
    call = look("callabc12", at='é "x"', n=[1, None])
    talk = Talk(Renderer(made), made, messages=[user("go"), said("", call), result(call, "seen")])
    written = '<tool_call>look {"at": "é \\"x\\"", "n": [1, null]}</tool_call>'
    assert written in made.decode(talk.ask().tokens)


@pytest.mark.parametrize("template", PROVED.values(), ids=PROVED)
def test_a_template_with_a_place_for_results_keeps_it(codec: MakeCodec, template: str) -> None:
    assert Renderer(codec(template)).splicer.habits.tool_messages


def test_a_system_prompt_that_the_template_moves_is_read_once(codec: MakeCodec) -> None:
    made = codec(NO_SCAFFOLD_MOVES_SYSTEM)
    talk = Talk(Renderer(made), made, messages=[system("Be very brief.")])
    for n in range(3):
        prompt = talk.turn(f"question {n}", f"answer {n}")
    text = made.decode(prompt.tokens)
    assert text.count("Be very brief.") == 1
    assert text.index("Be very brief.") < text.index("question 0")
    assert talk.reprocessed == 1.0


@pytest.mark.parametrize("closed", ["<|close|>text", "<|close|>", ""])
def test_what_a_reply_closed_by_itself_is_not_closed_again(codec: MakeCodec, closed: str) -> None:
    made = codec(CLOSES_TEXTS)
    talk = Talk(Renderer(made), made)
    for n in range(2):
        talk.messages.append(user(f"question {n}"))
        talk.answer(talk.ask(), made.encode(f"answer {n}{closed}"), said(f"answer {n}"))
    talk.messages.append(user("bye"))
    text = made.decode(talk.ask().tokens)
    for n in range(2):
        assert f"answer {n}<|close|>text<|im_end|>" in text
    assert talk.reprocessed == 1.0


def test_an_end_of_turn_that_nobody_named_is_found_in_the_template(
    marked_codec: Callable[[str, list[str]], TextCodec],
) -> None:
    template = PROVED["drops_reasoning"].replace("<|im_end|>", "<|over|>")
    template = template.replace("<|im_start|>", "<|turn|>")
    made = marked_codec(template, ["<|over|>", "<|turn|>", "<tool_call>", "</tool_call>"])
    renderer = Renderer(made)
    assert renderer.proof.faults == {}
    talk = Talk(renderer, made, messages=[user("go")])
    talk.answer(talk.ask(), made.encode("<tool_call>{}</tool_call>"), said("", A))
    talk.messages += [result(A, "seen")]
    assert "<tool_call>{}</tool_call><|over|>\n<|turn|>user" in made.decode(talk.ask().tokens)
