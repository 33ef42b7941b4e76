"""Tiny models with random weights, for benchmarks of a long context on a machine without a GPU.

A shape keeps what decides the cost of a long context (one head of real attention, a window, a
recurrence) and drops the rest, so that 100,000 tokens are read in minutes instead of hours. What
such a model writes means nothing; what it costs to read is measured.
"""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, save_model

from everwarm.errors import ConfigError

_BASE: Final[dict[str, Any]] = {
    "hidden_size": 64,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "intermediate_size": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": 49152,
    "max_position_embeddings": 262144,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}
_DELTA: Final[dict[str, Any]] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "num_hidden_layers": 4,
    "model_type": "qwen3_5_text",
}
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "llama-2x1": {**_BASE, "model_type": "llama", "num_hidden_layers": 2},
    "gemma3-4x1": {
        **_BASE,
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "sliding_window": 256,
        "sliding_window_pattern": 4,
        "query_pre_attn_scalar": 64,
    },
    "qwen3_5-4": {"model_type": "qwen3_5", "eos_token_id": 2, "text_config": {**_BASE, **_DELTA}},
}
ABOUT: Final = {
    "llama-2x1": "attention only, 2 layers",
    "gemma3-4x1": "3 layers with a window of 256 tokens, 1 with attention",
    "qwen3_5-4": "3 recurrent layers, 1 with attention",
}
TEMPLATE: Final = (resources.files(__package__) / "agent_template.jinja").read_text("utf-8")


def make_model(shape: str, out_dir: Path, tokenizer_dir: Path) -> Path:
    """Write a model directory: seeded random weights, that tokenizer, an agent's chat template."""
    if shape not in SHAPES:
        raise ConfigError(f"There is no shape {shape}; there are {', '.join(SHAPES)}.")
    config = json.loads(json.dumps(SHAPES[shape]))
    model_class, args_class = _get_classes(config)
    mx.random.seed(0)
    model = model_class(args_class.from_dict(config))
    flat: Any = tree_flatten(model.parameters())
    weights = [(k, _weight(k, v)) for k, v in flat]
    model.load_weights(weights, strict=False)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_model(out_dir, model)
    (out_dir / "config.json").write_text(json.dumps(config))
    shutil.copy(tokenizer_dir / "tokenizer.json", out_dir)
    about = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    about["chat_template"] = TEMPLATE
    (out_dir / "tokenizer_config.json").write_text(json.dumps(about))
    return out_dir


def _weight(path: str, value: mx.array) -> mx.array:
    """Weights that are neither zero nor huge, so that a state depends on every token."""
    if value.size > 1 and mx.all(value == 0).item():
        value = 0.1 * mx.random.normal(value.shape)
    if value.ndim >= 2 and not any(part in path for part in ("conv", "embed", "A_log")):
        value = mx.random.normal(value.shape) / value.shape[-1] ** 0.5
    return value.astype(mx.float32)
