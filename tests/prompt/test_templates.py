"""Whatever a template and a client do to past replies: nothing is read twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from prompt_templates import (
    COUNTS_CALLS,
    NO_END_OF_TURN,
    ONE_CALL_AND_DATE,
    PROVED,
    REPEATS_REPLIES,
    STRICT,
)
from talk import CLIENT_NAMES, CLIENTS, Talk, look, result, said, system, user

from everwarm.codec import Codec
from everwarm.messages import Message
from everwarm.prompt.render import Renderer

MakeCodec = Callable[..., Codec]


def make(codec: MakeCodec, template: str) -> Codec:
    roles = template == NO_END_OF_TURN
    return codec(template, ends=("<|user|>", "<|observation|>") if roles else ())


def hold(
    talk: Talk, client: Callable[[Message], Message], *, parallel: bool = True, mode: str = ""
) -> None:
    """Three user turns with reasoning, (parallel) calls and results, as one client sends them."""
    n = 0
    for text in ("first", "second", "third"):
        talk.messages.append(user(f"the {text} question"))
        for n_calls in (2 if parallel else 1, 1, 0):
            prompt = talk.ask(client, history=mode or None)
            calls = [look(f"call_{n}_{i}x", b=n, at=f'é "{i}"') for i in range(n_calls)]
            answer = "" if n_calls else f"  answer {n}\n"
            thought = f"hm {n}"
            written = ("" if prompt.opens_reasoning else "<think>\n") + f"{thought}\n</think>\n\n"
            written += answer + "\n".join(
                f'<tool_call>{{"name":"look",  "arguments": {c.arguments} }}</tool_call>'
                for c in calls
            )
            # Not how the tokenizer would cut it: a model may.
            ids = [i for word in written.split(" ") for i in talk.codec.encode(word + " ")]
            talk.answer(prompt, ids, said(answer, *calls, thought=thought))
            talk.messages += [result(c, f"seen {n} {c.id[-2]}") for c in calls]
            n += 1


@pytest.mark.parametrize("client", CLIENTS, ids=CLIENT_NAMES)
@pytest.mark.parametrize("name", PROVED)
def test_nothing_is_read_twice(
    codec: MakeCodec, name: str, client: Callable[[Message], Message]
) -> None:
    made = make(codec, PROVED[name])
    talk = Talk(Renderer(made), made, messages=[system("Be brief.")])
    hold(talk, client, parallel=PROVED[name] != ONE_CALL_AND_DATE)
    assert talk.renderer.proof.reason == ""
    assert talk.reprocessed == 1.0


@pytest.mark.parametrize("name", PROVED)
def test_what_follows_a_reply_holds_the_new_messages_and_nothing_else(
    codec: MakeCodec, name: str
) -> None:
    made = make(codec, PROVED[name])
    talk = Talk(Renderer(made), made)
    prompt = talk.turn("apples?", "yes")
    before = len(talk.read)
    talk.turn("pears?", "no")
    tail = made.decode(talk.read[before:])
    assert "pears?" in tail
    assert not any(word in tail for word in ("apples?", "yes"))
    assert len(prompt.tokens) + len(made.encode("yes")) == before


def test_the_template_mode_reads_again_what_the_template_rewrites(codec: MakeCodec) -> None:
    made = make(codec, PROVED["drops_reasoning"])
    talk = Talk(Renderer(made), made)
    hold(talk, CLIENTS[0], mode="template")
    assert talk.reprocessed > 1.2


def test_a_template_that_cannot_be_proved_is_used_as_it_is(codec: MakeCodec) -> None:
    made = make(codec, REPEATS_REPLIES)
    renderer = Renderer(made)
    assert "texts" not in renderer.proof.proved
    assert "the end of a reply cannot be found" in renderer.proof.reason
    talk = Talk(renderer, made)
    talk.turn("one", "first answer")
    talk.messages.append(user("two"))
    dicts = [{"role": m.role, "content": m.text} for m in talk.messages]
    tools = [
        {"type": "function", "function": {"name": "look", "description": "Looks.",
         "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}
    ]  # fmt: skip
    text = made.render(dicts, tools, scaffold=True, args={})
    assert list(talk.ask().tokens) == made.encode(text)


def test_a_template_that_counts_is_never_shown_a_shortened_history(codec: MakeCodec) -> None:
    assert not Renderer(make(codec, COUNTS_CALLS)).splicer.short
    assert Renderer(make(codec, STRICT)).splicer.short


@pytest.mark.parametrize("name", ["strict", "counts_calls"])
def test_a_system_message_in_the_middle_stays_there(codec: MakeCodec, name: str) -> None:
    made = make(codec, PROVED[name])
    talk = Talk(Renderer(made), made, messages=[system("s-one")])
    talk.turn("u-one", "a-one")
    talk.messages += [system("s-two"), user("u-two")]
    words = ("s-one", "u-one", "a-one", "s-two", "u-two")
    text = made.decode(talk.ask().tokens)
    places = [text.index(w) for w in words]
    assert places == sorted(places)
    assert talk.reprocessed == 1.0
    whole = Renderer(made, history="template").prompt(_request(talk))
    places = [made.decode(whole.tokens).index(w) for w in words]
    assert places == sorted(places)


def test_two_user_messages_in_a_row_are_one_where_roles_alternate(codec: MakeCodec) -> None:
    made = make(codec, STRICT)
    talk = Talk(Renderer(made), made, messages=[user("first half")])
    first = talk.ask()
    talk.messages.append(user("second half"))
    second = talk.ask()
    text = made.decode(second.tokens)
    assert "first half\n\nsecond half" in text
    upto = made.encode(made.decode(first.tokens).split("<|im_end|>")[0])
    assert list(second.tokens[: len(upto)]) == upto


def test_a_user_may_break_into_a_tool_loop_where_roles_alternate(codec: MakeCodec) -> None:
    made = make(codec, STRICT)
    call = look("callabc", at="here")
    talk = Talk(Renderer(made), made)
    talk.messages += [user("go"), said("", call), result(call, "seen"), user("stop that")]
    assert "stop that" in made.decode(talk.ask().tokens)


def test_tools_are_written_once_where_the_template_moves_them(codec: MakeCodec) -> None:
    made = make(codec, STRICT)
    talk = Talk(Renderer(made), made)
    for n in range(3):
        prompt = talk.turn(f"question {n}", f"answer {n}")
    text = made.decode(prompt.tokens)
    assert text.count("<|tools|>") == 1
    assert text.index("<|tools|>") < text.index("question 0")


def test_two_replies_in_a_row_are_one_where_roles_alternate(codec: MakeCodec) -> None:
    made = make(codec, STRICT)
    call = look("callabc", at="here")
    talk = Talk(Renderer(made), made)
    talk.messages += [user("go"), said("I will"), said("", call), result(call, "seen")]
    talk.messages += [said("done"), user("good")]
    text = made.decode(talk.ask().tokens)
    places = [text.index(w) for w in ("go", "I will", "here", "seen", "done", "good")]
    assert places == sorted(places)


def test_parallel_calls_of_another_model_are_shown_one_by_one(codec: MakeCodec) -> None:
    made = make(codec, ONE_CALL_AND_DATE)
    a, b = look("calla", at="x-one"), look("callb", at="x-two")
    talk = Talk(Renderer(made), made)
    talk.messages += [user("go"), said("", a, b), result(a, "r-one"), result(b, "r-two")]
    text = made.decode(talk.ask().tokens)
    places = [text.index(w) for w in ("x-one", "r-one", "x-two", "r-two")]
    assert places == sorted(places)


def test_midnight_does_not_change_a_conversation_but_a_new_one_has_the_new_date(
    codec: MakeCodec,
) -> None:
    made = make(codec, ONE_CALL_AND_DATE)
    days = [datetime(2026, 11, 24, 23, 59)]
    talk = Talk(Renderer(made, clock=lambda: days[-1]), made)
    talk.turn("hello", "hi")
    days.append(datetime(2026, 11, 25, 0, 1))
    talk.turn("still there?", "yes")
    assert talk.reprocessed == 1.0
    edited = Talk(talk.renderer, made, messages=[user("hello"), said("hi, you"), user("more")])
    assert "2026-11-24" in made.decode(edited.ask().tokens)
    fresh = Talk(talk.renderer, made, messages=[user("hello")])
    assert "2026-11-25" in made.decode(fresh.ask().tokens)


def _request(talk: Talk):  # type: ignore[no-untyped-def]
    from everwarm.request import Request

    return Request(None, tuple(talk.messages), talk.tools)
