"""Calls by grammar in every dialect: what the families write is allowed, and nothing else ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from dialect_samples import SAMPLES
from notations import NOTATIONS
from random_writer import WIDTH, Writer

from everwarm.engine.compiled_grammar import Grammars
from everwarm.errors import RequestError
from everwarm.job import Token
from everwarm.messages import Message, Text
from everwarm.prompt.dialects import families
from everwarm.prompt.grammars.reply_grammar import Wanted, wanted
from everwarm.prompt.parse import ReplyParser
from everwarm.request import Request, Tool
from everwarm.text.text_codec import TextCodec

MakeCodec = Callable[[str], TextCodec]
LOOK = Tool(
    "look",
    "Looks.",
    {"type": "object", "properties": {"at": {"type": "string"}, "b": {"type": "object"}}},
)
PICK = Tool(
    "pick",
    "Picks.",
    {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["lake", "sea"]},
            "n": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["kind", "n"],
        "additionalProperties": False,
    },
)


def asked(
    codec: TextCodec, *tools: Tool, parallel: bool = True, choice: str = "required"
) -> Wanted:
    request = Request(
        None,
        (Message("user", (Text("u"),)),),
        tools,
        tool_choice=choice,  # type: ignore[arg-type]
        parallel_calls=parallel,
    )
    found = wanted(codec, families.of(codec), request, may_call=True, thinks=True)
    assert found is not None
    return found


def names() -> list[str]:
    return [n for n, s in SAMPLES.items() if s.n_calls]


@pytest.mark.parametrize("name", names())
def test_what_the_family_writes_is_allowed(sample_codec: MakeCodec, name: str) -> None:
    sample, codec = SAMPLES[name], sample_codec(name)
    opens = families.of(codec).calls[0].open
    if opens not in sample.reply or name == "harmony_recipient_first":
        pytest.skip("written in the family's second way, which is only read")
    calls = sample.reply[sample.reply.index(opens) if opens else 0 :]
    grammars = Grammars(codec._tokenizer, WIDTH, codec.eos_ids)
    matcher = grammars.matcher(asked(codec, LOOK).grammar.reply)
    for token in codec.encode(calls):
        assert np.array(matcher.mask(WIDTH))[token], codec.decode([token])
        matcher.take(token)
    assert np.array(matcher.mask(WIDTH))[min(codec.eos_ids)]


@pytest.mark.parametrize("name", names())
def test_what_random_logits_end_is_a_call_of_the_schema(sample_codec: MakeCodec, name: str) -> None:
    codec = sample_codec(name)
    grammars = Grammars(codec._tokenizer, WIDTH, codec.eos_ids)
    writer = Writer(codec, grammars, blanks=-8.0)  # else few would not begin one more call
    grammar = asked(codec, PICK).grammar.answer.replace("start: /[ \\t\\r\\n]{0,8}/", "start:")
    finished = 0
    for seed in range(60):
        ids = writer.say(grammar, seed)
        if ids is None:
            continue
        finished += 1
        number = count()
        parser = ReplyParser(
            codec,
            tools=(PICK,),
            tools_allowed=True,
            opens_reasoning=False,
            stop=(),
            new_call_id=lambda number=number: f"id{next(number)}",  # type: ignore[misc]
        )
        for i in ids:
            parser.feed(Token(i))
        parser.finish()
        calls = parser.message.tool_calls
        assert calls and not parser.message.text.strip(), codec.decode(ids)
        for call in calls:
            value = json.loads(call.arguments)
            assert call.name == "pick"
            assert value["kind"] in ("lake", "sea") and 0 <= value["n"] <= 99, codec.decode(ids)
    assert finished >= 3


ODD = ["tags in tags", "typed tags between words", "name as the key", "python calls on lines"]


@pytest.mark.parametrize("name", ODD)
def test_a_derived_notation_holds_a_call_as_its_template_writes_it(
    marked_codec: Callable[..., TextCodec], name: str
) -> None:
    marks = ["<|open|>", "<|close|>", "<|sep|>", "<tool_call>", "</tool_call>", "<|tools_prefix|>"]
    codec = marked_codec(NOTATIONS[name], marks)
    tool = Tool("look", "", {"type": "object", "properties": {
        "at": {"type": "string"}, "n": {"type": "integer"},
        "l": {"type": "array", "items": {"type": "string"}},
    }, "required": ["at"]})  # fmt: skip
    given = {"at": "here", "n": 7, "l": ["a", "b"]}
    function = {"name": "look", "arguments": given}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": function}]},
    ]
    text = codec.render(messages, None, scaffold=False, args={})
    opens = families.of(codec).calls[0].open
    reply = text[text.index(opens) :].rstrip().removesuffix("<|im_end|>")
    reply = reply.removesuffix("<|close|>message<|sep|>")
    matcher = Grammars(codec._tokenizer, WIDTH, codec.eos_ids).matcher(
        asked(codec, tool).grammar.reply
    )
    for token in codec.encode(reply):
        matcher.take(token)
    assert np.array(matcher.mask(WIDTH))[min(codec.eos_ids)]


def test_arguments_stand_on_one_line(sample_codec: MakeCodec) -> None:
    codec = sample_codec("json_tools")
    matcher = Grammars(codec._tokenizer, WIDTH, codec.eos_ids).matcher(
        asked(codec, PICK).grammar.reply
    )
    for token in codec.encode('<tool_call>\n{"name": "pick", "arguments": {'):
        matcher.take(token)
    allowed = np.array(matcher.mask(WIDTH))
    assert {codec.decode([int(i)])[:1] for i in np.flatnonzero(allowed)} == {'"'}


def test_one_call_is_one_where_parallel_ones_are_refused(sample_codec: MakeCodec) -> None:
    codec = sample_codec("json_tools")
    grammars = Grammars(codec._tokenizer, WIDTH, codec.eos_ids)
    one = '<tool_call>\n{"name": "pick", "arguments": {"kind": "sea", "n": 1}}\n</tool_call>'
    for parallel in (True, False):
        for choice, lead in (("required", ""), ("auto", "I pick. ")):
            if parallel and choice == "auto":
                continue
            grammar = asked(codec, PICK, parallel=parallel, choice=choice).grammar.reply
            matcher = grammars.matcher(grammar)
            for token in codec.encode(lead + one):
                matcher.take(token)
            (more,) = codec.encode("\n")
            assert np.array(matcher.mask(WIDTH))[more] == parallel


def test_a_notation_without_a_grammar_is_refused_by_name(muted_codec: MakeCodec) -> None:
    with pytest.raises(RequestError) as refused:
        asked(muted_codec("minicpm_5"), PICK)
    assert refused.value.param == "tool_choice"
