"""Tiny random-weight models and a long agent conversation, for benchmarks on a machine without GPU.

A shape keeps what decides the cost of a long context (one head of real attention, a window, a
recurrence) and drops the rest, so that 95,000 tokens are read in seconds instead of hours.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, save_model

_BASE: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "intermediate_size": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": 49152,
    "max_position_embeddings": 131072,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}
_DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "num_hidden_layers": 4,
    "model_type": "qwen3_5_text",
}
SHAPES: dict[str, dict[str, Any]] = {
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
TEMPLATE = (Path(__file__).parent / "agent_template.jinja").read_text()
_WORDS: list[str] = re.findall(
    r"\w+",
    "the a of to in and is for on with as by at from that this it "
    "be are was were not if then else function return class import value error "
    "test file path index cache token model server request response session message "
    "content update delete create build run config option default "
    "string list number boolean object array buffer stream thread lock queue worker event handler",
)


def make_model(shape: str, out_dir: Path, tokenizer_dir: Path) -> Path:
    """A model directory with seeded random weights, that tokenizer and the agent template."""
    config = json.loads(json.dumps(SHAPES[shape]))
    model_class, args_class = _get_classes(config)
    mx.random.seed(0)
    model = model_class(args_class.from_dict(config))
    weights = [(k, _weight(k, v)) for k, v in tree_flatten(model.parameters())]
    model.load_weights(weights, strict=False)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_model(out_dir, model)
    (out_dir / "config.json").write_text(json.dumps(config))
    shutil.copy(tokenizer_dir / "tokenizer.json", out_dir)
    about = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    about["chat_template"] = TEMPLATE
    (out_dir / "tokenizer_config.json").write_text(json.dumps(about))
    return out_dir


def no_convert(source: Path, target: Path) -> None:
    """For `ensure_default`: a benchmark does not fetch the model whose tokenizer it uses."""
    raise SystemExit("run `everwarm pull` first: benchmarks use the default model's tokenizer")


def _weight(path: str, value: mx.array) -> mx.array:
    """Weights that are neither zero nor huge, so that a state depends on every token."""
    if value.size > 1 and mx.all(value == 0).item():
        value = 0.1 * mx.random.normal(value.shape)
    if value.ndim >= 2 and not any(part in path for part in ("conv", "embed", "A_log")):
        value = mx.random.normal(value.shape) / value.shape[-1] ** 0.5
    return value.astype(mx.float32)


def _tool(name: str, about: str, params: dict[str, str]) -> dict[str, Any]:
    properties = {p: {"type": t, "description": f"The {p}. {about}"} for p, t in params.items()}
    schema = {"type": "object", "properties": properties, "required": list(params)[:1]}
    function = {"name": name, "description": about, "parameters": schema}
    return {"type": "function", "function": function}


TOOLS = [
    _tool("read_file", "Reads numbered lines.", {"path": "string", "offset": "integer"}),
    _tool("write_file", "Replaces a file.", {"path": "string", "content": "string"}),
    _tool("bash", "Runs a command.", {"command": "string", "timeout": "integer"}),
    _tool("grep", "Searches contents.", {"pattern": "string", "path": "string"}),
]


def conversation(n_messages: int = 266, lines: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    """A coding agent's history: long tool results, short remarks; ends with a user message."""
    r = random.Random(seed)
    out = [{"role": "system", "content": f"You are a coding agent. {_prose(r, 900)}"}]
    while len(out) < n_messages:
        out.append({"role": "user", "content": _prose(r, r.randint(20, 80))})
        for _ in range(r.randint(4, 9)):
            out += _call(r, lines)
        out.append({"role": "assistant", "content": _prose(r, r.randint(40, 160))})
    last = {"role": "user", "content": "Now fix the failing test and explain the cause."}
    # The answer in front of the last question must not be a call without its result.
    kept = out[: n_messages - 2]
    return [*kept, {"role": "assistant", "content": _prose(r, 60)}, last]


def question(n: int) -> str:
    """The user's n-th message behind a conversation."""
    r = random.Random(1000 + n)
    return f"Step {n}: {_prose(r, 12)} and then run the tests again."


def _call(r: random.Random, lines: int) -> list[dict[str, Any]]:
    arguments = json.dumps({"path": "/".join(r.choices(_WORDS, k=3)), "offset": r.randint(0, 900)})
    function = {"name": "read_file", "arguments": arguments}
    call = {"id": f"call{r.getrandbits(40):010x}", "type": "function", "function": function}
    remark = {"role": "assistant", "content": _prose(r, r.randint(10, 50)), "tool_calls": [call]}
    result = _code(r, r.randint(lines // 2, lines * 2))
    return [remark, {"role": "tool", "tool_call_id": call["id"], "content": result}]


def _prose(r: random.Random, n: int) -> str:
    words = [r.choice(_WORDS) + ("." if r.random() < 0.08 else "") for _ in range(n)]
    return " ".join(words).capitalize()


def _code(r: random.Random, n: int) -> str:
    out = []
    for _ in range(n):
        pad, (a, b, c) = "    " * r.randint(0, 4), r.choices(_WORDS, k=3)
        out.append(
            r.choice(
                [
                    f"{pad}def {a}_{b}(self, {c}: int = {r.randint(0, 999)}) -> str:",
                    f'{pad}{a} = {b}.{c}({r.randint(0, 99999)}, "{_prose(r, 3)}")',
                    f"{pad}if {a} != {b}[{r.randint(0, 64)}]:  # {_prose(r, 5)}",
                    f'{pad}return {{"{a}": {b}, "{c}": 0x{r.getrandbits(32):08x}}}',
                    "",
                ]
            )
        )
    return "\n".join(out)
