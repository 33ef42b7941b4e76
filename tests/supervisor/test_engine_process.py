"""An engine in a process of its own: it answers as one in a thread does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_jobs import INFO, WAIT_S, Heard, eventually, job

from everwarm.config import Settings
from everwarm.errors import ConfigError, EngineError, MissingMlx, Overloaded
from everwarm.job import Ended, Failed, Job, Leased, Output, Token
from everwarm.link.packets import Packet
from everwarm.supervisor.engine_process import EngineProcess


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(str(model), Settings(prefill_step=64, disk=False), INFO)
    process.begin()
    process.wait_ready(WAIT_S)
    yield process
    assert process.stop()


def ask(engine: EngineProcess, asked: Job) -> list[Output]:
    heard = Heard(engine, asked)
    heard.end()
    return heard.outputs


def test_a_job_is_answered_and_its_prompt_is_warm(engine: EngineProcess) -> None:
    first, again = (ask(engine, job(name, 1, 300)) for name in ("first", "again"))
    assert [o.id for o in first if isinstance(o, Token)] == [
        o.id for o in again if isinstance(o, Token)
    ]
    assert isinstance(again[0], Leased) and again[0].cached_tokens == 299


def test_the_model_is_known_exactly_once_it_is_loaded(engine: EngineProcess) -> None:
    assert engine.model.vocab_size > 100 and engine.model.id == "llama"
    assert engine.health().state == "ready" and engine.health().why is None


def test_how_much_of_the_weights_is_loaded_is_told(engine: EngineProcess) -> None:
    health = engine.health()
    assert health.loaded_bytes == health.total_bytes == engine.model.nbytes > 0


def test_a_job_is_cancelled(engine: EngineProcess) -> None:
    heard = Heard(engine, job("talk", 5, 30, max_tokens=100_000))
    heard.until(Token)
    answered = engine._dispatch.good_turns
    engine.cancel("talk")
    ended = heard.end()
    assert isinstance(ended, Ended) and ended.reason == "cancelled"
    assert engine._dispatch.good_turns == answered + 1, "a stop text ends a turn by a cancel"


def test_calls_are_answered(engine: EngineProcess) -> None:
    ask(engine, job("calls", 9, 100))
    nodes = engine.tree({})
    assert engine.pin(nodes[0].id, is_pinned=True) and not engine.pin(-1, is_pinned=True)
    assert engine.stats()["jobs"] == 0
    assert engine.delete_node(-1) is None
    engine.check('start: "yes"')
    with pytest.raises(ValueError, match="error"):
        engine.check("start: %%%")


def test_a_sink_that_fails_ends_its_own_job(engine: EngineProcess) -> None:
    heard: list[Output] = []

    def sink(output: Output) -> None:
        heard.append(output)
        if isinstance(output, Token):
            raise RuntimeError("planted")

    engine.submit(job("deaf", 3, 30, max_tokens=100_000), sink)
    assert isinstance(ask(engine, job("other", 4, 30))[-1], Ended)
    assert isinstance(heard[-1], Failed) and sum(isinstance(o, Token) for o in heard) == 1


def test_an_answer_that_is_quicker_than_the_return_of_submit_is_heard_whole(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = job("slow", 11, 30)
    told = ask(engine, slow)
    run = engine._supervisor._run
    assert run is not None
    post = run.link.post

    def lose_the_processor(packet: Packet, about: str = "") -> None:
        post(packet, about)
        time.sleep(1)

    monkeypatch.setattr(run.link, "post", lose_the_processor)
    again = ask(engine, slow)
    assert [type(o) for o in again if isinstance(o, (Leased, Token))] == [
        type(o) for o in told if isinstance(o, (Leased, Token))
    ]


def test_a_job_that_comes_before_the_model_waits_for_it(model: Path) -> None:
    engine = EngineProcess(str(model), Settings(disk=False), INFO)
    engine.begin()
    assert engine.health().state == "loading" and engine.health().why is not None
    try:
        assert isinstance(ask(engine, job("early", 1, 30))[-1], Ended)
    finally:
        assert engine.stop()
    assert isinstance(ask(engine, job("late", 1, 30))[-1], Failed)


def test_a_model_that_cannot_be_used_ends_it_with_the_reason(tmp_path: Path) -> None:
    engine = EngineProcess(str(tmp_path / "none"), Settings(disk=False), INFO)
    engine.begin()
    with pytest.raises(ConfigError, match="none"):
        engine.wait_ready(WAIT_S)
    last = ask(engine, job("late", 1, 30))[-1]
    assert isinstance(last, Failed) and isinstance(last.error, EngineError)
    assert engine.health().state == "ended"
    engine.stop()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("engine_without_mlx", "the package mlx is not installed"),
        ("engine_with_broken_mlx", "the package mlx cannot be loaded .*shared object"),
    ],
)
def test_where_mlx_cannot_be_had_it_says_so(model: Path, module: str, said: str) -> None:
    engine = EngineProcess(str(model), Settings(disk=False), INFO, module)
    engine.begin()
    with pytest.raises(MissingMlx, match=said):
        engine.wait_ready(WAIT_S)
    assert engine.health().state == "missing"
    assert isinstance(ask(engine, job("late", 1, 30))[-1], Failed)
    assert engine.stop()


def test_a_process_that_never_gets_up_is_started_again_and_again(model: Path) -> None:
    engine = EngineProcess(str(model), Settings(disk=False), INFO, "no_such_module")
    engine.begin()
    early = Heard(engine, job("early", 1, 30))
    assert eventually(lambda: engine.health().restarts >= 3)
    assert "no_such_module" in engine.health().last_words
    assert engine.health().state == "restarting" and not early.outputs
    assert engine.stop()
    assert isinstance(early.end(1), Failed)


def test_it_can_be_stopped_while_it_loads(model: Path) -> None:
    engine = EngineProcess(str(model), Settings(disk=False), INFO)
    engine.begin()
    with pytest.raises(Overloaded):
        engine.wait_ready(0.01)
    assert engine.stop()
    assert isinstance(ask(engine, job("late", 1, 30))[-1], Failed)
