"""Every dialect is found by its template and read, however its tokens are cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import pytest
from dialect_samples import SAMPLES, VALUES
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sample_replies import fold

from everwarm.events import CallDelta, CallStart, Event, ReasoningDelta, TextDelta
from everwarm.job import Token
from everwarm.messages import Reasoning, Text, ToolCall
from everwarm.prompt.dialects import families
from everwarm.prompt.parse import ReplyParser
from everwarm.request import Tool
from everwarm.text.text_codec import TextCodec

MakeCodec = Callable[[str], TextCodec]
LOOK = {"type": "object", "properties": {"at": {"type": "string"}, "b": {"type": "object"}}}
TOOLS = (Tool("look", "Looks.", LOOK), Tool("jump"))
MANY = settings(
    max_examples=30,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CUTS = st.lists(st.integers(1, 40), max_size=60)


def parser(codec: TextCodec, *stop: str, allowed: bool = True, opens: bool = False) -> ReplyParser:
    names = count()
    return ReplyParser(
        codec,
        tools=TOOLS,
        tools_allowed=allowed,
        opens_reasoning=opens,
        stop=stop,
        new_call_id=lambda: f"id{next(names)}",
    )


def run(p: ReplyParser, ids: Iterable[int]) -> list[Event]:
    events = [e for i in ids for e in p.feed(Token(i))]
    return events + p.finish()


def cut(codec: TextCodec, text: str, lengths: Iterable[int]) -> list[int]:
    """Ids of a text cut at these places: markers may come in parts."""
    ids = list[int]()
    for n in lengths:
        ids += codec.encode(text[:n])
        text = text[n:]
    return ids + codec.encode(text)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_dialect_is_found_by_the_template(sample_codec: MakeCodec, name: str) -> None:
    assert families.of(sample_codec(name)).name == SAMPLES[name].dialect


@pytest.mark.parametrize("name", SAMPLES)
def test_reasoning_text_and_calls_are_told_apart(sample_codec: MakeCodec, name: str) -> None:
    sample, codec = SAMPLES[name], sample_codec(name)
    p = parser(codec)
    events = run(p, codec.encode(sample.reply))
    message = p.message
    assert fold(events) == message
    assert message.reasoning.strip() == ("hm" if sample.thinks else "")
    assert message.text == ("I look." if sample.says else "")
    assert [json.loads(c.arguments) for c in message.tool_calls] == [VALUES] * sample.n_calls
    starts = [e for e in events if isinstance(e, CallStart)]
    assert [(e.index, e.name) for e in starts] == [(i, "look") for i in range(sample.n_calls)]
    kinds = [type(part) for part in message.parts]
    assert kinds == [Reasoning] * sample.thinks + [Text] * sample.says + [ToolCall] * sample.n_calls


@pytest.mark.parametrize("name", SAMPLES)
def test_any_cut_gives_the_same_reply(sample_codec: MakeCodec, name: str) -> None:
    sample, codec = SAMPLES[name], sample_codec(name)

    @seed(0)
    @MANY
    @given(CUTS, st.integers(0, len(sample.reply)), st.sampled_from(["", "\n\nMore.", " {"]))
    def check(lengths: list[int], end: int, more: str) -> None:
        for text in (sample.reply + more, sample.reply[:end]):
            whole, streamed = parser(codec), parser(codec)
            expected = fold(run(whole, codec.encode(text)))
            assert expected == whole.message
            assert fold(run(streamed, cut(codec, text, lengths))) == expected == streamed.message

    check()


@pytest.mark.parametrize("name", SAMPLES)
def test_garbage_between_markers_is_the_same_however_it_is_cut(
    sample_codec: MakeCodec, name: str
) -> None:
    sample, codec = SAMPLES[name], sample_codec(name)
    dialect = families.of(codec)
    words = [w for c in dialect.calls for w in (c.open, c.close, *c.call.split("«name»"))]
    words += [*sample.markers, *(dialect.reasoning or ()), *dialect.text, dialect.glue]
    words += ["look", "jump", "{", "}", "[", "]", '"', "\\", ",", ":", " ", "\n", '{"a": 1}', "é"]
    words += [sample.reply, sample.reply[: len(sample.reply) // 2], '"name": "look"', "<", "|"]

    @seed(0)
    @MANY
    @given(st.lists(st.sampled_from([w for w in words if w]), max_size=12), CUTS)
    def check(pieces: list[str], lengths: list[int]) -> None:
        text = "".join(pieces)
        whole, streamed = parser(codec), parser(codec)
        expected = fold(run(whole, codec.encode(text)))
        assert fold(run(streamed, cut(codec, text, lengths))) == expected == streamed.message

    check()


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_no_call_is_said_word_for_word(sample_codec: MakeCodec, name: str) -> None:
    codec = sample_codec(name)
    markers = [m for c in families.of(codec).calls for m in (c.open, c.close) if m]
    plain = [m for m in markers if "|channel|" not in m and m != "<|call|>"]

    @seed(0)
    @MANY
    @given(st.lists(st.sampled_from([*plain, "a b", "no call", '"x"', "\n", "(1)"]), max_size=9))
    def check(pieces: list[str]) -> None:
        text = "So " + "".join(pieces) + "."
        p = parser(codec)
        run(p, codec.encode(text))
        assert p.message.parts == (Text(text),)

    check()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_call_is_told_when_it_is_whole_and_not_before(sample_codec: MakeCodec, name: str) -> None:
    sample, codec = SAMPLES[name], sample_codec(name)
    for end in range(len(sample.reply)):
        p = parser(codec)
        run(p, codec.encode(sample.reply[:end]))
        assert all(json.loads(c.arguments) == VALUES for c in p.message.tool_calls), end
    begun = sample.reply[: sample.reply.index("here")]
    p = parser(codec)
    told = [e for i in codec.encode(begun) for e in p.feed(Token(i))]
    assert not any(isinstance(e, CallStart | CallDelta) for e in told)
    assert begun.endswith(p.message.text) or p.message.text == "I look."
    p.finish()
    assert begun.endswith(p.message.text[-40:])


@pytest.mark.parametrize("name", SAMPLES)
def test_without_tools_all_but_reasoning_is_text(sample_codec: MakeCodec, name: str) -> None:
    sample, codec = SAMPLES[name], sample_codec(name)
    p = parser(codec, allowed=False)
    run(p, codec.encode(sample.reply))
    assert not p.has_calls
    assert "look" in p.message.text and "here" in p.message.text
    assert p.message.reasoning.strip() == ("hm" if sample.thinks else "")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_plain_answer_is_an_answer(sample_codec: MakeCodec, name: str) -> None:
    codec = sample_codec(name)
    for text in ("hello", "assistant says to=you: {", "[1, 2]", '{"name": "Bob", "age": 3}'):
        p = parser(codec)
        run(p, codec.encode(text))
        assert p.message.parts == (Text(text),)


def of(codec: TextCodec, text: str, **options: Any) -> tuple[Any, ...]:
    p = parser(codec, **options)
    run(p, codec.encode(text))
    return p.message.parts


def test_an_answer_in_json_is_told_as_it_comes_and_no_call(sample_codec: MakeCodec) -> None:
    codec = sample_codec("llama_3")
    p = parser(codec)
    events = [e for i in codec.encode('{"name": "Bob", "ag') for e in p.feed(Token(i))]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)).startswith('{"name": "Bob')


def test_llama_calls_in_all_its_ways(sample_codec: MakeCodec) -> None:
    codec = sample_codec("llama_3")
    call = ToolCall("id0", "look", '{"at": "x"}')
    assert of(codec, '{"type": "function", "name": "look", "parameters": {"at": "x"}}') == (call,)
    assert of(codec, '<|python_tag|>{"name": "look", "parameters": {"at": "x"}}') == (call,)
    assert of(codec, '<function=look>{"at": "x"}</function>') == (call,)
    two = of(
        codec, '{"name": "look", "parameters": {"at": "x"}}; {"name": "jump", "parameters": {}}'
    )
    assert two == (call, ToolCall("id1", "jump", "{}"))
    for text in (
        '<function=fly>{"at": "x"}</function>',
        'It is {"name": "look", "parameters": {"at": "x"}}',
        '{"name": "fly", "parameters": {"at": "x"}}',
        '<|python_tag|>print("look")',
    ):
        assert of(codec, text) == (Text(text),)


def test_harmony_keeps_what_was_said_before_a_call_and_knows_its_channels(
    sample_codec: MakeCodec,
) -> None:
    codec = sample_codec("harmony")
    text = "<|channel|>final<|message|>Yes."
    assert of(codec, text) == (Text("Yes."),)
    cut_off = text + "<|end|><|start|>assistant<|channel|>fi"
    assert of(codec, cut_off) == (Text("Yes."),)
    bad = "<|channel|>commentary to=functions.look <|constrain|>json<|message|>no json"
    assert of(codec, bad + "<|call|>") == (Text(bad),)
    inside = "<|channel|>commentary to=functions.look<|message|>{" + '"at": "<|end|>"}'
    assert of(codec, inside) == (ToolCall("id0", "look", '{"at": "<|end|>"}'),)


def test_harmony_ends_a_turn_with_a_call(sample_codec: MakeCodec) -> None:
    codec = sample_codec("harmony")
    assert set(codec.encode("<|call|><|return|>")) <= codec.eos_ids
    assert not set(codec.encode("<|end|>")) & codec.eos_ids


def test_a_stop_text_ends_an_answer_in_harmony(sample_codec: MakeCodec) -> None:
    codec = sample_codec("harmony")
    p = parser(codec, "three")
    run(p, codec.encode("<|channel|>analysis<|message|>three<|end|><|start|>assistant"
                        "<|channel|>final<|message|>two three four"))  # fmt: skip
    assert p.stopped and p.message.parts == (Reasoning("three"), Text("two "))


def test_a_template_may_have_opened_the_reasoning(sample_codec: MakeCodec) -> None:
    for name, close in (("seed_oss", "</seed:think>"), ("magistral", "[/THINK]")):
        assert of(sample_codec(name), f"hm{close}yes", opens=True) == (Reasoning("hm"), Text("yes"))


def test_tagged_values_have_their_declared_types(sample_codec: MakeCodec) -> None:
    codec = sample_codec("qwen3_coder")
    types: dict[str, Any] = {
        "s": {"type": "string"},
        "i": {"type": "integer"},
        "f": {"type": "number"},
        "t": {"type": "boolean"},
        "o": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "l": {"type": "array"},
        "e": {"enum": ["1", "2"]},
    }
    tool = Tool("set", "", {"type": "object", "properties": types})
    given = {"s": "5", "i": "5", "f": "0.5", "t": "True", "o": "null", "l": "['a']", "e": "1",
             "unknown": "7"}  # fmt: skip
    body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in given.items())
    p = ReplyParser(codec, tools=[tool], tools_allowed=True, opens_reasoning=False, stop=(),
                    new_call_id=lambda: "x")  # fmt: skip
    run(p, codec.encode(f"<tool_call>\n<function=set>\n{body}</function>\n</tool_call>"))
    expected = {"s": "5", "i": 5, "f": 0.5, "t": True, "o": None, "l": ["a"], "e": "1",
                "unknown": "7"}  # fmt: skip
    assert json.loads(p.message.tool_calls[0].arguments) == expected


def test_blanks_of_a_string_value_are_its_own(sample_codec: MakeCodec) -> None:
    for name, text in {
        "qwen3_coder": "<tool_call>\n<function=look>\n<parameter=at>\n  x\n\n</parameter>\n"
        "</function>\n</tool_call>",
        "glm_4": "<tool_call>look<arg_key>at</arg_key><arg_value>  x\n</arg_value></tool_call>",
        "minimax_m2": '<minimax:tool_call><invoke name="look"><parameter name="at">  x\n'
        "</parameter></invoke></minimax:tool_call>",
    }.items():
        (call,) = of(sample_codec(name), text)
        assert json.loads(call.arguments) == {"at": "  x\n"}


def test_a_call_that_breaks_off_is_text_word_for_word(sample_codec: MakeCodec) -> None:
    text = "<tool_call>\n<function=look>\n<parameter=at>\nx\n</parameter>\nwait, no"
    assert of(sample_codec("qwen3_coder"), text) == (Text(text),)


def test_what_follows_the_last_whole_call_of_a_section_is_text(sample_codec: MakeCodec) -> None:
    whole = '[{"name": "look", "arguments": {"at": "x"}}, {"name": "jump", "argum'
    call, rest = of(sample_codec("mistral_list"), f"[TOOL_CALLS]{whole}")
    assert call == ToolCall("id0", "look", '{"at": "x"}')
    assert rest == Text(', {"name": "jump", "argum')


@pytest.mark.parametrize("between", ["", "\n", " \n  "])
def test_blanks_may_stand_between_tags(sample_codec: MakeCodec, between: str) -> None:
    parts = ("look", "<arg_key>at</arg_key>", "<arg_value>x y</arg_value>", "</tool_call>")
    text = "<tool_call>" + between.join(parts)
    assert of(sample_codec("glm_4"), text) == (ToolCall("id0", "look", '{"at": "x y"}'),)


def test_reasoning_is_told_as_it_comes(sample_codec: MakeCodec) -> None:
    codec = sample_codec("harmony")
    p = parser(codec)
    ids = codec.encode("<|channel|>analysis<|message|>first I")
    assert any(isinstance(e, ReasoningDelta) for i in ids for e in p.feed(Token(i)))
