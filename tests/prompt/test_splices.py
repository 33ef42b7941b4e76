"""A reply comes back into its own conversation only, and a renderer that mixes them up is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from everwarm.messages import Message, Text
from everwarm.prompt.render import Renderer
from everwarm.request import Request
from everwarm.text.text_codec import TextCodec
from everwarm.tokens import Prompt, Tokens, tokens_of

TURNS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["go on", "stop"]), st.sampled_from("abc")),
    min_size=4,
    max_size=12,
)
MANY = settings(
    max_examples=40,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class IgnoresTheParent(Renderer):
    """Remembers a reply for every prompt it made, as if its key were only what was said."""

    _made: tuple[Prompt, ...] = ()

    def prompt(self, request: Request) -> Prompt:
        made = super().prompt(request)
        self._made = (*self._made, made)
        return made

    def remember(self, prompt: Prompt, reply_ids: Sequence[int], reply: Message) -> None:
        for other in (*self._made, prompt):
            super().remember(other, reply_ids, reply)


def talk(renderer: Renderer, codec: TextCodec, turns: list[tuple[int, str, str]]) -> None:
    """Three conversations, turn by turn. All say the same; only what the model thought differs."""
    messages: list[list[Message]] = [[], [], []]
    read: list[Tokens[int]] = [tokens_of()] * 3
    for which, text, thought in turns:
        content = text if messages[which] else f"hello from {which}"
        messages[which].append(Message("user", (Text(content),)))
        prompt = renderer.prompt(Request(None, tuple(messages[which])))
        before = read[which]
        assert prompt.tokens[: len(before)] == before, "what the model read is not what it reads"
        reply_ids = codec.encode(f"{thought * 5}{which}\n</think>Fine.")
        reply = Message("assistant", (Text("Fine."),))
        renderer.remember(prompt, reply_ids, reply)
        messages[which].append(reply)
        read[which] = prompt.tokens + tokens_of(reply_ids)


def test_a_reply_comes_back_where_it_was_said(forgetful: TextCodec) -> None:
    @seed(0)
    @MANY
    @given(TURNS)
    def check(turns: list[tuple[int, str, str]]) -> None:
        talk(Renderer(forgetful), forgetful, turns)

    check()


def test_a_reply_spliced_into_the_wrong_conversation_is_found(forgetful: TextCodec) -> None:
    @seed(0)
    @MANY
    @given(TURNS)
    def check(turns: list[tuple[int, str, str]]) -> None:
        talk(IgnoresTheParent(forgetful), forgetful, turns)

    with pytest.raises(AssertionError, match="is not what it reads"):
        check()
