"""Turn SmolLM2's GGUF into an MLX model directory.

Lossless: MLX reads the blocks as (weight, scales, biases); llama.cpp's q/k permutation moves
whole rows. Without a GPU the weights are written as float32, where BLAS is fastest.

`python -m everwarm.engine.convert GGUF DIRECTORY` does it for a process that must not load MLX.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

GROUP = 32
_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def convert(gguf: Path, out: Path) -> None:
    """Write the model directory `out` from the file `gguf`."""
    packed = bool(mx.metal.is_available() or mx.cuda.is_available())
    loaded: Any = mx.load(str(gguf), return_metadata=True)
    weights, raw = loaded
    meta: dict[str, Any] = {
        k: v.item() if isinstance(v, mx.array) and v.size == 1 else v for k, v in raw.items()
    }
    tensors = _tensors(weights, meta)
    bits = _bits(tensors)
    if not packed:
        _unpack(tensors, bits)
    out.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(out / "model.safetensors"), tensors, {"format": "mlx"})
    config = _config(meta, tied="lm_head.weight" not in tensors)
    if packed:
        mixed = {k: {"group_size": GROUP, "bits": b} for k, b in bits.items() if b != 4}
        config["quantization"] = {"group_size": GROUP, "bits": 4, **mixed}
    (out / "config.json").write_text(json.dumps(config, indent=2))
    _write_tokenizer(meta, out)


def _tensors(weights: dict[str, mx.array], meta: dict[str, Any]) -> dict[str, mx.array]:
    heads = {
        "attn_q": meta["llama.attention.head_count"],
        "attn_k": meta["llama.attention.head_count_kv"],
    }
    out = {}
    for name, value in weights.items():
        part = name.split(".")[-2]
        w = _unpermute(value, heads[part]) if part in heads else value
        out[_name(name)] = w if w.dtype == mx.uint32 else w.astype(mx.float32)
    return out


def _unpermute(x: mx.array, n_head: int) -> mx.array:
    half = x.shape[0] // n_head // 2
    return x.reshape(n_head, half, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def _name(name: str) -> str:
    head, suffix = name.rsplit(".", 1)
    if head in _TOP:
        return f"{_TOP[head]}.{suffix}"
    _, layer, part = head.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{suffix}"


def _bits(tensors: dict[str, mx.array]) -> dict[str, int]:
    """Bits of each packed tensor: uint32 words times 32, by values."""
    bases = [n.removesuffix(".scales") for n in tensors if n.endswith(".scales")]
    return {
        b: tensors[f"{b}.weight"].shape[-1] * 32 // (tensors[f"{b}.scales"].shape[-1] * GROUP)
        for b in bases
    }


def _unpack(tensors: dict[str, mx.array], bits: dict[str, int]) -> None:
    for base, n in bits.items():
        w, s, b = (tensors.pop(f"{base}.{p}") for p in ("weight", "scales", "biases"))
        tensors[f"{base}.weight"] = mx.dequantize(w, s, b, group_size=GROUP, bits=n)


def _config(meta: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": meta["llama.embedding_length"],
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": meta["llama.attention.head_count"],
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": meta["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": meta["llama.rope.freq_base"],
        "vocab_size": meta["llama.vocab_size"],
        "tie_word_embeddings": tied,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float32",
    }


def _write_tokenizer(meta: dict[str, Any], out: Path) -> None:
    """Byte-level BPE; digits are split one by one before the GPT-2 rule."""
    tokens = meta["tokenizer.ggml.tokens"]
    kinds = meta["tokenizer.ggml.token_type"].tolist()
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    tok.decoder = decoders.ByteLevel()
    control = [t for t, k in zip(tokens, kinds, strict=True) if k == 3]
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    tok.save(str(out / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{k}_token": tokens[meta[f"tokenizer.ggml.{v}_token_id"]] for k, v in names.items()}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["llama.context_length"],
        "chat_template": meta["tokenizer.chat_template"],
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of our stdin, and end: what is half made is of no use.

    Runs on a thread of its own.
    """
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
