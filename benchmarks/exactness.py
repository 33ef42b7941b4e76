"""Warm against cold for every cache family that mlx-lm runs here; writes `docs/exactness.md`.

    python benchmarks/exactness.py [--only FAMILY ...] [--page]

Each mode (BLAS, dtype) is a process of its own, since the BLAS is chosen once per process. *Same
calls*: a fresh cache is fed the calls that made the warm state, then the turn's own. *Cold*: the
whole sequence is read in chunks of 16. *Two cold runs*: any two with chunks
of 1, 3, 5, 7, 16, 24, 31, 48.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "exactness.json"
PAGE = ROOT / "docs" / "exactness.md"
LIMITS = """
## Limits

- The promise is about the same calls. Between other calls an optimised BLAS, a block scan (mamba2
  and its relatives) and latent attention (deepseek, glm_moe_dsa, longcat_flash: a call of one token
  takes another path through the model) round differently, warm or cold.
- Where a place was read twice in other calls (after an eviction, or behind a checkpoint), rows of
  one reading may meet a checkpoint of the other. No single run makes that state; its logits differ
  from either by rounding (2e-6 in random histories, `tests/exact/test_random.py`).
- deepseek_v41 chooses what it attends to, so rounding can flip a choice: its cold runs differ by
  jumps, not by noise.
- Layers of a class that everwarm does not know (llama4, deepseek_v41) are copied whole at each
  checkpoint, and their next token is not computed before the last one is known.
- Quantized KV caches, Metal and CUDA are not in this table.
"""
MODES = (("reference", "float32"), ("openblas", "float32"), ("openblas", "bfloat16"))
SOME = ("continue", "branch")
CHUNKS = (16, 1, 3, 5, 7, 24, 31, 48)


def measure(blas: str, dtype: str, families: list[str]) -> dict[str, Any]:
    """One mode, in this process: family -> operation -> differences."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import client_replay as replay
    from operations import OPERATIONS

    mx, zoo = replay.mx, replay.zoo
    out: dict[str, Any] = {}
    for family in families or zoo.FAMILIES:
        row: dict[str, Any] = {}
        try:
            model = zoo.make(zoo.small(family), getattr(mx, dtype))
            for name in OPERATIONS if blas == "reference" else SOME:
                warm = both(replay, model)
                OPERATIONS[name](warm)
                row[name] = [warm.difference, warm.from_cold, warm.two_colds]
        except RuntimeError as e:  # how MLX says that it has no kernel for a type
            row = {"error": str(e)}
        out[family] = row
        print(family, row, file=sys.stderr, flush=True)
    return out


def both(replay: Any, model: Any) -> Any:
    """A `replay.Warm` that also compares with cold runs in other chunks."""

    class Both(replay.Warm):  # type: ignore[misc,name-defined]
        from_cold = two_colds = 0.0

        def judge(self, turn: Any, calls: list[Any]) -> None:
            super().judge(turn, calls)
            at = turn.leased.cached_tokens
            ids = turn.tokens[:at] + [i for call, _ in calls for i in call]
            if not at or os.environ.get("EVERWARM_BLAS") == "reference":
                return
            warm = replay.mx.concatenate([logits for _, logits in calls])
            colds = [cold(replay, model, ids, n)[at:] for n in CHUNKS]
            self.from_cold = max(self.from_cold, replay.distance(warm, colds[0]))
            for one, other in combinations(colds, 2):
                self.two_colds = max(self.two_colds, replay.distance(one, other))

    return Both(model)


def cold(replay: Any, model: Any, ids: list[int], step: int) -> Any:
    """Logits of a whole sequence that a fresh cache reads in chunks."""
    cache = replay.make_prompt_cache(model)
    cuts = [*range(0, len(ids), step), len(ids)]
    return replay.mx.concatenate([replay.feed(model, cache, ids[a:b]) for a, b in pairwise(cuts)])


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    exact = result["reference float32"]
    names = list(next(iter(exact.values())))
    lines = [
        "# Warm equals cold, measured",
        "",
        "Made by `python benchmarks/exactness.py`; the figures are in",
        f"`benchmarks/results/{RESULT.name}`. {result['machine']}.",
        "",
        "Tiny random models of every cache family that mlx-lm runs on a CPU, windows of 16,",
        "prompts of 40 to 110 tokens, chunks of 16; logits have a deviation of about 1.",
        "",
        "## The same calls, reference BLAS, float32",
        "",
        "Largest logit difference between a warm turn and a fresh cache that was fed the same",
        "calls from token 0. `tests/exact` holds all of them at 0.",
        "",
        "| family | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {f} | " + " | ".join(short(row[n][0]) for n in names) + " |"
          for f, row in exact.items()),
        "",
        "## Other calls",
        "",
        f"Largest difference over {', '.join(SOME)}. *Same*: as above. *Warm*: a warm turn against",
        "a cold run in chunks of 16. *Two colds*: cold runs in eight chunk sizes from 1 to 48, any",
        "two of them. Since *same* is 0, a warm turn is itself a cold run in chunks of its own, so",
        "it should be as far off as those are from each other. It is further off (one float32 and",
        "the next are 4.8e-7 apart at the size of the largest logits) in:",
        "",
        *(further_off(result) or ["- none"]),
        "",
        "A dash: MLX has no bfloat16 kernel for such experts on a CPU.",
        "",
        "| family | OpenBLAS: same | warm | two colds | bfloat16: same | warm | two colds |",
        "|---|---|---|---|---|---|---|",
        *(f"| {f} | {cells(result['openblas float32'][f])} | "
          f"{cells(result['openblas bfloat16'][f])} |" for f in exact),
    ]  # fmt: skip
    return "\n".join(lines) + "\n" + LIMITS


def further_off(result: dict[str, Any]) -> list[str]:
    """Families and modes where a warm turn is further off than two cold runs."""
    return [
        f"- {family}, {mode}: by {row_max(row, 1) - row_max(row, 2):.1g}"
        for mode in ("openblas float32", "openblas bfloat16")
        for family, row in result[mode].items()
        if "error" not in row and row_max(row, 1) > row_max(row, 2)
    ]


def row_max(row: dict[str, Any], k: int) -> float:
    return max(v[k] for v in row.values())


def cells(row: dict[str, Any]) -> str:
    """Same, warm and two colds; a dash where MLX has no kernel."""
    if "error" in row:
        return "- | - | -"
    return " | ".join(short(row_max(row, k)) for k in (0, 1, 2))


def short(value: float) -> str:
    return f"{value:.1g}" if value else "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="families")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    parser.add_argument("--mode", nargs=2, help="measure one mode and print it (internal)")
    args = parser.parse_args()
    if args.mode:
        print(json.dumps(measure(*args.mode, args.only)))
        return
    if args.page:
        PAGE.write_text(page(json.loads(RESULT.read_text())))
        return
    result: dict[str, Any] = {"machine": machine()}
    for blas, dtype in MODES:
        command = [sys.executable, __file__, "--mode", blas, dtype, "--only", *args.only]
        run = subprocess.run(
            command, env={**os.environ, "EVERWARM_BLAS": blas}, stdout=subprocess.PIPE, check=True
        )
        result[f"{blas} {dtype}"] = json.loads(run.stdout)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result))


def machine() -> str:
    from importlib.metadata import version

    return f"mlx {version('mlx')}, mlx-lm {version('mlx-lm')}, {sys.platform}, CPU"


if __name__ == "__main__":
    main()
