"""In every dialect, what the model wrote stays as it wrote it, and nothing is read twice."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from dialect_samples import SAMPLES
from talk import CLIENT_NAMES, CLIENTS, Talk, result, system, user

from everwarm.job import Token
from everwarm.messages import Message
from everwarm.prompt.dialects import families
from everwarm.prompt.parse import ReplyParser
from everwarm.prompt.render import Renderer
from everwarm.text.text_codec import TextCodec
from everwarm.tokens import Prompt

MakeCodec = Callable[[str], TextCodec]


def answer(talk: Talk, codec: TextCodec, prompt: Prompt, written: str) -> Message:
    """The model writes this, where the scaffold may have opened its reasoning."""
    think = families.of(codec).reasoning
    if prompt.opens_reasoning and think:
        begun = written.startswith(think[0])
        written = written.removeprefix(think[0]) if begun else f"so{think[1]}{written}"
    parser = ReplyParser(
        codec, tools=talk.tools, tools_allowed=True, opens_reasoning=prompt.opens_reasoning,
        stop=(), new_call_id=lambda: "call" + secrets.token_hex(12),
    )  # fmt: skip
    # Not how the tokenizer would cut it: a model may.
    ids = [i for word in written.split(" ") for i in codec.encode(word + " ")]
    for i in ids:
        parser.feed(Token(i))
    parser.finish()
    talk.answer(prompt, ids, parser.message)
    return parser.message


def hold(talk: Talk, codec: TextCodec, name: str, client: Callable[[Message], Message]) -> None:
    """Three user turns, each with calls, their results and an answer."""
    opens, closes = families.of(codec).text
    for text in ("first", "second", "third"):
        talk.messages.append(user(f"the {text} question of {client}"))
        message = answer(talk, codec, talk.ask(client), SAMPLES[name].reply)
        assert len(message.tool_calls) == SAMPLES[name].n_calls
        talk.messages += [result(c, f"seen {i}") for i, c in enumerate(message.tool_calls)]
        answer(talk, codec, talk.ask(client), f"{opens}the {text} answer{closes}")
    talk.messages.append(user("goodbye"))
    talk.ask(client)


@pytest.mark.parametrize("name", SAMPLES)
def test_replies_in_any_dialect_are_never_read_twice(sample_codec: MakeCodec, name: str) -> None:
    codec = sample_codec(name)
    renderer = Renderer(codec)
    assert renderer.proof.reason == ""
    for client in CLIENTS:
        talk = Talk(renderer, codec, messages=[system("Be brief.")])
        hold(talk, codec, name, client)
        assert talk.reprocessed == 1.0, CLIENT_NAMES[CLIENTS.index(client)]


@pytest.mark.parametrize("name", [n for n in SAMPLES if SAMPLES[n].carried])
@pytest.mark.parametrize("client", CLIENTS, ids=CLIENT_NAMES)
def test_a_result_names_the_call_as_the_model_did(
    sample_codec: MakeCodec, name: str, client: Callable[[Message], Message]
) -> None:
    codec = sample_codec(name)
    talk = Talk(Renderer(codec), codec, messages=[user("look")])
    message = answer(talk, codec, talk.ask(client), SAMPLES[name].reply)
    ids = [c.id for c in message.tool_calls]
    assert len(set(ids)) == len(ids) and all(i.isalnum() for i in ids)
    talk.messages += [result(c, "seen") for c in message.tool_calls]
    before = len(talk.read)
    behind = codec.decode(talk.ask(client).tokens[before:])
    assert all(behind.count(own) == 1 for own in SAMPLES[name].carried)
    unknown = Talk(Renderer(codec), codec, messages=list(talk.messages))
    text = codec.decode(unknown.ask(client).tokens)
    assert all(text.count(own) == 2 for own in SAMPLES[name].carried)
