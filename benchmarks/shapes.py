"""What the programs here share: the model shapes and the conversation live in the package."""

from __future__ import annotations

from pathlib import Path

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
from everwarm.engine.shapes import SHAPES, TEMPLATE, make_model
from everwarm.lab.conversation import TOOLS, conversation, question

__all__ = ["SHAPES", "TEMPLATE", "TOOLS", "conversation", "make_model", "no_convert", "question"]


def no_convert(source: Path, target: Path) -> None:
    """For `ensure_default`: a benchmark does not fetch the model whose tokenizer it uses."""
    raise SystemExit("run `everwarm pull` first: benchmarks use the default model's tokenizer")
