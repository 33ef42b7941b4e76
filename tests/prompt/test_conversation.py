"""What a client sends decides which reply of the model it means.

Two samples of one prompt may say the same: call ids tell them apart, then reasoning, then what the
conversation goes on with. Reasoning that nobody wrote is the client's own, and the model reads it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from prompt_templates import DROPS_REASONING, PROVED
from talk import TOOLS, Talk, drops_reasoning, look, result, said, strips_ids, user

from everwarm.codec import Codec
from everwarm.history.database import Database
from everwarm.history.reply_table import ReplyTable
from everwarm.messages import Message
from everwarm.prompt.render import Renderer
from everwarm.prompt.why import difference
from everwarm.request import Request
from everwarm.tokens import Prompt

ASK = user("List the files.")
CALL = '<tool_call>{"name": "look", "arguments": {"at": "."}}</tool_call>'
Client = Callable[[Message], Message]


def sends_all(m: Message) -> Message:
    return m


class Samples:
    """One renderer, asked for several samples of the same prompts."""

    def __init__(self, codec: Codec, renderer: Renderer | None = None) -> None:
        self.codec, self.renderer = codec, renderer or Renderer(codec)

    def prompt(self, *messages: Message, client: Client = sends_all) -> Prompt:
        return self.renderer.prompt(Request(None, tuple(map(client, messages)), TOOLS))

    def sample(self, history: Sequence[Message], reply: Message, client: Client = sends_all) -> str:
        """The model's reply to this history, with its reasoning; gives its text."""
        text = "".join(f"{reply.reasoning}\n</think>\n\n{reply.text}")
        text += CALL * len(reply.tool_calls)
        prompt = self.prompt(*history, client=client)
        self.renderer.remember(prompt, self.codec.encode(text), reply)
        return self.codec.decode(prompt.tokens) + text

    def text(self, *messages: Message, client: Client = sends_all) -> str:
        return self.codec.decode(self.prompt(*messages, client=client).tokens)


@pytest.fixture
def samples(codec: Callable[..., Codec]) -> Samples:
    return Samples(codec(DROPS_REASONING))


A_CALL, B_CALL = look("callAAA", at="."), look("callBBB", at=".")
A = said("", A_CALL, thought="ALPHA thought")
B = said("", B_CALL, thought="BETA thought")
A_TEXT, B_TEXT = (said("Sure.", thought=t) for t in ("ALPHA thought", "BETA thought"))


@pytest.mark.parametrize("client", [sends_all, drops_reasoning])
def test_call_ids_say_which_sample_comes_back(samples: Samples, client: Client) -> None:
    read = [samples.sample([ASK], reply) for reply in (A, B)]
    for text, reply, call in zip(read, (A, B), (A_CALL, B_CALL), strict=True):
        assert samples.text(ASK, reply, result(call, "x.py"), client=client).startswith(text)


def test_reasoning_says_which_sample_comes_back(samples: Samples) -> None:
    read = [samples.sample([ASK], reply) for reply in (A_TEXT, B_TEXT)]
    for text, reply in zip(read, (A_TEXT, B_TEXT), strict=True):
        assert samples.text(ASK, reply, user("Go on.")).startswith(text)


def test_reasoning_says_it_where_call_ids_are_written_anew(samples: Samples) -> None:
    read = [samples.sample([ASK], reply) for reply in (A, B)]
    for text, thought in zip(read, ("ALPHA thought", "BETA thought"), strict=True):
        call = look("toolu_another_id", at=".")
        reply = said("", call, thought=thought)
        assert samples.text(ASK, reply, result(call, "x.py")).startswith(text)


def test_blanks_around_reasoning_are_no_difference(samples: Samples) -> None:
    read = samples.sample([ASK], said("Sure.", thought="\nI look.\nThen I say it.\n"))
    back = said("Sure.", thought="I look.\nThen I say it.")
    assert samples.text(ASK, back, user("Go on.")).startswith(read)


def test_without_either_the_latest_sample_comes_back(samples: Samples) -> None:
    _, read = (samples.sample([ASK], reply) for reply in (A_TEXT, B_TEXT))
    assert samples.text(ASK, B_TEXT, user("Go on."), client=drops_reasoning).startswith(read)
    _, read = (samples.sample([ASK], reply) for reply in (A, B))
    call = look("another", at=".")
    text = samples.text(ASK, said("", call), result(call, "x.py"), client=strips_ids)
    assert text.startswith(read)


def test_without_either_the_sample_that_was_continued_comes_back(samples: Samples) -> None:
    samples.sample([ASK], A_TEXT)
    history = [ASK, A_TEXT, user("Go on.")]
    read = samples.sample(history, said("Done.", thought="GAMMA"), client=drops_reasoning)
    samples.sample([ASK], B_TEXT)
    again = [*history, said("Done."), user("And now?")]
    assert samples.text(*again, client=drops_reasoning).startswith(read)


@pytest.mark.parametrize("reply", [A, A_TEXT])
def test_edited_reasoning_is_what_the_model_reads(samples: Samples, reply: Message) -> None:
    samples.sample([ASK], reply)
    edited = said(reply.text, *reply.tool_calls, thought="EDITED by the user")
    follows = [result(A_CALL, "x.py")] if reply.tool_calls else [result(look("b"), "seen")]
    text = samples.text(ASK, edited, *follows)
    assert "EDITED by the user" in text and "ALPHA" not in text


def test_added_reasoning_is_what_the_model_reads(samples: Samples) -> None:
    samples.sample([ASK], said("", A_CALL))
    text = samples.text(ASK, said("", A_CALL, thought="ADDED"), result(A_CALL, "x.py"))
    assert "ADDED" in text


def test_around_edited_reasoning_all_stays_as_it_was_read(samples: Samples) -> None:
    """What stands before is read already; what stands behind is found again, word for word."""
    first = said("First.", thought="FIRST thought")
    read = samples.sample([ASK], first)
    history = [ASK, first, user("Now look.")]
    samples.sample(history, A)
    history += [A, result(A_CALL, "x.py")]
    last = said("", look("callCCC", at="."), thought="LAST thought")
    samples.sample(history, last)
    history += [last, result(look("callCCC"), "y.py")]
    history[3] = said("", A_CALL, thought="EDITED by the user")
    prompt = samples.prompt(*history)
    text = samples.codec.decode(prompt.tokens)
    assert text.startswith(read)
    assert "EDITED by the user" in text and "ALPHA" not in text and "LAST thought" in text
    assert 0 < prompt.new_tokens < len(prompt.tokens)


def test_edited_reasoning_is_warm_from_then_on(samples: Samples) -> None:
    samples.sample([ASK], A)
    edited = said("", A_CALL, thought="EDITED by the user")
    history = [ASK, edited, result(A_CALL, "x.py")]
    read = samples.sample(history, said("Done.", thought="hm"))
    assert samples.text(*history, said("Done.", thought="hm"), user("More.")).startswith(read)


def test_why_says_that_reasoning_was_edited(samples: Samples) -> None:
    samples.sample([ASK], A)
    edited = said("", A_CALL, thought="EDITED by the user")
    prompt = samples.prompt(ASK, edited, result(A_CALL, "x.py"))
    evidence = samples.renderer.evidence(prompt)
    assert evidence is not None
    assert difference(prompt, evidence).cause == "the reasoning of message 2 was edited"


@pytest.mark.parametrize("name", PROVED)
def test_whoever_sends_reasoning_back_reads_nothing_twice(
    codec: Callable[..., Codec], name: str
) -> None:
    roles = ("<|user|>", "<|observation|>") if name == "no_end_of_turn" else ()
    made = codec(PROVED[name], ends=roles)
    talk = Talk(Renderer(made), made)
    for n in range(4):
        talk.messages.append(user(f"question {n}"))
        prompt = talk.ask()
        text = f"I think {n}\n</think>\n\nanswer {n}"
        talk.answer(prompt, made.encode(text), said(f"answer {n}", thought=f"I think {n}"))
    talk.messages.append(user("and now?"))
    talk.ask()
    assert talk.reprocessed == 1.0


@pytest.mark.parametrize("seed", range(12))
def test_a_tree_of_equal_samples_is_read_as_each_branch_was(samples: Samples, seed: int) -> None:
    """Whoever sends all back continues exactly the branch that it got, whatever others got."""
    rng = random.Random(seed)
    branches: list[tuple[list[Message], str]] = [([], "")]
    for n in range(40):
        messages, read = rng.choice(branches)
        calls = messages[-1].tool_calls if messages else ()
        follows = result(calls[0], "x.py") if calls else user(rng.choice(("Go on.", "And now?")))
        history = [*messages, follows]
        call = look(f"call{n}", at=".") if rng.random() < 0.4 else None
        text = "" if call else rng.choice(("Sure.", "Done."))
        reply = said(text, *([call] if call else ()), thought=f"I think of {n}.")
        whole = samples.sample(history, reply)
        assert whole.startswith(read)
        branches.append(([*history, reply], whole))


def test_samples_are_told_apart_after_a_restart(
    codec: Callable[..., Codec], tmp_path: Path
) -> None:
    made = codec(DROPS_REASONING)
    db = Database(tmp_path / "history.db")
    samples = Samples(made, Renderer(made, store=ReplyTable(db, made.fingerprint)))
    history = [ASK, A_TEXT, user("Go on.")]
    first = samples.sample([ASK], A_TEXT)
    read = samples.sample(history, said("Done.", thought="GAMMA"), client=drops_reasoning)
    latest = samples.sample([ASK], B_TEXT)
    db.close()

    db = Database(tmp_path / "history.db")
    again = Samples(made, Renderer(made, store=ReplyTable(db, made.fingerprint)))
    assert again.text(*history).startswith(first)
    assert again.text(ASK, B_TEXT, user("Go on.")).startswith(latest)
    whole = [*history, said("Done."), user("And now?")]
    assert again.text(*whole, client=drops_reasoning).startswith(read)
    db.close()


def test_a_reply_that_was_cut_short_is_the_same_after_a_restart(
    codec: Callable[..., Codec], tmp_path: Path
) -> None:
    """Its tokens on disk are those that the client has, not as many as the model wrote."""
    made = codec(DROPS_REASONING)
    db = Database(tmp_path / "history.db")
    samples = Samples(made, Renderer(made, store=ReplyTable(db, made.fingerprint)))
    samples.sample([ASK], said("One and two and three.", thought="ALPHA"))
    cut = [ASK, said("One and two", thought="ALPHA"), user("Stop.")]
    read = samples.text(*cut)
    db.close()

    db = Database(tmp_path / "history.db")
    table = ReplyTable(db, made.fingerprint)
    thread = samples.prompt(ASK).thread
    assert thread is not None
    texts = [made.decode(k.reply.tokens) for k in table.load(thread)]
    assert texts == [
        f"ALPHA\n</think>\n\n{said}" for said in ("One and two and three.", "One and two")
    ]
    again = Samples(made, Renderer(made, store=table))
    assert again.text(*cut) == read
    db.close()
