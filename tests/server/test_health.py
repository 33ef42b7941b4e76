"""Health tells the truth: 503 where no turn can be answered any more, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asgi import ask

from everwarm.compose import create_app
from everwarm.config import Settings
from everwarm.job import EngineHealth, ModelInfo
from everwarm.server.engine_state import LONG_STEP_S
from everwarm.text.load import load_text
from everwarm.text.text_codec import TextCodec


class Engine:
    """An engine that is as it is told."""

    model = ModelInfo("tiny", 4096, 512, 0, 0, "none")

    def __init__(self, health: EngineHealth) -> None:
        self._health = health

    def health(self) -> EngineHealth:
        return self._health


def seen(path: str, health: EngineHealth, codec: Any) -> tuple[int, dict[str, Any]]:
    app = create_app(Engine(health), codec, Settings())  # type: ignore[arg-type]
    answer = ask(app, path, method="GET")
    said = {k: v for k, v in answer.json.items() if not k.startswith("history_")}
    return answer.status, said


@pytest.fixture(scope="module")
def codec(smollm2: Path) -> TextCodec:
    return load_text(str(smollm2), model_id=None, context_length=None).codec


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_an_engine_that_answers_is_healthy(path: str, codec: TextCodec) -> None:
    status, body = seen(path, EngineHealth(step_s=5.0), codec)
    assert status == 200 and body == {"status": "ok", "model": "tiny"}


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_an_engine_that_has_ended_is_not(path: str, codec: TextCodec) -> None:
    status, body = seen(path, EngineHealth(why="The engine has ended (Oops)."), codec)
    assert status == 503
    assert body == {"status": "failed", "model": "tiny", "why": "The engine has ended (Oops)."}


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_very_long_step_is_said_and_is_no_failure(path: str, codec: TextCodec) -> None:
    status, body = seen(path, EngineHealth(step_s=LONG_STEP_S + 1), codec)
    assert status == 200 and body["status"] == "ok"
    assert "121 s" in body["why"]


def test_ready_tells_the_disks_state_without_asking_the_engine(codec: TextCodec) -> None:
    status, body = seen("/ready", EngineHealth(disk_state="full", disk_why="no space"), codec)
    assert status == 200
    assert body["disk_state"] == "full" and body["disk_why"] == "no space"
