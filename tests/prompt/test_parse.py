"""A reply's tokens to events: however they are cut, the same reply."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import count

import pytest
from growth import growth
from sample_replies import fold

from everwarm.events import CallDelta, CallEnd, CallStart, Event
from everwarm.job import Token
from everwarm.messages import Reasoning, Text, ToolCall
from everwarm.prompt.parse import ReplyParser
from everwarm.request import Tool
from everwarm.text.text_codec import TextCodec

TOOLS = (Tool("look"), Tool("jump"))
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "</tool_call> \\"é\\" {"}}\n</tool_call>'
REPLIES = [
    "plain text, 中文 and 🙂.",
    "<think>\nhm </thin\n</think>\n\nyes <thin>",
    f"<think>a</think>I look.\n{CALL}\n{CALL}\n\nDone.",
    'before \n <tool_call>{"name" "broken"}</tool_call> \n after',
    '<tool_call>{"arguments": {"a": [1, 2]}, "name": "jump"}</tool_call>',
    '<tool_call>{"name": "look", "arguments": {"a": 1</tool_call> after',
    f"cut {CALL[:40]}",
]


@pytest.fixture
def parser(plain: TextCodec) -> Callable[..., ReplyParser]:
    def make(*stop: str, allowed: bool = True, opens_reasoning: bool = False) -> ReplyParser:
        names = count()
        return ReplyParser(
            plain,
            tools=TOOLS,
            tools_allowed=allowed,
            opens_reasoning=opens_reasoning,
            stop=stop,
            new_call_id=lambda: f"id{next(names)}",
        )

    return make


def run(parser: ReplyParser, ids: Iterable[int]) -> list[Event]:
    events = [e for i in ids for e in parser.feed(Token(i))]
    return events + parser.finish()


def cut(codec: TextCodec, text: str, seed: int) -> list[int]:
    """Ids of a text cut at random places."""
    dice, ids = random.Random(seed), list[int]()
    while text:
        n = dice.choice([1, 2, 3, 7, 30])
        ids += codec.encode(text[:n])
        text = text[n:]
    return ids


@pytest.mark.parametrize("text", REPLIES)
@pytest.mark.parametrize("stop", [(), ("é",), ("t, 中", "x"), ("lookout", "ok")])
def test_a_reply_folds_the_same_however_it_is_cut(
    plain: TextCodec, parser: Callable[..., ReplyParser], text: str, stop: tuple[str, ...]
) -> None:
    whole = parser(*stop)
    expected = fold(run(whole, plain.encode(text)))
    assert expected == whole.message
    for seed in range(12):
        streamed = parser(*stop)
        assert fold(run(streamed, cut(plain, text, seed))) == expected == streamed.message
        assert streamed.stopped == whole.stopped


def test_text_reasoning_and_calls_are_told_apart(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    p = parser()
    run(p, plain.encode(f"<think>a</think>\n\nI look.\n{CALL}\n{CALL}"))
    arguments = '{"at": "</tool_call> \\"é\\" {"}'
    calls = [ToolCall(f"id{i}", "look", arguments) for i in range(2)]
    assert p.message.parts == (Reasoning("a"), Text("I look."), *calls)
    assert p.has_calls and p.n_reasoning == 2


def test_a_scaffold_may_have_opened_the_reasoning(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    p = parser(opens_reasoning=True)
    run(p, plain.encode("hm</think>\nyes"))
    assert p.message.parts == (Reasoning("hm"), Text("yes"))


def test_a_call_is_told_whole_as_soon_as_it_is_there(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    p = parser()
    begun = '<tool_call>{"name": "look", "arguments": {"at": "here"}'
    assert [e for i in plain.encode(begun) for e in p.feed(Token(i))] == []
    events = [e for i in plain.encode("}") for e in p.feed(Token(i))]
    assert events == [CallStart(0, "id0", "look"), CallDelta(0, '{"at": "here"}'), CallEnd(0)]


def test_a_long_call_is_read_in_time_that_grows_with_its_length(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    begin = plain.encode('<tool_call>{"name": "look", "arguments": {"at": "')
    word, end = plain.encode("word "), plain.encode('"}}</tool_call>')

    def work(n: int) -> None:
        p = parser()
        run(p, [*begin, *word * n, *end])
        assert p.message.tool_calls[0].arguments.count("word") == n

    assert growth(work, 3_000, 24_000) < 20


@pytest.mark.parametrize("n", [1, 40])
def test_beginnings_of_calls_without_ends_are_text(
    plain: TextCodec, parser: Callable[..., ReplyParser], n: int
) -> None:
    text = '<tool_call>{"name": "look", "arguments": {"a": "' * n
    p = parser()
    run(p, plain.encode(text))
    assert p.message.parts == (Text(text),)


@pytest.mark.parametrize(
    "arguments",
    ['{"a": 1,,}', '{"a" 1}', "{a: 1}", '{"a": NaN}', "[1]", '"no object"', "12", '{"a": 01}'],
)
def test_arguments_that_are_no_json_object_are_text(
    plain: TextCodec, parser: Callable[..., ReplyParser], arguments: str
) -> None:
    text = f'<tool_call>{{"name": "look", "arguments": {arguments}}}</tool_call>'
    p = parser()
    run(p, plain.encode(text))
    assert p.message.parts == (Text(text),)


def test_arguments_stay_as_they_were_spelled(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    for arguments in ('{"a":1e2,  "b" : "\\u00e9"}', '{"n": 12345678901234567890123}'):
        p = parser()
        run(p, plain.encode(f'<tool_call>{{"arguments": {arguments}, "name": "look"}}</tool_call>'))
        assert p.message.tool_calls[0].arguments == arguments


@pytest.mark.parametrize("call", ["{no json}", '{"name" "look"}', '{"arguments": {}}', "[1]"])
def test_a_call_that_cannot_be_read_is_text(
    plain: TextCodec, parser: Callable[..., ReplyParser], call: str
) -> None:
    text = f"so \n<tool_call>{call}</tool_call>\n and"
    p = parser()
    run(p, plain.encode(text))
    assert p.message.parts == (Text(text),)
    assert not p.has_calls


def test_arguments_that_never_close_are_text(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    text = '<tool_call>{"name": "look", "arguments": {"a": 1</tool_call> after'
    p = parser()
    run(p, plain.encode(text))
    assert p.message.parts == (Text(text),)


def test_calls_are_text_where_none_are_allowed(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    p = parser(allowed=False)
    run(p, plain.encode(CALL))
    assert p.message.parts == (Text(CALL),)


def test_a_stop_text_ends_the_reply_before_it(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    p, ids = parser("\nUser:"), plain.encode("One, two.\nUser: three")
    run(p, ids)
    assert p.stopped and p.message.text == "One, two."
    assert p.ids == ids[: len(p.ids)]
    assert plain.decode(p.ids) == "One, two."


def test_half_a_stop_text_is_text(plain: TextCodec, parser: Callable[..., ReplyParser]) -> None:
    p = parser("END OF ALL")
    run(p, plain.encode("It is the END OF"))
    assert not p.stopped and p.message.text == "It is the END OF"


def test_the_earlier_of_two_stop_texts_counts(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    p = parser("b c d", "c")
    run(p, [i for c in "a b c d" for i in plain.encode(c)])
    assert p.message.text == "a "


THOUGHT = "<think>First.\n\nSecond. STOP</think>\n\nThe answer.\n\nMore."
CALLED = f"I look.\n\n{CALL.replace('} {', '} STOP {')}\n\nDone.\n\nMore."


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("text", "stop", "said"),
    [
        (THOUGHT, "\n\n", "The answer."),  # neither in reasoning, nor behind it
        (THOUGHT, "STOP", "The answer.\n\nMore."),
        (THOUGHT, "k>\n\nThe", "The answer.\n\nMore."),  # it would begin in a marker
        (THOUGHT, "think>", "The answer.\n\nMore."),
        (THOUGHT, "e answer.\n\nM", "Th"),
        (CALLED, "\n\n", "I look.Done."),  # blanks before and behind a call are nobody's
        (CALLED, "look.\n\n<tool", "I look.Done.\n\nMore."),
        (CALLED, "<tool", "I look.Done.\n\nMore."),
        (CALLED, "arguments", "I look.Done.\n\nMore."),
        (CALLED, "Done", "I look."),
        ("One.\n\nTwo.", "\n\n", "One."),
        ("One.\n\n", "\n\n", "One."),
        ("One.\n\n", ".\n\n", "One"),
        ("One." + "\n" * 80 + "Two.", "\n\n", "One."),
        ("a <tool b", "<tool", "a "),  # no marker after all
    ],
)
def test_stop_texts_end_the_answer_only(
    plain: TextCodec,
    parser: Callable[..., ReplyParser],
    text: str,
    stop: str,
    said: str,
    seed: int,
) -> None:
    p = parser(stop)
    run(p, cut(plain, text, seed))
    assert p.message.text == said
    whole = parser()
    run(whole, cut(plain, text, seed))
    assert p.stopped == (said != whole.message.text)
    assert p.stop_text == (stop if p.stopped else None)
    assert p.message.reasoning == whole.message.reasoning
    assert (p.message.tool_calls == whole.message.tool_calls) or not p.has_calls


def test_blanks_without_end_do_not_keep_a_stop_text_from_ending_the_answer(
    plain: TextCodec, parser: Callable[..., ReplyParser]
) -> None:
    p = parser("\n\n")
    for i in plain.encode("One.") + plain.encode("\n") * 80:
        p.feed(Token(i))
    assert p.stopped and p.message.text == "One."
