"""What is remembered of many conversations: which of them make way for which."""

from __future__ import annotations

from collections.abc import Callable

from prompt_templates import DROPS_REASONING
from talk import Talk, drops_reasoning, said, system, user

from everwarm.codec import Codec
from everwarm.prompt.render import Renderer


def test_requests_without_an_answer_take_no_place_from_a_conversation(
    codec: Callable[..., Codec],
) -> None:
    made = codec(DROPS_REASONING)
    renderer = Renderer(made)
    talk = Talk(renderer, made, (), [user("hello")])
    prompt = talk.ask()
    talk.answer(prompt, made.encode("hm\n</think>\n\nSure."), said("Sure.", thought="hm"))
    for n in range(300):
        Talk(renderer, made, (), [user(f"never answered {n}")]).ask()
    talk.messages.append(user("more"))
    prompt = talk.ask(drops_reasoning)
    assert list(prompt.tokens)[: len(talk.read)] == list(talk.read)


def test_many_system_prompts_over_one_message_each_count_what_is_new(plain: Codec) -> None:
    renderer = Renderer(plain)
    talks = [Talk(renderer, plain, (), [system(f"Be {n}."), user("hello")]) for n in range(20)]
    for n, talk in enumerate(talks):
        talk.answer(talk.ask(), plain.encode(f"hi {n}"), said(f"hi {n}"))
    first = talks[0]
    del first.messages[2:]
    first.messages.append(user("and again"))
    prompt = first.ask()
    assert 0 < prompt.new_tokens < len(prompt.tokens) / 2
