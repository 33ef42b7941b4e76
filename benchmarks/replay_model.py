"""Make a tiny hybrid model that thinks and calls tools, to replay recorded agents against.

    python benchmarks/replay_model.py DIR
    everwarm serve DIR/qwen3_5-4 --forced-replies --no-remember --prefill-step 512
    everwarm bench replay TRACE... --url URL

Its tokenizer is the default model's, with tokens for what the template and the dialect write.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import shapes
from transformers import AutoTokenizer

from everwarm.config import Settings
from everwarm.models import ensure_default

MARKERS = [
    f"<{slash}{name}>" for name in ("think", "tool_call", "tool_response") for slash in ("", "/")
]


def make_model(shape: str, out: Path, tokenizer_dir: Path, markers: list[str]) -> Path:
    """A tiny model with a token for each marker, as thinking models have."""
    with_markers = out / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    tokenizer.add_tokens(markers, True)
    tokenizer.save_pretrained(with_markers)
    about = json.loads((with_markers / "tokenizer_config.json").read_text())
    about["tool_parser_type"] = "json_tools"
    (with_markers / "tokenizer_config.json").write_text(json.dumps(about))
    config = shapes.SHAPES[shape]
    for part in (config, config.get("text_config", {})):
        if "vocab_size" in part:
            part["vocab_size"] = 49216
            part["max_position_embeddings"] = 262144
    return shapes.make_model(shape, out / shape, with_markers)


def main() -> None:
    """Write the model below a directory and print where it is."""
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("out", type=Path)
    args.add_argument("--shape", choices=list(shapes.SHAPES), default="qwen3_5-4")
    given = args.parse_args()
    tokenizer = ensure_default(Settings().home, convert=shapes.no_convert)
    print(make_model(given.shape, given.out, tokenizer, MARKERS))


if __name__ == "__main__":
    main()
