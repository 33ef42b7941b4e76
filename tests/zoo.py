"""Tiny random-weight models, one per cache family, built with mlx-lm's own classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, save_model

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": 49152,
    "max_position_embeddings": 131072,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 64}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
}
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}
LATENT = {
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "moe_intermediate_size": 64,
    "n_shared_experts": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "moe_layer_freq": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "attention_bias": False,
    "index_head_dim": 32,
    "index_n_heads": 2,
    "index_topk": 64,
}
MAMBA2 = {
    "num_heads": 8,
    "head_dim": 16,
    "state_size": 16,
    "conv_kernel": 4,
    "n_groups": 2,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_limit": [0.0, 1e6],
    "time_step_rank": 4,
    "layer_norm_epsilon": 1e-5,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**BASE, "num_hidden_layers": 3},
    "gemma3_text": {
        **BASE,
        **WINDOW,
        "num_hidden_layers": 6,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 16,
    },
    "qwen3_5": {
        "text_config": {**BASE, **DELTA, "model_type": "qwen3_5_text", "num_hidden_layers": 4}
    },
    "gpt_oss": {
        **BASE,
        **WINDOW,
        "num_hidden_layers": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_scaling": YARN,
    },
    "deepseek_v32": {**BASE, **LATENT, "num_hidden_layers": 3},
    "mamba2": {**BASE, **MAMBA2, "num_hidden_layers": 3},
}


def build(name: str, **over: Any) -> tuple[Any, dict[str, Any]]:
    """A model with seeded weights, none of them zero, and its config."""
    config = json.loads(json.dumps({**CONFIGS[name], "model_type": name, **over}))
    model_class, args_class = _get_classes(config)
    mx.random.seed(0)
    model = model_class(args_class.from_dict(config))
    weights = [(k, _weight(k, v)) for k, v in tree_flatten(model.parameters())]
    model.load_weights(weights, strict=False)
    model.eval()
    mx.eval(model.parameters())
    return model, config


def _weight(path: str, value: mx.array) -> mx.array:
    if value.dtype not in (mx.float32, mx.bfloat16, mx.float16):
        return value
    if value.size > 1 and mx.all(value == 0).item():
        value = 0.1 * mx.random.normal(value.shape)
    if value.ndim >= 2 and not any(part in path for part in ("conv", "embed", "A_log")):
        value = mx.random.normal(value.shape) / value.shape[-1] ** 0.5
    return value.astype(mx.float32)


def save(name: str, out_dir: Path, tokenizer_dir: Path, **over: Any) -> Path:
    """A model directory that `load_model` reads."""
    model, config = build(name, **over)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_model(out_dir, model)
    (out_dir / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_dir / file, out_dir / file)
    return out_dir
