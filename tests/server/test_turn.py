"""A turn is told what happens, and knows its reply and its record at every moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prompt_templates import DROPS_REASONING
from sample_replies import fold
from talk import user

from everwarm.codec import Codec
from everwarm.errors import Cancelled, EngineError
from everwarm.events import Event, Progress, Started
from everwarm.job import Ended, Failed, Leased, Prefilled, Token, Waits
from everwarm.prompt.parse import ReplyParser
from everwarm.prompt.render import Renderer
from everwarm.request import Request
from everwarm.server.turn import Turn

LEASED = Leased(2, 5, "live", 0.1, 0.2)


@pytest.fixture
def begun(codec: Callable[..., Codec]) -> tuple[Turn, Codec, list[Event]]:
    """A turn whose prompt stands, and what its client heard."""
    made = codec(DROPS_REASONING)
    prompt = Renderer(made).prompt(Request(None, (user("go"),)))
    turn = Turn("t")
    turn.begin("m", ("user",))
    parser = ReplyParser(
        made,
        tools=(),
        tools_allowed=False,
        opens_reasoning=prompt.opens_reasoning,
        stop=(),
        new_call_id=lambda: "call",
    )
    return turn, made, [turn.made(prompt, parser)]


def test_its_reply_grows_with_its_events(begun: tuple[Turn, Codec, list[Event]]) -> None:
    turn, codec, heard = begun
    n = len(turn.tokens)
    assert heard == [Started(n, ("user",))]
    heard += turn.take(LEASED)
    heard += turn.take(Prefilled(n, n))
    assert heard[1:] == [Progress(2, n, 2), Progress(n, n, 2)]
    ids = codec.encode("hm</think>\n\nfine")
    for i in ids:
        heard += turn.take(Token(i))
        assert turn.reply == fold(heard)
    heard += turn.take(Ended("stop", n - 2, len(ids), 1.0, 2.0, 3.0))
    end = turn.finished()
    assert turn.is_over and end.record is turn.record
    assert end.reply == fold(heard) == turn.reply
    assert (end.record.finish, end.record.completion_tokens) == ("stop", len(ids))
    assert list(turn.tokens)[n:] == turn.reply_tokens == ids
    assert turn.reply_id is not None
    assert turn.progress() == {
        "id": "t",
        "is_cancelled": False,
        "done": n,
        "total": n,
        "completion": len(ids),
        "waits": "",
    }


def test_what_it_waits_for_is_said_until_it_begins(begun: tuple[Turn, Codec, list[Event]]) -> None:
    turn, _, _ = begun
    n = len(turn.tokens)
    waits = "waits for memory: needs 3.10 GB, 2.20 GB are free"
    assert turn.take(Waits(waits)) == [Progress(0, n, 0, waits)]
    assert turn.progress()["waits"] == waits
    assert turn.take(LEASED) == [Progress(2, n, 2)]
    assert turn.progress()["waits"] == ""


def test_who_leaves_keeps_what_was_said(begun: tuple[Turn, Codec, list[Event]]) -> None:
    turn, codec, heard = begun
    turn.take(LEASED)
    for i in codec.encode("hm</think>\n\nfine"):
        heard += turn.take(Token(i))
    turn.left()
    assert turn.record is not None
    assert turn.record.finish == "cancelled"
    assert turn.record.prefilled_tokens == turn.record.prompt_tokens - 2
    assert turn.reply == fold(heard)


@pytest.mark.parametrize("error", [EngineError("It broke."), Cancelled("Stopped.")])
def test_a_failure_completes_the_record(
    begun: tuple[Turn, Codec, list[Event]], error: EngineError | Cancelled
) -> None:
    turn, _, _ = begun
    turn.take(LEASED)
    with pytest.raises(type(error)):
        turn.take(Failed(error))
    assert turn.record is None
    turn.failed(error)
    assert turn.record is not None and turn.record.error == error.message
    assert turn.record.finish == ("cancelled" if isinstance(error, Cancelled) else "error")
    assert turn.close() is turn.record


def test_one_that_never_began_has_said_nothing() -> None:
    turn = Turn("t")
    assert (turn.record, turn.reply.parts, len(turn.tokens)) == (None, (), 0)
    assert turn.thread is turn.reply_id is None
