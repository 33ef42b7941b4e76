"""`everwarm bench compare` on the terminal: several running servers, one workload."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from everwarm.client import ChatClient
from everwarm.errors import ConfigError
from everwarm.lab import compare
from everwarm.lab import result as results
from everwarm.lab.commands.target import told
from everwarm.lab.compare import ComparePlan, CompareRun, new_result, summary


def named(servers: Sequence[str]) -> dict[str, str]:
    """URLs by name, of NAME=URL texts. Raises ConfigError."""
    out: dict[str, str] = {}
    for text in servers:
        name, equals, url = text.partition("=")
        if not (name and equals and url.startswith(("http://", "https://"))):
            raise ConfigError(
                f"A server is NAME=URL, such as mine=http://127.0.0.1:8642; not {text}."
            )
        if name in out:
            raise ConfigError(f"There are two servers called {name}.")
        out[name] = url
    return out


def run(
    urls: dict[str, str],
    models: dict[str, str],
    plan: ComparePlan,
    out: Path,
    *,
    api_key: str | None,
    restarted: bool,
    as_json: bool,
) -> int:
    """Play the workload, save after each request, write the report; the exit code.

    `restarted`: only ask the last prompt of the run in `out` again. `models` names the model where
    a server takes another name than the first it lists.
    """
    if unknown := [n for n in models if n not in urls]:
        raise ConfigError(f"--model-name names {unknown[0]}, which is not among the servers.")
    say, path, code = Console(stderr=True), out / "compare.json", 0
    old = results.load(path, "compare") if restarted else None
    if old is not None:
        plan = ComparePlan(**{f: old.plan[f] for f in ComparePlan.__dataclass_fields__})
    with ExitStack() as stack:
        clients = {n: stack.enter_context(ChatClient(u, api_key=api_key)) for n, u in urls.items()}
        chosen = {n: models.get(n) or c.models()[0] for n, c in clients.items()}
        result = old or new_result(chosen, plan)
        played = CompareRun(clients, chosen, plan, result)
        try:
            with say.status("starting") as status:
                for _ in played.restarted() if restarted else played.measured():
                    result.save(path, summary=summary(result.rows))
                    status.update(played.doing)
        except KeyboardInterrupt:
            say.print("Interrupted; what was measured is kept.")
            code = 130
    result.save(path, summary=summary(result.rows))
    files = [path, *compare.write(result, out)]
    told(say, f"{len(result.rows)} requests to {len(urls)} servers.", files)
    if as_json:
        print(path.read_text(encoding="utf-8"))
    return code
