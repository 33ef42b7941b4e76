"""What the programs here share: model shapes, and an agent's long conversation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
from everwarm.lab.conversation import TOOLS, WORDS, code, prose, tool_call
from everwarm.lab.shapes import SHAPES, TEMPLATE, make_model

__all__ = ["SHAPES", "TEMPLATE", "TOOLS", "conversation", "make_model", "no_convert", "question"]


def no_convert(source: Path, target: Path) -> None:
    """For `ensure_default`: a benchmark does not fetch the model whose tokenizer it uses."""
    raise SystemExit("run `everwarm pull` first: benchmarks use the default model's tokenizer")


def conversation(n_messages: int = 266, lines: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    """An agent's history: long tool results, short remarks; ends with a user message."""
    r = random.Random(seed)
    out = [{"role": "system", "content": f"You are a coding agent. {prose(r, 900)}"}]
    while len(out) < n_messages:
        out.append({"role": "user", "content": prose(r, r.randint(20, 80))})
        for _ in range(r.randint(4, 9)):
            out += _call_and_result(r, lines)
        out.append({"role": "assistant", "content": prose(r, r.randint(40, 160))})
    last = {"role": "user", "content": "Now fix the failing test and explain the cause."}
    # The answer in front of the last question must not be a call without its result.
    kept = out[: n_messages - 2]
    return [*kept, {"role": "assistant", "content": prose(r, 60)}, last]


def question(n: int) -> str:
    """The user's n-th message behind a conversation."""
    r = random.Random(1000 + n)
    return f"Step {n}: {prose(r, 12)} and then run the tests again."


def _call_and_result(r: random.Random, lines: int) -> list[dict[str, Any]]:
    arguments = {"path": "/".join(r.choices(WORDS, k=3)), "offset": r.randint(0, 900)}
    call = tool_call(r, "read_file", arguments)
    remark = {"role": "assistant", "content": prose(r, r.randint(10, 50)), "tool_calls": [call]}
    result = code(r, r.randint(lines // 2, lines * 2))
    return [remark, {"role": "tool", "tool_call_id": call["id"], "content": result}]
