"""What does not hold for a model is said at the start, in the lists of models, and on the pages."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgi import ask
from prompt_templates import HABITS, PROVED, REPEATS
from serving import save_talker

from everwarm.compose import create_app
from everwarm.config import Settings
from everwarm.job import EngineHealth, ModelInfo
from everwarm.prompt.proof import KINDS
from everwarm.text.text_codec import TextCodec

MakeCodec = Callable[..., TextCodec]
HOST = [("Host", "localhost")]
ANTHROPIC = [*HOST, ("anthropic-version", "2023-06-01")]
REFUSES_RESULTS_IN_TWO_LINES = REPEATS["texts"].replace(
    "{% for m in messages %}",
    "{% for m in messages %}{% if m.role == 'tool' and messages | length > 3 %}"
    "{{ raise_exception('no\n\n  results,\n[31m please') }}{% endif %}",
)


class Engine:
    """An engine of which nothing is asked."""

    model = ModelInfo("tiny", 4096, 512, 0, 0, "none")

    def health(self) -> EngineHealth:
        return EngineHealth()


def told(codec: TextCodec, headers: list[tuple[str, str]] = HOST) -> dict[str, Any]:
    """The only model of the list, which must be the one that is told by its name, too."""
    app = create_app(Engine(), codec, Settings())  # type: ignore[arg-type]
    found: dict[str, Any] = ask(app, "/v1/models", method="GET", headers=headers).json["data"][0]
    assert ask(app, "/v1/models/tiny", method="GET", headers=headers).json == found
    return found


@pytest.mark.parametrize("headers", [HOST, ANTHROPIC], ids=["openai", "anthropic"])
def test_a_model_for_which_all_holds_has_no_limits(
    codec: MakeCodec, caplog: pytest.LogCaptureFixture, headers: list[tuple[str, str]]
) -> None:
    said = told(codec(PROVED["drops_reasoning"]), headers)["everwarm"]
    assert said == {
        "dialect": "derived",
        "proved": list(KINDS),
        "not_proved": {},
        "limits": [],
    }
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("headers", [HOST, ANTHROPIC], ids=["openai", "anthropic"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_proof_that_fails_is_said_once_at_the_start_and_in_the_list(
    codec: MakeCodec, caplog: pytest.LogCaptureFixture, kind: str, headers: list[tuple[str, str]]
) -> None:
    said = told(codec(REPEATS[kind]), headers)["everwarm"]
    assert kind in said["not_proved"] and said["not_proved"][kind]
    assert kind not in said["proved"]
    assert sorted([*said["proved"], *said["not_proved"]]) == sorted(KINDS)
    (limit,) = said["limits"]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line == f"tiny: {limit}"
    assert said["not_proved"][kind] in limit


def test_a_templates_own_words_stay_in_one_line(
    codec: MakeCodec, caplog: pytest.LogCaptureFixture
) -> None:
    told(codec(REFUSES_RESULTS_IN_TWO_LINES))
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "no results," in line and line.isprintable()


@pytest.mark.parametrize("name", ["turns_alone", "no_control_tokens"])
def test_a_model_without_a_notation_for_calls_says_that_tools_have_no_effect(
    marked_codec: Callable[[str, list[str]], TextCodec], name: str
) -> None:
    said = told(marked_codec(HABITS[name], []))
    assert said["capabilities"]["tools"] is False
    (limit,) = said["everwarm"]["limits"]
    assert "no notation for tool calls" in limit


def test_the_dashboard_shows_what_the_list_does(codec: MakeCodec) -> None:
    from everwarm.wire.model_json import openai_model

    app = create_app(Engine(), codec(REPEATS["calls"]), Settings())  # type: ignore[arg-type]
    listed = ask(app, "/v1/models", method="GET").json["data"][0]
    assert listed["everwarm"]["limits"] and listed["capabilities"]["tools"]
    assert openai_model(Engine.model).keys() == listed.keys()


def test_a_server_says_it_when_it_starts(tmp_path: Path, smollm2: Path) -> None:
    model = save_talker(tmp_path, smollm2, template=REPEATS["parallel_calls"])
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().split(":")[-1].split("/")[0])
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert port
    said = [line for line in errors.splitlines() if "several tool calls" in line]
    assert len(said) == 1 and said[0].startswith("talker: ")
    assert json.dumps(said[0]).isascii()
