"""Histories that clients changed: what the model said is kept wherever that is certain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from prompt_templates import DROPS_REASONING, PROVED
from talk import TOOLS, Talk, drops_reasoning, look, result, said, strips_ids, system, user

from everwarm.codec import Codec
from everwarm.job import Token
from everwarm.messages import Message, Text
from everwarm.prompt.parse import ReplyParser
from everwarm.prompt.render import Renderer
from everwarm.request import Request
from everwarm.tokens import Prompt, Tokens


@pytest.fixture
def talk(codec: Callable[..., Codec]) -> Talk:
    made = codec(DROPS_REASONING)
    return Talk(Renderer(made), made)


def think(talk: Talk, text: str, answer: str, thought: str = "") -> tuple[Prompt, list[int]]:
    """A turn whose answer was thought about; gives its tokens."""
    talk.messages.append(user(text))
    prompt = talk.ask(drops_reasoning)
    thought = thought or f"I think about {answer}"
    ids = talk.codec.encode(f"{thought}\n</think>\n\n{answer}")
    talk.answer(prompt, ids, said(answer, thought=thought))
    return prompt, ids


def holds(tokens: Tokens[int], ids: Sequence[int]) -> bool:
    return any(list(tokens[i : i + len(ids)]) == list(ids) for i in range(len(tokens)))


def test_replies_behind_an_edited_message_keep_their_reasoning(talk: Talk) -> None:
    said_ids = [think(talk, f"question {n}", f"answer {n}")[1] for n in range(4)]
    talk.messages[2] = user("another question 1")
    talk.messages.append(user("and now?"))
    prompt = talk.ask(drops_reasoning)
    assert all(holds(prompt.tokens, ids) for ids in said_ids)
    assert prompt.new_tokens < 40
    talk.answer(prompt, talk.codec.encode("done"), said("done"))
    talk.messages.append(user("go on"))
    before = len(talk.read)
    after = talk.ask(drops_reasoning)
    assert list(after.tokens[:before]) == list(talk.read)


def test_replies_survive_another_system_prompt_and_other_tools(talk: Talk) -> None:
    talk.messages.append(system("Today is Monday."))
    _, ids = think(talk, "hello", "hi")
    talk.messages[0] = system("Today is Tuesday.")
    talk.messages.append(user("more"))
    talk.tools = ()
    assert holds(talk.ask(drops_reasoning, tool_choice="none").tokens, ids)
    talk.tools = (replace(TOOLS[0], description="Looks again."),)
    assert holds(talk.ask(drops_reasoning).tokens, ids)


def test_an_edited_reply_is_written_by_the_template(talk: Talk) -> None:
    _, ids = think(talk, "hello", "hi there")
    talk.messages[-1] = said("hi there, my friend")
    talk.messages.append(user("more"))
    prompt = talk.ask(drops_reasoning)
    assert not holds(prompt.tokens, ids)
    assert "hi there, my friend<|im_end|>" in talk.codec.decode(prompt.tokens)


def test_a_reply_that_may_be_one_of_two_is_written_by_the_template(talk: Talk) -> None:
    think(talk, "first", "ok", "one thought")
    think(talk, "second", "ok", "another thought")
    talk.messages = [user("first"), user("new"), said("ok"), user("more")]
    text = talk.codec.decode(talk.ask(drops_reasoning).tokens)
    assert "one thought" not in text and "another thought" not in text


def test_equal_replies_are_told_apart_by_the_message_before_them(talk: Talk) -> None:
    think(talk, "first", "ok", "one thought")
    think(talk, "second", "ok", "another thought")
    think(talk, "third", "fine")
    talk.messages = [system("New."), *talk.messages, user("more")]
    text = talk.codec.decode(talk.ask(drops_reasoning).tokens)
    assert text.index("one thought") < text.index("second") < text.index("another thought")


def test_replies_of_another_conversation_are_not_used(talk: Talk) -> None:
    think(talk, "hello", "hi")
    other = Talk(talk.renderer, talk.codec, messages=[user("good day"), said("hi"), user("more")])
    assert "I think about" not in talk.codec.decode(other.ask().tokens)


def test_replies_of_another_caller_are_not_used(talk: Talk) -> None:
    call = look("callsecret", at="x")
    talk.messages.append(user("go"))
    prompt = talk.ask()
    talk.answer(
        prompt, talk.codec.encode("secret</think><tool_call>{}</tool_call>"), said("", call)
    )
    talk.messages.append(result(call, "seen"))
    own, foreign = talk.ask(namespace=""), talk.ask(namespace="another key")
    assert "secret" in talk.codec.decode(own.tokens)
    assert "secret" not in talk.codec.decode(foreign.tokens)


def test_calls_are_found_behind_an_edited_message(talk: Talk) -> None:
    call = look("call_a1_b2", at="x")
    talk.messages.append(user("go"))
    prompt = talk.ask()
    ids = talk.codec.encode('why\n</think>\n\n<tool_call>{"name":"look" }</tool_call>')
    talk.answer(prompt, ids, said("", call, thought="why"))
    talk.messages = [user("go there"), *talk.messages[1:], result(call, "seen")]
    assert holds(talk.ask(strips_ids).tokens, ids)


@pytest.mark.parametrize("kept", [len("The answer is"), len("The answer is fortyt")])
def test_a_reply_that_the_client_cut_short_keeps_its_whole_tokens(talk: Talk, kept: int) -> None:
    answer = "The answer is fortytwo, of course."
    prompt, ids = think(talk, "what is it?", answer)
    talk.messages[-1] = said(answer[:kept])
    talk.messages.append(user("wait"))
    tokens = talk.ask(drops_reasoning).tokens
    n = 0
    while tokens[len(prompt.tokens) + n] == ids[n]:
        n += 1
    assert talk.codec.decode(ids[: n + 1]).split("</think>\n\n")[1] not in answer[:kept]
    text = talk.codec.decode(tokens)
    assert f"I think about {answer}\n</think>\n\n{answer[:kept]}<|im_end|>" in text


def test_a_call_that_the_client_cut_short_was_never_told_and_is_not_read_twice(talk: Talk) -> None:
    talk.messages.append(user("go"))
    prompt = talk.ask()
    begun = 'hm</think>\n\nI look.<tool_call>{"name": "look", "arguments": {"at": "th'
    parser = ReplyParser(
        talk.codec, tools=TOOLS, tools_allowed=True, opens_reasoning=True, stop=(),
        new_call_id=lambda: "callcut",
    )  # fmt: skip
    for i in talk.codec.encode(begun):
        parser.feed(Token(i))
    talk.answer(prompt, parser.ids, parser.message)
    assert parser.message == said("I look.", thought="hm")
    talk.messages.append(user("go on"))
    assert list(talk.ask(drops_reasoning).tokens[: len(talk.read)]) == list(talk.read)


def test_with_a_stop_text_the_tokens_end_before_it(talk: Talk) -> None:
    talk.messages.append(user("count"))
    prompt = talk.ask()
    parser = ReplyParser(
        talk.codec, tools=(), tools_allowed=False, opens_reasoning=True, stop=("three",),
        new_call_id=lambda: "x",
    )  # fmt: skip
    for i in talk.codec.encode("hm</think>one two three four"):
        parser.feed(Token(i))
    parser.finish()
    talk.answer(prompt, parser.ids, parser.message)
    talk.messages.append(user("go on"))
    before = len(talk.read)
    after = talk.ask(drops_reasoning)
    assert list(after.tokens[:before]) == list(talk.read)
    assert "three" not in talk.codec.decode(after.tokens)


def test_a_scaffold_comes_back_as_it_was(codec: Callable[..., Codec]) -> None:
    switch = "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"
    made = codec(
        DROPS_REASONING.replace(
            "<|im_start|>assistant\n<think>\n{%", f"<|im_start|>assistant\n{switch}{{%"
        )
    )
    talk = Talk(Renderer(made), made)
    for n, on in enumerate((True, False, True)):
        talk.messages.append(user(f"question {n}"))
        prompt = talk.ask(drops_reasoning, template_args={"enable_thinking": on})
        assert prompt.opens_reasoning == on
        thought = "hm\n</think>\n\n" if on else ""
        talk.answer(prompt, made.encode(f"{thought}answer {n}"), said(f"answer {n}"))
    assert talk.reprocessed == 1.0
    text = made.decode(talk.read)
    assert text.count("<think>\n\n</think>") == 1


@pytest.mark.parametrize("name", PROVED)
def test_without_tools_a_known_conversation_keeps_its_own(
    codec: Callable[..., Codec], name: str
) -> None:
    roles = ("<|user|>", "<|observation|>") if name == "no_end_of_turn" else ()
    made = codec(PROVED[name], ends=roles)
    talk = Talk(Renderer(made), made)
    talk.turn("hello", "hi")
    talk.messages.append(user("Summarise this."))
    talk.tools = ()
    prompt = talk.ask()
    assert prompt.kept_tools
    assert talk.reprocessed == 1.0
    fresh = Talk(talk.renderer, made, tools=(), messages=[user("hello")])
    assert not fresh.ask().kept_tools
    assert "look" not in made.decode(fresh.ask().tokens)


def test_a_request_may_ask_for_the_template(talk: Talk) -> None:
    think(talk, "hello", "hi")
    talk.messages.append(user("more"))
    request = Request(None, tuple(map(drops_reasoning, talk.messages)), TOOLS)
    words = talk.renderer.prompt(request)
    plain = talk.renderer.prompt(replace(request, history="template"))
    assert "I think about" in talk.codec.decode(words.tokens)
    assert "I think about" not in talk.codec.decode(plain.tokens)


def test_a_moving_marker_does_not_move_earlier_tokens(talk: Talk) -> None:
    def marked(n: int) -> Message:
        return system(f"<total_tokens>{n} tokens left</total_tokens>")

    for n in range(3):
        talk.messages += [user(f"question {n}"), marked(1000 - n)]
        prompt = talk.ask()
        assert f"{1000 - n} tokens left" in talk.codec.decode(prompt.tokens)
        talk.answer(prompt, talk.codec.encode(f"answer {n}"), said(f"answer {n}"))
        talk.messages.pop(-2)  # it moves on
    assert talk.reprocessed == 1.0


def test_a_marker_inside_a_message_moves_alone(talk: Talk) -> None:
    for n in range(3):
        talk.messages.append(
            Message(
                "user", (Text(f"question {n}"), Text(f"\n<total_tokens>{n} left</total_tokens>"))
            )
        )
        prompt = talk.ask()
        talk.answer(prompt, talk.codec.encode(f"answer {n}"), said(f"answer {n}"))
        talk.messages[-2] = user(f"question {n}")
    assert talk.reprocessed == 1.0
