"""A real agent against a real server: `python tests/clients/live.py codex CLIENTS_DIR`.

The replies are dictated: a small proxy adds `everwarm.reply` to what the agent sends. All else is
real: the agent runs its tools, and a second process resumes the session. Not part of the suite,
since it wants the agent: `npm install --prefix CLIENTS_DIR @openai/codex@0.169.0
@anthropic-ai/claude-code@2.1.330` (tried with these, November 2026).

Prints each turn's counts and both ratios, and fails where a step does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from serving import Server, save_talker, serving

from everwarm.engine.convert import convert
from everwarm.models import ensure_default

THOUGHT = "<think>Let me think.</think>"
DONE = "All is done."
RESUMED = "As I said."
CODEX = """
model = "local-model"
model_provider = "local"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
model_context_window = 131072
[analytics]
enabled = false
[model_providers.local]
name = "Local"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "LOCAL_API_KEY"
[projects."{project}"]
trust_level = "trusted"
"""


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def replies(shell: Callable[[str], str]) -> list[str]:
    """Three steps with tools, two of them at once, an end, and the answer after a resume."""
    both = shell("echo one") + shell("echo two")
    return [
        f"{THOUGHT}I look.{shell('ls')}",
        f"{THOUGHT}{shell('cat lake.txt')}",
        f"{THOUGHT}Both.{both}",
        THOUGHT + DONE,
        THOUGHT + RESUMED,
    ]


SHELLS: dict[str, Callable[[str], str]] = {
    "codex": lambda command: call("exec_command", cmd=command),
    "claude": lambda command: call("Bash", command=command, description="Runs it."),
}


def proxy(server: Server, script: list[str]) -> type[BaseHTTPRequestHandler]:
    """Passes everything on, and dictates the reply to what has tools."""
    left = list(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if "max_tokens" in body or "input" in body:
                said = left.pop(0) if body.get("tools") and left else "A title"
                body |= {"everwarm": {"reply": said}, "model": "default"}
            self.forward(json.dumps(body).encode())

        def do_GET(self) -> None:
            self.forward(None)

        do_HEAD = do_GET

        def forward(self, body: bytes | None) -> None:
            line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
            dropped = {"host", "content-length", "accept-encoding", "connection"}
            kept = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            line.request(self.command, self.path, body, kept)
            answer = line.getresponse()
            self.send_response(answer.status)
            self.send_header("content-type", answer.getheader("content-type") or "text/plain")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            while part := answer.read1(65536):
                self.wfile.write(part)
                self.wfile.flush()

    return Handler


def commands(agent: str, url: str, home: Path, project: Path) -> tuple[list[list[str]], Any]:
    """What is run, and the variables it needs."""
    if agent == "codex":
        (home / ".codex").mkdir()
        text = CODEX.format(url=url, project=project)
        (home / ".codex" / "config.toml").write_text(text)
        resume = ["codex", "exec", "resume", "--last", "What was it?"]
        return [["codex", "exec", "Look around."], resume], {"LOCAL_API_KEY": "none"}
    more = ["--model", "local-model", "--allowedTools", "Bash,Read"]
    quiet = ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "DISABLE_TELEMETRY"]
    env = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none"} | dict.fromkeys(quiet, "1")
    first = ["claude", "-p", "Look around.", *more]
    return [first, ["claude", "-p", "What was it?", *more, "--continue"]], env


def run(agent: str, clients: Path, server: Server, at: Path) -> None:
    """The session; raises where a step fails."""
    handler = proxy(server, replies(SHELLS[agent]))
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    home, project = at / "home", at / "project"
    home.mkdir()
    project.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)  # codex wants a repository
    (project / "lake.txt").write_text("It is deep.\n")
    url = f"http://127.0.0.1:{listening.server_port}"
    steps, env = commands(agent, url, home, project)
    path = f"{clients / 'node_modules' / '.bin'}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(home), "TERM": "xterm", "LANG": "C.UTF-8"} | env
    for step, expected in zip(steps, [DONE, RESUMED], strict=True):
        done = subprocess.run(
            step,
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        print("$", *step, "->", done.returncode)
        assert done.returncode == 0 and expected in done.stdout, done.stdout + done.stderr
    listening.shutdown()


def report(server: Server) -> None:
    """Each turn, and what the session cost."""
    turns = server.call("GET", "/api/turns?limit=100")[1]["turns"][::-1]
    names = ["prompt_tokens", "prefilled_tokens", "unseen_tokens", "new_tokens"]
    for t in turns:
        print(*(f"{n}={t[n]}" for n in names), f"finish={t['finish']}")
    _, prefilled, unseen, new = (sum(t[n] for t in turns) for n in names)
    print(f"reprocess ratio {prefilled / new:.3f}, cache ratio {prefilled / unseen:.3f}")
    assert prefilled <= 1.02 * new and prefilled <= 1.02 * unseen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agent", choices=SHELLS)
    parser.add_argument("clients", type=Path)
    args = parser.parse_args()
    home = os.environ.get("EVERWARM_TEST_HOME") or Path.home() / ".everwarm"
    smollm2 = ensure_default(Path(home), convert=convert)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        with serving(save_talker(at / "model", smollm2), "--forced-replies") as server:
            run(args.agent, args.clients.absolute(), server, at)
            report(server)


if __name__ == "__main__":
    main()
