"""What is far too long is refused before it is read, and what is remembered is bounded in bytes."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from talk import Talk, said, system, user

from everwarm.errors import RequestError
from everwarm.messages import Message, Text
from everwarm.prompt.built_prompt import BuiltPrompts
from everwarm.prompt.encoder import TextEncoder
from everwarm.prompt.length import Length
from everwarm.prompt.raw_prompt import count_tokens, raw_prompt
from everwarm.prompt.render import Renderer
from everwarm.request import Request, Tool
from everwarm.text.text_codec import TextCodec

CONTEXT = 1024
WORDS = "hello world, some words of a file \n def f(x): return x\n"


class Counting:
    """Passes everything on; counts characters that are tokenized, and renderings."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec, self.encoded, self.rendered = codec, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def encode(self, text: str) -> list[int]:
        self.encoded += len(text)
        return self._codec.encode(text)

    def render(self, *args: Any, **more: Any) -> str:
        self.rendered += 1
        return self._codec.render(*args, **more)


def request_of(text: str) -> Request:
    return Request(None, (user(text),))


@pytest.mark.parametrize("n", [200_000, 20_000_000])
def test_a_text_far_over_the_context_is_refused_before_it_is_tokenized_or_rendered(
    plain: TextCodec, n: int
) -> None:
    codec = Counting(plain)
    renderer = Renderer(codec, context_length=CONTEXT)  # type: ignore[arg-type]
    codec.encoded = codec.rendered = 0
    with pytest.raises(RequestError, match=r"more than [\d,]+ tokens; this model reads 1,024") as e:
        renderer.prompt(request_of(WORDS * (n // len(WORDS))))
    assert e.value.code == "context_length_exceeded"
    assert codec.rendered == 0
    assert codec.encoded <= 2 * 2**16


def test_calls_tools_and_raw_prompts_count_too(plain: TextCodec) -> None:
    length, text = Length(plain, CONTEXT), WORDS * 1000
    length.check_request(request_of("short"))
    tool = Tool("look", "", {"type": "object", "description": text})
    for request in (
        Request(None, (user("a"),), (tool,)),
        request_of(text),
    ):
        with pytest.raises(RequestError, match="Shorten it"):
            length.check_request(request)
    with pytest.raises(RequestError, match="Shorten it") as e:
        raw_prompt(plain, text, 50_000, length)
    assert e.value.param == "prompt"


def test_a_long_text_of_few_tokens_is_not_refused(plain: TextCodec) -> None:
    blanks = " " * (12 * CONTEXT)
    assert len(plain.encode(blanks)) < CONTEXT
    Length(plain, CONTEXT).check([blanks])


def test_a_conversation_is_counted_beyond_the_context_but_not_without_end(
    plain: TextCodec,
) -> None:
    splicer = Renderer(plain).splicer
    length = Length(plain, CONTEXT)
    assert count_tokens(plain, request_of(WORDS * 120), splicer, length) > CONTEXT
    with pytest.raises(RequestError, match="Shorten it"):
        count_tokens(plain, request_of(WORDS * 4000), splicer, length)


def test_a_stream_is_decoded_while_a_long_text_is_tokenized(plain: TextCodec) -> None:
    over, decoded = threading.Event(), 0
    detokenizer = plain.detokenizer()

    def encode() -> None:
        plain.encode(WORDS * 20_000)
        over.set()

    thread = threading.Thread(target=encode)
    thread.start()
    while not over.is_set():
        detokenizer.add(28)
        decoded += 1
    thread.join()
    assert decoded > 1000


def test_known_pieces_are_bounded_in_bytes(plain: TextCodec) -> None:
    pieces = TextEncoder(plain, max_bytes=100_000)
    for n in range(50):
        text = f"<|im_start|>user\n{n} {'word ' * 1000}<|im_end|>\n"
        assert list(pieces.encode(text).tokens) == plain.encode(text)
        assert pieces.nbytes <= 100_000
    pieces.encode("<|im_start|>" + "word " * 50_000)
    assert pieces.nbytes <= 100_000


def test_what_a_client_sends_again_is_held_once(plain: TextCodec) -> None:
    renderer = Renderer(plain)
    talk = Talk(renderer, plain, messages=[system("Be brief.")])
    for n in range(20):
        talk.turn(f"question {n}", f"answer {n}")
        talk.messages = [_fresh(m) for m in talk.messages]
    talk.messages.append(user("bye"))
    talk.ask()
    held = {id(m) for asked in renderer._built for m in asked.history.messages}
    # A reply and the last question of a turn are new objects once, when they come back first.
    assert len(held) <= 2 * len(talk.messages)
    assert renderer._built.n_chars <= 2 * sum(len(m.text) for m in talk.messages)


def test_histories_are_bounded_in_characters(plain: TextCodec) -> None:
    renderer, held = Renderer(plain), BuiltPrompts(max_chars=10_000)
    for n in range(20):
        renderer.prompt(Request(None, (user(f"{n} " + "x" * 3000), said("a"), user("b"))))
        held.put(next(a for a in renderer._built if a.history.messages[0].text.startswith(f"{n} ")))
        assert held.n_chars <= 10_000
    for asked in held:
        held.drop(asked.history.head)
    assert held.n_chars == 0


def _fresh(message: Message) -> Message:
    return Message(message.role, tuple(Text("".join([*p.text])) for p in message.parts))  # type: ignore[union-attr]
