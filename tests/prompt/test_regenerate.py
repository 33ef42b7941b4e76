"""A prompt that is asked again is read from next to its end, in any template and cache family."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from prompt_templates import NO_CONTROL_TOKENS
from talk import Talk, look, result, said, system, user

from everwarm.cache.cache import Cache
from everwarm.errors import RequestError
from everwarm.messages import Message
from everwarm.prompt.marks import NEAR_END
from everwarm.prompt.raw_prompt import raw_prompt
from everwarm.prompt.render import Renderer
from everwarm.testing import ORACLES, OracleRun, OracleState
from everwarm.text.text_codec import TextCodec
from everwarm.tokens import Prompt

LONG = " ".join(f"{n}, and" for n in range(200))
CALL = look("callabc12", at="here")
WORK = [user("go"), said("", CALL), result(CALL, json.dumps({"seen": LONG}))]
TALKS: dict[str, list[Message]] = {
    "first": [user(LONG)],
    "later": [user("hello"), said("hi"), user(LONG)],
    "work": WORK,
    "behind": [*WORK, said("done"), user(LONG)],
    "led": [system("Be brief."), user(LONG)],
}


def read(cache: Cache, prompt: Prompt) -> int:
    """How many of the prompt's tokens the oracle reads, before it writes a few."""
    run = OracleRun(cache, prompt.tokens, prompt.marks, chunk=64)
    while not run.over:
        run.step()
    return run.prefilled


def caches() -> dict[str, Cache]:
    def new(name: str) -> Cache:
        return Cache(lambda: OracleState(ORACLES[name]), budget=1 << 30)

    return {name: new(name) for name in ORACLES}


@pytest.mark.parametrize("more", [" One more.", "\n\nOne more.", "s", "."])
def test_a_longer_last_message_is_read_from_where_it_grew(plain: TextCodec, more: str) -> None:
    renderer, held = Renderer(plain), caches()
    asked = [user("hello"), said("hi"), user(LONG)]
    first = Talk(renderer, plain, messages=asked).ask()
    grown = Talk(renderer, plain, messages=[*asked[:2], user(LONG + more)]).ask()
    added = len(grown.tokens) - len(first.tokens)
    for family, cache in held.items():
        read(cache, first)
        assert read(cache, grown) <= added + NEAR_END + 1, family


def test_a_prompt_asked_again_is_read_from_next_to_its_end(any_codec: TextCodec) -> None:
    renderer, held = Renderer(any_codec), caches()
    for name, messages in TALKS.items():
        talk = Talk(renderer, any_codec, messages=messages)
        try:
            prompt = talk.ask()
        except RequestError:  # a template may refuse a system prompt, or tools
            assert name in ("led", "work", "behind")
            continue
        assert len(prompt.tokens) > 400
        for family, cache in held.items():
            assert read(cache, prompt) > 300, "the oracle knew what nobody had asked"
            for sibling in range(3):
                assert read(cache, talk.ask()) <= NEAR_END, (name, family, sibling)


def test_a_reply_is_asked_for_again_when_the_conversation_has_gone_on(
    any_codec: TextCodec,
) -> None:
    renderer = Renderer(any_codec)
    for family, cache in caches().items():
        talk = Talk(renderer, any_codec, messages=[user("hello"), said("hi"), user(LONG)])
        asked = talk.ask()
        read(cache, asked)
        talk.answer(asked, any_codec.encode("yes"), said("yes"))
        talk.messages.append(user("more"))
        read(cache, talk.ask())
        del talk.messages[3:]
        assert talk.ask().tokens == asked.tokens
        assert read(cache, talk.ask()) <= NEAR_END, family


def test_a_raw_prompt_asked_again_is_read_from_next_to_its_end(plain: TextCodec) -> None:
    prompt = raw_prompt(plain, LONG, 100_000)
    for family, cache in caches().items():
        assert read(cache, prompt) == len(prompt.tokens)
        assert read(cache, prompt) <= NEAR_END, family
    one = raw_prompt(plain, (5,), 100_000)
    assert one.marks == () and read(cache, one) == 1


@pytest.mark.parametrize("thinks", [True, False])
def test_behind_a_long_scaffold_both_its_ends_are_marked(codec: object, thinks: bool) -> None:
    made = codec(  # type: ignore[operator]
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\nThe model does"
        "{{ '' if enable_thinking else ' not' }} think before it answers this.{% endif %}"
    )
    renderer, cache = Renderer(made), caches()["hybrid"]
    talk = Talk(renderer, made, tools=(), messages=[user(LONG)])
    first = talk.ask(template_args={"enable_thinking": thinks})
    read(cache, first)
    end, last = (m.at for m in first.marks if m.kind == "prompt")
    assert made.decode(first.tokens[end:]).startswith("<|im_start|>assistant")
    assert last == len(first.tokens) - 1 > end + NEAR_END
    other = talk.ask(template_args={"enable_thinking": not thinks})
    assert read(cache, other) == len(other.tokens) - end


@pytest.mark.parametrize("template", [NO_CONTROL_TOKENS, "<|im_start|>" + NO_CONTROL_TOKENS])
def test_messages_are_marked_where_they_begin_without_control_tokens_before_them(
    marked_codec: Callable[[str, list[str]], TextCodec], template: str
) -> None:
    made = marked_codec(template, [])
    renderer, cache = Renderer(made), caches()["recurrent"]
    talk = Talk(
        renderer, made, tools=(), messages=[system(LONG), user("one"), said("a"), user("two")]
    )
    first = talk.ask()
    read(cache, first)
    begins = {m.kind: made.decode(first.tokens[: m.at]) for m in first.marks}
    assert begins["system"].endswith(f"{LONG}\n\nUser:")
    assert begins["user"].endswith("one\n\nAssistant: a\n\nUser:")
    talk.messages[-1:] = [user("another question")]
    other = talk.ask()
    assert read(cache, other) < 12
    talk.messages[1:] = [user("a new conversation")]
    assert read(cache, talk.ask()) < 12
