"""A turn over a real renderer and an engine that says what it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from prompt_templates import DROPS_REASONING
from talk import TOOLS, said, system, user

from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.events import Event, Finished, TextDelta, TurnRecord
from everwarm.job import Ended, EngineHealth, Job, Leased, ModelInfo, Sink, Token
from everwarm.messages import Message
from everwarm.request import Request
from everwarm.server.turn import Turn
from everwarm.server.turns import Turns
from everwarm.tokens import common_length, tokens_of


class Says:
    """An engine that answers `reply`, and caches what it read as long as it may."""

    def __init__(self, codec: Codec, vocab_size: int) -> None:
        self.codec, self.reply = codec, "hm</think>\n\nfine"
        self.jobs: list[Job] = []
        self.read = tokens_of()
        self.model = ModelInfo("m", 4096, vocab_size, 0, 0, "none")

    def submit(self, job: Job, sink: Sink) -> None:
        self.jobs.append(job)
        cached = min(common_length(self.read, job.tokens), len(job.tokens) - 1)
        n = len(job.tokens) - cached
        sink(Leased(cached, n, "live", 0.0, 0.0))
        ids = [i for i in self.codec.encode(self.reply) if job.sampling.logit_bias.get(i) is None]
        for i in ids:
            sink(Token(i))
        self.read = tokens_of([*job.tokens, *ids])
        sink(Ended("stop", n, len(ids), 0.0, 0.0, 0.0))

    def cancel(self, job_id: str) -> None: ...

    def stats(self) -> dict[str, int | float | str]:
        return {}

    def health(self) -> EngineHealth:
        return EngineHealth()


class WritesOn(Says):
    """An engine that writes on behind its reply until it is told to end."""

    def submit(self, job: Job, sink: Sink) -> None:
        self.sink = sink
        super().submit(job, lambda o: None if isinstance(o, Ended) else sink(o))

    def cancel(self, job_id: str) -> None:
        sink, self.sink = self.sink, lambda _: None
        sink(Ended("cancelled", 1, 1, 0.0, 0.0, 0.0))


@pytest.fixture
def engine(codec: Callable[..., Codec]) -> Says:
    made = codec(DROPS_REASONING)
    return Says(made, 50_000)


def turns(engine: Says, **settings: object) -> Turns:
    return Turns(engine, engine.codec, replace(Settings(), **settings))  # type: ignore[arg-type]


def answer(turns: Turns, *messages: Message, **changes: object) -> tuple[TurnRecord, list[Event]]:
    request = replace(Request(None, messages, TOOLS), **changes)  # type: ignore[arg-type]

    async def run() -> list[Event]:
        turn = Turn(f"t{len(turns.records)}")
        return [e async for e in turns.answer(request, turn)]

    events = asyncio.run(run())
    return turns.records[0], events


def test_kept_tools_are_shown_and_cannot_be_called(engine: Says) -> None:
    server = turns(engine)
    first, _ = answer(server, user("go"))
    assert first.tools_from == "request"
    engine.reply = 'so</think><tool_call>{"name": "look", "arguments": {}}</tool_call>'
    record, events = answer(server, user("go"), said("fine"), user("sum up"), tools=())
    assert record.tools_from == "conversation"
    assert record.prefilled_tokens == record.new_tokens
    (opens,) = engine.codec.encode("<tool_call>")
    assert engine.jobs[-1].sampling.logit_bias[opens] == float("-inf")
    assert not any(type(e).__name__.startswith("Call") for e in events)
    assert opens not in engine.jobs[0].sampling.logit_bias


def test_without_a_choice_of_tools_a_call_is_impossible_too(engine: Says) -> None:
    answer(turns(engine), user("go"), tool_choice="none")
    (opens,) = engine.codec.encode("<tool_call>")
    assert engine.jobs[-1].sampling.logit_bias[opens] == float("-inf")


def test_a_miss_is_recorded_and_its_text_is_not_logged(
    engine: Says, caplog: pytest.LogCaptureFixture
) -> None:
    server = turns(engine)
    answer(server, system("secret one, be brief"), user("go"))
    with caplog.at_level(logging.INFO):
        record, _ = answer(
            server, system("secret two, be brief"), user("go"), said("fine"), user("on")
        )
    assert record.miss is not None
    assert (record.miss.part, record.miss.cause) == ("system", "the system prompt was edited")
    assert "secret" in record.miss.before
    assert "secret" not in caplog.text
    assert 'miss="system: the system prompt was edited"' in caplog.text


def test_a_stop_text_ends_the_engine_s_work_too(engine: Says) -> None:
    writes_on = WritesOn(engine.codec, 50_000)
    writes_on.reply = "one. two.</think>\n\nthree. four five six"
    record, events = answer(turns(writes_on), user("go"), stop=(". ",))
    assert record.finish == "stop"
    assert record.completion_tokens < len(engine.codec.encode(writes_on.reply))
    assert [e.stop for e in events if isinstance(e, Finished)] == [". "]
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert text == "three"


def test_a_hit_has_no_miss(engine: Says) -> None:
    server = turns(engine)
    answer(server, user("go"))
    record, _ = answer(server, user("go"), said("fine"), user("on"))
    assert record.miss is None
    assert record.prefilled_tokens == record.new_tokens


def test_what_the_cache_let_go_is_said(engine: Says) -> None:
    server = turns(engine)
    answer(server, user("go"))
    engine.read = tokens_of()
    record, _ = answer(server, user("go"), said("fine"), user("on"))
    assert record.miss is not None
    assert record.miss.part == "cache"
    assert "let go" in record.miss.cause


def test_what_another_branch_said_first_is_no_fault_of_the_cache(engine: Says) -> None:
    server = turns(engine)
    answer(server, user("go"))
    answer(server, user("go"), said("fine"), user("north"))
    answer(
        server, user("go"), said("fine"), user("north"), said("fine"), user("look again, please")
    )
    answer(server, user("go"), said("fine"), user("south"))
    record, _ = answer(
        server, user("go"), said("fine"), user("south"), said("fine"), user("look again, please")
    )
    assert record.prefilled_tokens == record.unseen_tokens > record.new_tokens
    assert record.miss is not None
    assert (record.miss.part, record.miss.by_cache) == ("branch", 0)


def test_the_setting_template_is_honoured_and_named(engine: Says) -> None:
    server = turns(engine, history="template")
    answer(server, user("go"))
    record, _ = answer(server, user("go"), said("fine"), user("on"))
    assert record.miss is not None
    assert record.miss.cause.startswith("history is set to template")


def test_the_same_questions_under_another_system_prompt_blame_nothing(engine: Says) -> None:
    server = turns(engine)
    for head in ("Be brief, please.", "You are long-winded and know all."):
        messages = [system(head)]
        for question in ("who?", "where?", "when?"):
            messages.append(user(question))
            record, _ = answer(server, *messages)
            assert record.miss is None
            assert record.again == 0
            assert record.prefilled_tokens <= record.new_tokens
            messages.append(said("fine"))


def test_what_is_read_beyond_what_is_new_is_counted(engine: Says) -> None:
    server = turns(engine)
    first, _ = answer(server, user("go"))
    assert first.again == 0
    engine.read = tokens_of()
    lost, _ = answer(server, user("go"), said("fine"), user("on"))
    assert lost.again == lost.prefilled_tokens - lost.new_tokens > 0
    again, _ = answer(server, user("go"), said("fine"), user("on"))
    assert (again.prefilled_tokens, again.new_tokens, again.again) == (1, 0, 0)
    assert "again" in server.totals.sums and server.totals.sums["again"] == lost.again


def test_a_reminder_that_stays_is_recorded(engine: Says, caplog: pytest.LogCaptureFixture) -> None:
    server = turns(engine, sticky_reminders=True)
    head = user("hello"), said("fine")
    answer(server, user("hello"))
    answer(server, *head, user("go<system-reminder>Only plan.</system-reminder>"))
    with caplog.at_level(logging.INFO):
        record, _ = answer(server, *head, user("go"), said("fine"), user("on"))
    assert (record.sticky_reminders, record.again, record.miss) == (1, 0, None)
    assert "sticky_reminders=1" in caplog.text
    assert "Only plan" not in caplog.text
    messages = (*head, user("go"), said("fine"), user("and on"))
    off, _ = answer(server, *messages, sticky_reminders=False)
    assert off.sticky_reminders == 0
    assert off.miss is not None
    assert "taken out" in off.miss.cause
