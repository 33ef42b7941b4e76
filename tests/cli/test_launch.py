"""`everwarm launch`: what an agent is started with, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zoo
from serving import Server, serving

from everwarm.cli.clients import CLIENTS, Served
from everwarm.cli.launch import run, script

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = Served(
    url="http://127.0.0.1:8642", model="SmolLM2-135M-Instruct", context_length=8192,
    has_reasoning=False,
)  # fmt: skip
AGENT = """\
import json, os, re, sys
told = " ".join([*sys.argv, *os.environ.values()])
folders = set(re.findall(r"(/\\S*/(?:everwarm-|tmp\\.)\\w+)/", told))
files = {n: open(f"{f}/{n}").read() for f in folders for n in os.listdir(f)}
def plain(text):
    for f in folders:
        text = text.replace(f, "FOLDER")
    return text
with open(os.environ["SEEN"], "w") as out:
    shell = ("SEEN", "_", "PWD", "OLDPWD", "SHLVL")
    env = {k: plain(v) for k, v in os.environ.items() if k not in shell}
    args = [plain(a) for a in sys.argv[1:]]
    json.dump({"env": env, "args": args, "files": files, "folders": sorted(folders)}, out)
if "--wait" in sys.argv:
    print("here", flush=True)
    sys.stdin.read()
sys.exit(7)
"""
"""Stands where an agent would: it notes what it was started with."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("models") / "tiny"
    with serving(zoo.save("llama", path, smollm2), "--api-key", "it's secret") as running:
        yield running


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A PATH on which every agent is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "agent.py").write_text(AGENT)
    for client in CLIENTS.values():
        starter = folder / client.command
        starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -ES "{folder}/agent.py" "$@"\n')
        starter.chmod(0o700)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    path = f"{folder}:{os.environ['PATH']}"
    more = {"PATH": path, "SEEN": str(tmp_path / "seen.json"), "TMPDIR": str(temporary)}
    return {**os.environ, **more, "ANTHROPIC_API_KEY": "theirs"}


def launch(server: Server, *args: str) -> list[str]:
    own = ["--url", server.root, "--api-key", "it's secret"]
    name, *rest = args
    return [sys.executable, "-m", "everwarm", "launch", name, *own, *rest]


def seen(env: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(env["SEEN"]).read_text())
    Path(env["SEEN"]).unlink()
    assert not any(Path(f).exists() for f in found.pop("folders"))
    return found


@pytest.fixture
def here(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same, for what is started from this process."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", env["TMPDIR"])
    return env


@pytest.mark.parametrize("name", CLIENTS)
def test_what_is_printed_is_what_is_started(here: dict[str, str], name: str) -> None:
    at = replace(EXAMPLE, key="it's secret", context_length=7 * 11 * 13)
    assert run(name, at, ["a b", "--c"]) == 7
    first = seen(here)
    assert first["args"][-2:] == ["a b", "--c"]
    for told in (at.url, at.model, at.key, *(["1001"] if name != "cline" else [])):
        assert told in json.dumps(first), told
    printed = script(name, at)
    ran = subprocess.run(
        ["sh", "-s", "--", "a b", "--c"], input=printed, env={**os.environ}, text=True
    )
    assert ran.returncode == 7
    assert seen(here) == first
    assert os.listdir(here["TMPDIR"]) == []


def test_a_variable_that_would_win_is_taken_away(here: dict[str, str]) -> None:
    run("claude", EXAMPLE, [])
    assert "ANTHROPIC_API_KEY" not in seen(here)["env"]
    run("codex", EXAMPLE, [])
    assert seen(here)["env"]["ANTHROPIC_API_KEY"] == "theirs"


@pytest.mark.parametrize("theirs", ["/where/they/want", ""])
def test_a_default_is_for_who_has_set_nothing(
    here: dict[str, str], monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    monkeypatch.setenv("OPENCLAW_STATE_DIR", theirs)
    run("openclaw", EXAMPLE, ["--c"])
    first = seen(here)
    assert first["env"]["OPENCLAW_STATE_DIR"] == (theirs or "~/.openclaw")
    subprocess.run(["sh", "-s", "--", "--c"], input=script("openclaw", EXAMPLE), text=True)
    assert seen(here)["env"]["OPENCLAW_STATE_DIR"] == first["env"]["OPENCLAW_STATE_DIR"]


def test_without_arguments_some_are_given_their_own(here: dict[str, str]) -> None:
    run("openclaw", EXAMPLE, [])
    assert seen(here)["args"] == ["chat"]


def test_the_running_server_is_what_is_launched_at(server: Server, env: dict[str, str]) -> None:
    model = server.call("GET", "/v1/models", x_api_key="it's secret")[1]["data"][0]
    done = subprocess.run(launch(server, "codex", "--", "exec"), env=env)
    assert done.returncode == 7
    found = seen(env)
    assert found["env"]["EVERWARM_API_KEY"] == "it's secret"
    assert f"model_context_window={model['context_length']}" in found["args"]
    assert f'model="{model["id"]}"' in found["args"]


def test_an_end_of_the_launcher_ends_the_agent_and_leaves_nothing(
    server: Server, env: dict[str, str]
) -> None:
    process = subprocess.Popen(
        launch(server, "pi", "--", "--wait"),
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    assert len(os.listdir(env["TMPDIR"])) == 1
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)  # its input stays open: the end of that would end the agent, too
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert os.listdir(env["TMPDIR"]) == []


def test_what_is_missing_is_said_with_the_way_out(server: Server, env: dict[str, str]) -> None:
    def said(*command: str) -> tuple[int, str]:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        return done.returncode, done.stderr

    code, words = said(*launch(server, "vim"))
    assert code == 2 and "opencode, openclaw, claude" in words
    env["PATH"] = "/usr/bin:/bin"
    code, words = said(*launch(server, "pi"))
    if Path("/usr/bin/pi").exists():
        pytest.skip("there is a pi on this machine")
    assert (code, words) == (
        2,
        "everwarm: pi is not installed. Install it: npm install -g @mariozechner/pi-coding-agent\n",
    )
    nowhere = launch(Server(9), "pi")
    code, words = said(*nowhere)
    assert code == 1 and "start one with `everwarm serve`" in words


@pytest.mark.parametrize("name", CLIENTS)
def test_the_examples_are_what_launch_does(name: str) -> None:
    """To make them anew: EVERWARM_WRITE_EXAMPLES=1 python -m pytest tests/cli/test_launch.py"""
    path = EXAMPLES / f"{name}.sh"
    wanted = script(name, EXAMPLE)
    if os.environ.get("EVERWARM_WRITE_EXAMPLES"):
        path.write_text(wanted)
    assert path.read_text() == wanted
    assert {p.stem for p in EXAMPLES.glob("*.sh")} <= set(CLIENTS)


def test_codex_s_flags_are_toml() -> None:
    args = CLIENTS["codex"].setup(EXAMPLE, "").args
    given = tomllib.loads("\n".join(a for a in args if a != "-c"))
    assert given["model_providers"]["everwarm"]["base_url"] == EXAMPLE.v1
    assert given["model_context_window"] == 8192
