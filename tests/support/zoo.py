"""Tiny random-weight models, one per cache family, built with mlx-lm's own classes.

`families.json` holds what differs from its `base`; a family with `"base": null` stands alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, save_model

_FILE = json.loads((Path(__file__).parent / "families.json").read_text())
FAMILIES: tuple[str, ...] = tuple(_FILE["families"])
SMALL = {
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
    "sliding_window": 16,
    "attention_chunk_size": 16,
    "attention_window_size": 16,
    "index_topk": 16,
}
"""What `small` puts in place: 60 tokens then wrap windows and leave sparse selection a choice."""

FEWER_LAYERS: dict[str, dict[str, Any]] = {
    "gemma3_text": {"num_hidden_layers": 3},
    "deepseek_v41": {
        "num_hidden_layers": 2,
        "compress_ratios": [1, 4],
        "kv_source_layer_ids": [1],
        "index_source_layer_ids": [1],
    },
}
"""One of each kind where a family is slow."""


def config(name: str) -> dict[str, Any]:
    """A family's whole config."""
    own = json.loads(json.dumps(_FILE["families"][name]))
    if "text_config" in own:
        own["text_config"] = {**_FILE["base"], **own["text_config"]}
    elif own.pop("base", True) is not None:
        own = {**_FILE["base"], **own}
    return {"model_type": name, **own}


def small(name: str) -> dict[str, Any]:
    """The family's config with short windows and few words."""

    def shrink(c: dict[str, Any]) -> dict[str, Any]:
        c = {k: shrink(v) if isinstance(v, dict) else v for k, v in c.items()}
        return {k: SMALL.get(k, v) for k, v in c.items()}

    return shrink({**config(name), **FEWER_LAYERS.get(name, {})})


def build(name: str, **over: Any) -> tuple[Any, dict[str, Any]]:
    """A model with seeded weights, none of them zero, and its config."""
    whole = {**config(name), **over}
    return make(whole), whole


def make(config: dict[str, Any], dtype: mx.Dtype = mx.float32) -> Any:
    """A model of a config, with seeded weights."""
    model_class, args_class = _get_classes(json.loads(json.dumps(config)))
    mx.random.seed(0)
    model = model_class(args_class.from_dict(config))
    weights = [(k, _weight(k, v, dtype)) for k, v in tree_flatten(model.parameters())]
    model.load_weights(weights, strict=False)
    model.eval()
    mx.eval(model.parameters())
    return model


def _weight(path: str, value: mx.array, dtype: mx.Dtype) -> mx.array:
    if value.dtype not in (mx.float32, mx.bfloat16, mx.float16):
        return value
    if value.size > 1 and mx.all(value == 0).item():
        value = 0.1 * mx.random.normal(value.shape)
    if value.ndim >= 2 and not any(part in path for part in ("conv", "embed", "A_log")):
        value = mx.random.normal(value.shape) / value.shape[-1] ** 0.5
    keeps = any(part in path for part in ("A_log", "correction_bias"))
    return value if keeps else value.astype(dtype)


def save(name: str, out_dir: Path, tokenizer_dir: Path, **over: Any) -> Path:
    """A model directory that `load_model` reads."""
    model, config = build(name, **over)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_model(out_dir, model)
    (out_dir / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_dir / file, out_dir / file)
    return out_dir
