"""A reminder that a client takes out of an old message again: what was read stays, where asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_templates import DROPS_REASONING
from talk import TOOLS, Talk, drops_reasoning, look, result, said, system, user

from everwarm.codec import Codec
from everwarm.messages import Message, MessageId, Text, child_id, content_id
from everwarm.prompt.reminders import Reminders, bare_messages, bare_texts
from everwarm.prompt.render import Renderer
from everwarm.request import Request, Tool
from everwarm.tokens import Prompt, common_length

PLAN = "<system-reminder>\nYou may only plan.\n</system-reminder>\n"
BUILD = "<system-reminder>You may build now.</system-reminder>"


@pytest.fixture
def talk(codec: Callable[..., Codec]) -> Talk:
    made = codec(DROPS_REASONING)
    talk = Talk(Renderer(made, sticky_reminders=True), made)
    talk.messages.append(system("Be brief."))
    return talk


def answered(talk: Talk, answer: str = "fine", **changes: object) -> Prompt:
    """A turn; the model thinks, and a client sends nothing of that back."""
    prompt = talk.ask(drops_reasoning, **changes)
    ids = talk.codec.encode(f"about {answer}\n</think>\n\n{answer}")
    talk.answer(prompt, ids, said(answer))
    return prompt


def goes_on(talk: Talk, **changes: object) -> Prompt:
    """The next prompt; it must begin with all that was read."""
    prompt = talk.ask(drops_reasoning, **changes)
    assert list(prompt.tokens[: len(talk.read)]) == list(talk.read)
    assert prompt.new_tokens == len(prompt.tokens) - len(talk.read)
    return prompt


def differs(talk: Talk, **changes: object) -> Prompt:
    """The next prompt; it must leave what was read before it ends."""
    prompt = talk.ask(drops_reasoning, **changes)
    assert common_length(talk.read, prompt.tokens) < len(talk.read)
    assert prompt.reminded == 0
    return prompt


def replaced(talk: Talk, at: int, message: Message) -> None:
    talk.messages[at] = message


def parts(*texts: str) -> Message:
    return Message("user", tuple(map(Text, texts)))


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (parts("fix it", PLAN), parts("fix it")),
        (parts("fix it", PLAN), parts("fix it", "")),
        (parts("fix it\n\n" + BUILD), parts("fix it\n")),
        (parts("fix it", "\n", BUILD + "\n\n"), parts("fix it")),
        (parts("fix it", PLAN, BUILD), parts("fix it", PLAN)),
        (parts("fix it", PLAN, BUILD), parts("fix it")),
        (parts("fix it", "<system-reminder>a" + PLAN + "b</system-reminder>"), parts("fix it")),
        (parts("fix </system-reminder> it", PLAN), parts("fix </system-reminder> it")),
        (parts(BUILD + "fix it", PLAN), parts(BUILD + "fix it")),
        (parts(PLAN), parts("")),
    ],
)
def test_a_reminder_that_is_gone_stays_as_it_was_read(
    talk: Talk, first: Message, later: Message
) -> None:
    talk.turn("hello", "hi")
    talk.messages.append(first)
    answered(talk)
    replaced(talk, 3, later)
    talk.messages.append(user("and now?"))
    prompt = goes_on(talk)
    assert prompt.reminded == 1
    assert prompt.messages[3].text.strip() == first.text.strip()


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (parts("fix it", PLAN), parts("fix that")),
        (parts("fix it", PLAN), parts("fix it", BUILD)),
        (parts("fix it"), parts("fix it", PLAN)),
        (parts("fix it", PLAN), parts("fix it", PLAN, BUILD)),
        (parts("fix", PLAN, "it"), parts("fix", "it")),
        (parts(PLAN, "fix it"), parts("fix it")),
        (parts("fix it", PLAN, BUILD), parts("fix it", BUILD)),
        (parts("fix it", "</system-reminder>"), parts("fix it")),
        (parts("fix it", "<system-reminder> no end"), parts("fix it")),
        (parts("fix it <system-reminder> or", PLAN), parts("fix it")),
        (parts("fix it <System-Reminder>x</System-Reminder>"), parts("fix it")),
        (parts("fix it", "<system-reminder id='1'>x</system-reminder>"), parts("fix it")),
    ],
)
def test_any_other_change_is_a_difference(talk: Talk, first: Message, later: Message) -> None:
    talk.turn("hello", "hi")
    talk.messages.append(first)
    answered(talk)
    replaced(talk, 3, later)
    talk.messages.append(user("and now?"))
    differs(talk)


def test_only_user_messages_keep_reminders(talk: Talk) -> None:
    call = look("calla", at="x")
    talk.messages += [user("go")]
    prompt = talk.ask()
    ids = talk.codec.encode('hm</think>\n\n<tool_call>{"name": "look"}</tool_call>')
    talk.answer(prompt, ids, said("", call))
    talk.messages.append(result(call, "seen" + PLAN))
    answered(talk)
    replaced(talk, 3, result(call, "seen"))
    talk.messages.append(user("and now?"))
    differs(talk)


def test_a_system_prompt_keeps_none(talk: Talk) -> None:
    replaced(talk, 0, system("Be brief." + PLAN))
    talk.messages.append(user("go"))
    answered(talk)
    replaced(talk, 0, system("Be brief."))
    talk.messages.append(user("and now?"))
    differs(talk)


def test_a_message_that_is_gone_altogether_is_a_difference(talk: Talk) -> None:
    talk.messages += [user("go"), user(PLAN)]
    answered(talk)
    del talk.messages[2]
    talk.messages.append(user("and now?"))
    differs(talk)


def test_the_newest_message_is_read_as_it_is_sent(talk: Talk) -> None:
    talk.turn("hello", "hi")
    talk.messages.append(parts("fix it", PLAN))
    answered(talk)
    talk.messages.pop()
    replaced(talk, 3, user("fix it"))
    assert "only plan" not in talk.codec.decode(differs(talk).tokens)


def test_reminders_move_from_turn_to_turn_and_nothing_is_read_again(talk: Talk) -> None:
    for n in range(6):
        bare = talk.messages.copy()
        talk.messages.append(parts(f"question {n}", PLAN if n < 3 else BUILD))
        assert goes_on(talk).reminded == n
        answered(talk, f"answer {n}")
        replies = talk.messages[-1:]
        talk.messages = [*bare, user(f"question {n}"), *replies]


def test_the_first_user_message_keeps_its_reminder_too(talk: Talk) -> None:
    talk.messages.append(parts("go", PLAN))
    answered(talk)
    replaced(talk, 1, user("go"))
    talk.messages.append(parts("and now?", BUILD))
    assert goes_on(talk).reminded == 1
    answered(talk, "well")
    replaced(talk, 3, user("and now?"))
    talk.messages.append(user("more"))
    assert goes_on(talk).reminded == 2


def test_a_tool_loop_behind_a_reminder_stays(talk: Talk) -> None:
    call = look("callb2", at="x")
    talk.messages += [parts("go", PLAN)]
    prompt = talk.ask()
    ids = talk.codec.encode('hm</think>\n\n<tool_call>{"name": "look"}</tool_call>')
    talk.answer(prompt, ids, said("", call))
    talk.messages.append(result(call, "seen"))
    answered(talk)
    replaced(talk, 1, user("go"))
    talk.messages.append(user("and now?"))
    assert goes_on(talk).reminded == 1


def test_two_messages_in_a_row_may_both_have_lost_one(talk: Talk) -> None:
    talk.messages += [parts("one", PLAN), parts("two", BUILD)]
    answered(talk)
    talk.messages[1:3] = [user("one"), user("two")]
    talk.messages.append(user("three"))
    assert goes_on(talk).reminded == 2
    talk.messages[1:3] = [parts("one", PLAN), user("two")]
    talk.messages[-1] = user("four")
    assert goes_on(talk).reminded == 1


def test_a_branch_that_never_had_the_reminder_is_itself(talk: Talk) -> None:
    """One message was asked with the reminder and without: each reply tells which it follows."""
    talk.messages.append(parts("fix it", PLAN))
    answered(talk, "I plan it")
    planned, with_it = talk.read, talk.messages.copy()
    talk.messages[1:] = [user("fix it")]
    answered(talk, "I did it")
    built, without = talk.read, talk.messages.copy()
    talk.messages = [without[0], user("fix it"), with_it[2], user("more")]
    talk.read = planned
    assert goes_on(talk).reminded == 1
    talk.messages = [*without, user("more")]
    talk.read = built
    assert goes_on(talk).reminded == 0


def test_where_both_branches_said_the_same_the_message_is_as_it_is_sent(talk: Talk) -> None:
    talk.messages.append(parts("fix it", PLAN))
    answered(talk, "done")
    talk.messages[1:] = [user("fix it")]
    answered(talk, "done")
    built = talk.read
    talk.messages.append(user("more"))
    talk.read = built
    assert goes_on(talk).reminded == 0


def test_of_two_reminders_at_one_place_the_reply_s_own_is_kept(talk: Talk) -> None:
    read = {}
    for reminder, answer in ((PLAN, "planned"), (BUILD, "built")):
        talk.messages[1:] = [parts("fix it", reminder)]
        answered(talk, answer)
        read[answer] = talk.read
    for answer in ("planned", "built"):
        talk.messages[1:] = [user("fix it"), said(answer), user("more")]
        talk.read = read[answer]
        assert goes_on(talk).reminded == 1


def test_a_reply_that_was_not_given_there_keeps_nothing(talk: Talk) -> None:
    talk.messages.append(parts("fix it", PLAN))
    answered(talk)
    talk.messages[1:] = [user("fix it"), said("something else"), user("more")]
    assert "only plan" not in talk.codec.decode(differs(talk).tokens)


def test_another_place_in_the_conversation_keeps_nothing(talk: Talk) -> None:
    talk.turn("hello", "hi")
    talk.messages.append(parts("fix it", PLAN))
    answered(talk)
    talk.messages[1:3] = []
    replaced(talk, 1, user("fix it"))
    talk.messages.append(user("more"))
    assert "only plan" not in talk.codec.decode(differs(talk).tokens)


def test_other_callers_tools_and_system_prompts_keep_nothing(talk: Talk) -> None:
    talk.messages.append(parts("fix it", PLAN))
    answered(talk)
    talk.messages[1:] = [user("fix it"), said("fine"), user("more")]
    differs(talk, namespace="another key")
    talk.tools = (*TOOLS, Tool("go"))
    differs(talk)
    talk.tools = TOOLS
    replaced(talk, 0, system("Be long."))
    differs(talk)


def test_off_by_default_and_a_request_may_say_it(codec: Callable[..., Codec]) -> None:
    made = codec(DROPS_REASONING)
    plain = Talk(Renderer(made), made)
    for wanted in (None, True):
        plain.messages = [parts("fix it", PLAN)]
        answered(plain, f"fine {wanted}", sticky_reminders=wanted)
        plain.messages[:1] = [user("fix it")]
        plain.messages.append(user("more"))
        (goes_on if wanted else differs)(plain, sticky_reminders=wanted)
    differs(plain, sticky_reminders=False)


def test_a_request_may_turn_it_off(talk: Talk) -> None:
    talk.messages.append(parts("fix it", PLAN))
    answered(talk)
    talk.messages[1:] = [user("fix it"), said("fine"), user("more")]
    differs(talk, sticky_reminders=False)
    goes_on(talk)


def test_the_template_s_own_words_keep_reminders_too(talk: Talk) -> None:
    talk.messages.append(parts("fix it", PLAN))
    answered(talk, history="template")
    talk.messages[1:] = [user("fix it"), said("fine"), user("more")]
    prompt = talk.ask(drops_reasoning, history="template")
    assert prompt.reminded == 1
    assert "only plan" in talk.codec.decode(prompt.tokens)


def test_what_is_forgotten_is_not_kept(talk: Talk) -> None:
    talk.messages.append(parts("fix it", PLAN))
    prompt = answered(talk)
    assert prompt.thread is not None
    talk.renderer.forget({prompt.thread})
    talk.messages[1:] = [user("fix it"), said("fine"), user("more")]
    assert "only plan" not in talk.codec.decode(differs(talk).tokens)


def test_a_repeated_request_says_what_it_keeps_itself(talk: Talk) -> None:
    talk.messages.append(parts("fix it", PLAN))
    answered(talk)
    talk.messages.append(user("more"))
    assert goes_on(talk).reminded == 0
    replaced(talk, 1, user("fix it"))
    again = talk.renderer.prompt(Request(None, tuple(talk.messages), TOOLS))
    assert (again.reminded, again.new_tokens) == (1, 0)
    assert again.messages[1].text == "fix it" + PLAN


def test_a_reminder_of_any_length_is_a_difference(talk: Talk) -> None:
    long = f"<system-reminder>{'word ' * 15_000}</system-reminder>"
    talk.messages.append(parts("go", long))
    answered(talk)
    replaced(talk, 1, user("go"))
    talk.messages.append(user("more"))
    differs(talk)


def test_what_is_remembered_is_bounded() -> None:
    reminders = Reminders(limit=10, max_chars=1000)
    root = MessageId("root")
    for n in range(100):
        message = user(f"{n}<system-reminder>{'x' * n}</system-reminder>")
        end = child_id(root, content_id(message))
        reminders.note("", MessageId(f"t{n}"), [message], [root, end])
        assert reminders.n_chars <= 1000
    at = [child_id(root, content_id(user(str(n)))) for n in range(100)]
    held = [n for n in range(100) if reminders.of(at[n], user(str(n)))]
    assert held == list(range(93, 100))
    reminders.forget({MessageId("t99")})
    assert reminders.of(at[99], user("99")) == []
    reminders.forget({MessageId(f"t{n}") for n in range(100)})
    assert reminders.n_chars == 0


def test_thousands_of_tags_are_read_once() -> None:
    assert bare_texts("<system-reminder>" * 50_000 + "</system-reminder>" * 50_000) == [""]
    assert bare_texts("</system-reminder>" * 100_000) == []
    assert len(bare_texts(BUILD * 50_000)) == 4


@given(st.lists(st.sampled_from(["<system-reminder>", "</system-reminder>", "a", " ", "\n"])))
def test_bare_texts_are_beginnings_that_lack_whole_blocks(pieces: list[str]) -> None:
    text = "".join(pieces)
    before = text.rstrip()
    for bare in bare_texts(text):
        assert before.startswith(bare)
        gone = before[len(bare) :].strip()
        assert gone.startswith("<system-reminder>") and gone.endswith("</system-reminder>")
        depth = 0
        for piece in gone.replace(">", ">\0").split("\0"):
            depth += piece.endswith("<system-reminder>") - piece.endswith("</system-reminder>")
            assert depth >= 0
        assert depth == 0
        before = bare


def test_a_message_keeps_its_speaker() -> None:
    ((bare, gone),) = bare_messages(replace(user("go" + BUILD), name="Anna"))
    assert (bare.name, bare.text, gone) == ("Anna", "go", BUILD)
    reminders, root = Reminders(), MessageId("root")
    message = replace(user("go" + BUILD), name="Anna")
    reminders.note("", MessageId("t"), [message], [root, child_id(root, content_id(message))])
    at = child_id(root, content_id(bare))
    assert reminders.of(at, bare) == [("t", message)]
    assert reminders.of(child_id(root, content_id(user("go"))), user("go")) == []
