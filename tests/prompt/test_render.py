"""Requests to tokens: what was read or written before comes back word for word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from codec_fixtures import FORGETFUL

from everwarm.job import Token
from everwarm.messages import Message, Reasoning, Text, ToolCall
from everwarm.prompt.parse import ReplyParser
from everwarm.prompt.render import Renderer
from everwarm.request import Request, Tool
from everwarm.text.text_codec import TextCodec
from everwarm.tokens import Prompt

TOOLS = (Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}}),)


class CountingCodec:
    """Passes everything on and counts renderings."""

    def __init__(self, codec: TextCodec) -> None:
        self.codec, self.rendered = codec, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        scaffold: bool,
        args: Mapping[str, Any],
        now: datetime | None = None,
    ) -> str:
        self.rendered += 1
        return self.codec.render(messages, tools, scaffold=scaffold, args=args, now=now)


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def system(text: str) -> Message:
    return Message("system", (Text(text),))


def said(text: str) -> Message:
    return Message("assistant", (Text(text),))


def result(call: ToolCall, text: str) -> Message:
    return Message("tool", (Text(text),), call.id)


def ask(*messages: Message, tools: tuple[Tool, ...] = ()) -> Request:
    return Request(None, messages, tools)


def reply(
    codec: TextCodec, renderer: Renderer, prompt: Prompt, written: str
) -> tuple[list[int], Message]:
    """Lets the model write this, and remembers it. Gives all tokens so far, and the message."""
    ids, names = codec.encode(written), count()
    parser = ReplyParser(
        codec,
        tools=TOOLS,
        tools_allowed=True,
        opens_reasoning=prompt.opens_reasoning,
        stop=(),
        new_call_id=lambda: f"call{prompt.head[:6]}{next(names)}",
    )
    for i in ids:
        parser.feed(Token(i))
    parser.finish()
    renderer.remember(prompt, parser.ids, parser.message)
    return [*prompt.tokens, *ids], parser.message


def answer_of(message: Message) -> Message:
    """The message as clients bring it back: without its reasoning."""
    return replace(message, parts=tuple(p for p in message.parts if not isinstance(p, Reasoning)))


def is_continued(prompt: Prompt, before: Sequence[int]) -> bool:
    return list(prompt.tokens[: len(before)]) == list(before)


def test_the_second_turn_continues_prompt_and_reply(plain: TextCodec) -> None:
    renderer = Renderer(plain)
    first = renderer.prompt(ask(user("hello")))
    before, message = reply(plain, renderer, first, "hi there")
    second = renderer.prompt(ask(user("hello"), message, user("and now?")))
    assert renderer.verbatim
    assert is_continued(second, before)
    tail = "<|im_end|>\n<|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\n"
    assert plain.decode(second.tokens[len(before) :]) == tail


def test_odd_tokens_of_a_reply_come_back(plain: TextCodec) -> None:
    renderer = Renderer(plain)
    first = renderer.prompt(ask(user("hello")))
    odd = [i for c in "hi there" for i in plain.encode(c)]
    assert odd != plain.encode("hi there")
    renderer.remember(first, odd, said("hi there"))
    second = renderer.prompt(ask(user("hello"), said(" hi there\n"), user("more")))
    assert is_continued(second, [*first.tokens, *odd])


def test_dropped_reasoning_stays_through_many_turns(forgetful: TextCodec) -> None:
    renderer, history = Renderer(forgetful), [user("one")]
    for text in ("two", "three", "four"):
        prompt = renderer.prompt(ask(*history))
        assert prompt.opens_reasoning
        before, message = reply(forgetful, renderer, prompt, f"hm, {text}?\n</think>\n\nyes {text}")
        assert message.reasoning and message.text == f"yes {text}"
        history += [answer_of(message), user(text)]
        assert is_continued(renderer.prompt(ask(*history)), before)


@pytest.mark.parametrize("n_calls", [1, 2, 3])
def test_calls_with_respelled_arguments_come_back(forgetful: TextCodec, n_calls: int) -> None:
    renderer = Renderer(forgetful)
    first = renderer.prompt(ask(user("look"), tools=TOOLS))
    written = "so</think>\n" + "\n".join(
        f'<tool_call>\n{{"name":"look",  "arguments":{{"b": 1,"at":"é{i}" }}}}\n</tool_call>'
        for i in range(n_calls)
    )
    before, message = reply(forgetful, renderer, first, written)
    assert len(message.tool_calls) == n_calls
    rewritten = tuple(
        ToolCall(c.id, c.name, '{"at": "changed", "b": 1}') for c in message.tool_calls
    )
    results = [result(c, f"seen {i}") for i, c in enumerate(rewritten)]
    second = renderer.prompt(
        ask(user("look"), Message("assistant", rewritten), *results, tools=TOOLS)
    )
    assert is_continued(second, before)
    tail = "".join(f"<|im_start|>tool\nseen {i}<|im_end|>\n" for i in range(n_calls))
    end = "<|im_start|>assistant\n<think>\n"
    assert forgetful.decode(second.tokens[len(before) :]) == "<|im_end|>\n" + tail + end


def test_templates_may_look_up_what_a_tool_message_answers(
    codec: Callable[[str], TextCodec], forgetful: TextCodec
) -> None:
    strict = codec(
        "{% set ns = namespace(ids=[]) %}"
        "{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "{% set ns.ids = ns.ids + [c.id] %}{% endfor %}"
        "{% if m.role == 'tool' and m.tool_call_id not in ns.ids %}"
        "{{ raise_exception('no such call') }}{% endif %}{% endfor %}"
        + forgetful._tokenizer.chat_template
    )
    renderer = Renderer(strict)
    first = renderer.prompt(ask(user("look"), tools=TOOLS))
    call = '<tool_call>{"name":"look","arguments":{}}</tool_call>'
    before, message = reply(strict, renderer, first, "so</think>" + call + call)
    results = [result(c, "seen") for c in message.tool_calls]
    second = renderer.prompt(ask(user("look"), answer_of(message), *results, tools=TOOLS))
    assert is_continued(second, before)


def test_a_dropped_parallel_call_is_another_message(forgetful: TextCodec) -> None:
    renderer = Renderer(forgetful)
    first = renderer.prompt(ask(user("look"), tools=TOOLS))
    call = '<tool_call>{"name": "look", "arguments": {"at": "here"}}</tool_call>'
    before, message = reply(forgetful, renderer, first, "so</think>" + call + call)
    one = message.tool_calls[-1]
    second = renderer.prompt(
        ask(user("look"), Message("assistant", (one,)), result(one, "seen"), tools=TOOLS)
    )
    assert not is_continued(second, before)
    assert forgetful.decode(second.tokens).count('{"at": "here"}') == 1


def test_a_repeated_request_is_not_rendered(plain: TextCodec) -> None:
    codec = CountingCodec(plain)
    renderer = Renderer(codec)
    first = renderer.prompt(ask(user("hello")))
    n_before = codec.rendered
    again = renderer.prompt(ask(user("hello")))
    assert codec.rendered == n_before
    assert (again.tokens, again.marks, again.head) == (first.tokens, first.marks, first.head)
    assert again.new_tokens == 0


@pytest.mark.parametrize("edited", [0, 1])
def test_an_edited_message_is_rendered_by_the_template(plain: TextCodec, edited: int) -> None:
    renderer = Renderer(plain)
    _, message = reply(plain, renderer, renderer.prompt(ask(user("hello"))), "hi there")
    messages = [user("hello"), message, user("more")]
    messages[edited] = replace(messages[edited], parts=(Text("changed"),))
    prompt = renderer.prompt(ask(*messages))
    dicts = [{"role": m.role, "content": m.text} for m in messages]
    assert list(prompt.tokens) == plain.encode(plain.render(dicts, None, scaffold=True, args={}))


@pytest.mark.parametrize("head", [(), (system("Be brief."),)])
def test_new_tokens_are_what_the_client_added(plain: TextCodec, head: tuple[Message, ...]) -> None:
    renderer = Renderer(plain)
    first = renderer.prompt(ask(*head, user("hello")))
    assert first.new_tokens == len(first.tokens)
    before, message = reply(plain, renderer, first, "hi there")
    second = renderer.prompt(ask(*head, user("hello"), message, user("more")))
    assert second.new_tokens == len(second.tokens) - len(before)
    # The user's message is edited: only it and what the template writes for the reply are new.
    third = renderer.prompt(ask(*head, user("hello"), message, user("rather this")))
    added = "<|im_end|>\n<|im_start|>user\nrather this<|im_end|>\n<|im_start|>assistant\n"
    assert third.new_tokens == len(plain.encode(added))


def test_seen_messages_are_not_new_where_all_is_rendered_again(plain: TextCodec) -> None:
    renderer = Renderer(plain)
    _, message = reply(plain, renderer, renderer.prompt(ask(user("hello"))), "hi there")
    request = ask(user("hello"), message, user("more"))
    renderer.prompt(request)
    prompt = renderer.prompt(replace(request, history="template"))
    assert prompt.new_tokens == len(plain.encode("<|im_start|>assistant\n"))


def test_under_another_system_prompt_all_is_new(plain: TextCodec) -> None:
    """Also what a client takes along from a conversation that had none."""
    renderer = Renderer(plain)
    _, message = reply(plain, renderer, renderer.prompt(ask(user("hello"))), "hi there")
    renderer.prompt(ask(user("hello"), message, user("more")))
    prompt = renderer.prompt(ask(system("Be brief."), user("hello"), message, user("more")))
    assert prompt.new_tokens == len(prompt.tokens)


@pytest.mark.parametrize("other", ["Be long.", None])
def test_the_same_questions_under_another_system_prompt_are_new_there(
    plain: TextCodec, other: str | None
) -> None:
    renderer = Renderer(plain)
    for head in ([system("Be brief.")], [system(other)] if other else []):
        messages, before = list(head), []
        for n in range(3):
            messages.append(user(f"question {n}"))
            prompt = renderer.prompt(ask(*messages))
            assert prompt.new_tokens == len(prompt.tokens) - len(before)
            before, message = reply(plain, renderer, prompt, f"answer {n}")
            messages.append(message)


def test_a_reply_of_another_conversation_is_new_where_this_one_goes_on(plain: TextCodec) -> None:
    """A client changes its tools for a turn, and takes what was said then back with it."""
    renderer = Renderer(plain)
    before, first = reply(plain, renderer, renderer.prompt(ask(user("hello"))), "hi there")
    head = (user("hello"), first, user("look"))
    _, second = reply(plain, renderer, renderer.prompt(ask(*head, tools=TOOLS)), "I looked")
    back = renderer.prompt(ask(*head, second, user("more")))
    assert back.new_tokens == len(back.tokens) - len(before)


def test_the_same_words_said_again_are_new(plain: TextCodec) -> None:
    renderer = Renderer(plain)
    before, message = reply(plain, renderer, renderer.prompt(ask(user("go on"))), "one")
    second = renderer.prompt(ask(user("go on"), message, user("go on")))
    assert second.new_tokens == len(second.tokens) - len(before)


def test_marks_stand_before_special_tokens(plain: TextCodec) -> None:
    renderer = Renderer(plain)
    head = (system("Be brief."), user("n"))
    first = renderer.prompt(ask(*head))
    _, message = reply(plain, renderer, first, "hi there")
    second = renderer.prompt(ask(*head, message, user("end")))
    (start,), (end,) = plain.encode("<|im_start|>"), plain.encode("<|im_end|>")
    for prompt in (first, second):
        places = [m.at for m in prompt.marks]
        assert places == sorted(set(places))
        assert all(prompt.tokens[m.at] == start for m in prompt.marks if m.kind != "prompt")
        assert all(prompt.tokens[m.at + 1] == end for m in prompt.marks if m.kind == "prompt")
    assert [m.kind for m in second.marks] == ["system", "prompt", "user", "prompt"]
    last = next(m.at for m in second.marks if m.kind == "user")
    assert plain.decode(second.tokens[last:]).startswith("<|im_start|>user\nend<|im_end|>")


def test_a_result_that_is_written_as_json_is_counted(codec: Callable[[str], TextCodec]) -> None:
    quoted = codec(FORGETFUL.replace("{{ m.content | trim }}", "{{ m.content | tojson }}"))
    renderer = Renderer(quoted)
    call = '<tool_call>{"name":"look","arguments":{}}</tool_call>'
    first = renderer.prompt(ask(user("go"), user("now"), tools=TOOLS))
    _, message = reply(quoted, renderer, first, "so</think>" + call)
    seen = result(message.tool_calls[0], "line one\nline two")
    # The last message of the first request is not in this one, but comes again behind the result.
    second = renderer.prompt(ask(user("go"), answer_of(message), seen, user("now"), tools=TOOLS))
    added = '<|im_end|>\n<|im_start|>tool\n"line one\\nline two"<|im_end|>\n'
    scaffold = "<|im_start|>assistant\n<think>\n"
    assert second.new_tokens == len(quoted.encode(added)) + len(quoted.encode(scaffold))


def test_each_system_message_of_the_head_has_a_mark(plain: TextCodec) -> None:
    head = (system("You are brief."), system("You can swim."), system("It is Monday."))
    prompt = Renderer(plain).prompt(Request(None, (*head, user("Who are you?"))))
    (start,), (end,) = plain.encode("<|im_start|>"), plain.encode("<|im_end|>")
    begins = [i for i, t in enumerate(prompt.tokens) if t == start]
    inside = max(i for i, t in enumerate(prompt.tokens) if t == end) - 1
    assert [(m.at, m.kind) for m in prompt.marks] == [
        (begins[1], "user"), (begins[2], "user"), (begins[3], "system"), (inside, "prompt"),
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["<", "<|", "im_start", "<|im_end|> is a token", "s"])
def test_a_message_that_looks_like_a_control_token_is_found_where_it_stands(
    plain: TextCodec, content: str
) -> None:
    renderer = Renderer(plain)
    before, message = reply(plain, renderer, renderer.prompt(ask(user("hello"))), "hi there")
    prompt = renderer.prompt(ask(user("hello"), message, user(content)))
    last = next(m.at for m in prompt.marks if m.kind == "user")
    assert last == len(before) + 2
    assert plain.decode(prompt.tokens[last:]).startswith(f"<|im_start|>user\n{content}")
