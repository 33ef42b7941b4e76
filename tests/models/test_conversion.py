"""The default model is converted in a process of its own, and what goes wrong is one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
from without_packages import environment_without

from everwarm.engine.model import load_model
from everwarm.errors import ConfigError
from everwarm.models.conversion import convert_apart

WORDS = ["<unk>", "<s>", "</s>", *"abcdefgh", "ab"]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama of one layer."""
    d, n = 32, len(WORDS)
    shapes = {
        "token_embd": (n, d), "output_norm": (d,), "blk.0.attn_q": (d, d), "blk.0.attn_k": (d, d),
        "blk.0.attn_v": (d, d), "blk.0.attn_output": (d, d), "blk.0.ffn_gate": (64, d),
        "blk.0.ffn_up": (64, d), "blk.0.ffn_down": (d, 64), "blk.0.attn_norm": (d,),
        "blk.0.ffn_norm": (d,),
    }  # fmt: skip
    weights = {f"{k}.weight": mx.random.normal(s) for k, s in shapes.items()}
    numbers = {
        "llama.attention.head_count": 2, "llama.attention.head_count_kv": 2,
        "llama.embedding_length": d, "llama.feed_forward_length": 64, "llama.block_count": 1,
        "llama.context_length": 256, "llama.vocab_size": n, "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }  # fmt: skip
    meta = {
        **{k: mx.array(v, dtype=mx.uint32) for k, v in numbers.items()},
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5),
        "llama.rope.freq_base": mx.array(10000.0),
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.ggml.token_type": mx.array([3, 3, 3, *[1] * (n - 3)], dtype=mx.int32),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.chat_template": "{% for m in messages %}<s>{{ m.content }}{% endfor %}",
    }
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    mx.save_gguf(str(path), weights, meta)
    return path


def test_a_model_converted_apart_can_be_loaded(gguf: Path, tmp_path: Path) -> None:
    convert_apart(gguf, tmp_path / "made")
    seen: list[tuple[int, int]] = []
    loaded = load_model(
        str(tmp_path / "made"),
        model_id=None,
        context_length=None,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert loaded.codec.encode("abc") == [len(WORDS) - 1, WORDS.index("c")]
    assert seen[0][0] == 0 and seen[-1] == (loaded.info.nbytes, loaded.info.nbytes)


def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"cannot be converted \(.+\)\. Try again") as e:
        convert_apart(tmp_path / "bad.gguf", tmp_path / "made")
    assert "\n" not in e.value.message


TELL = """
import sys
from pathlib import Path
from everwarm.errors import ConfigError
from everwarm.models.conversion import convert_apart
try:
    convert_apart(Path(sys.argv[1]), Path(sys.argv[2]))
except ConfigError as e:
    print(e.message)
"""


def test_without_mlx_the_conversion_says_what_is_missing(gguf: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELL, str(gguf), str(tmp_path / "made")],
        capture_output=True,
        text=True,
        env=environment_without(("mlx",), tmp_path / "site"),
    )
    assert done.stdout.count("\n") == 1, done.stderr
    assert "the package mlx, which does it, is not installed" in done.stdout


def test_a_conversion_ends_when_its_parent_is_killed(gguf: Path, tmp_path: Path) -> None:
    """It cannot end by itself: one of its files is a pipe that nobody reads."""
    (tmp_path / "made").mkdir()
    os.mkfifo(tmp_path / "made" / "config.json")
    parent = subprocess.Popen([sys.executable, "-c", TELL, str(gguf), str(tmp_path / "made")])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    if not children.is_file():
        parent.kill()
        parent.wait()
        pytest.skip("no list of children here")
    deadline = time.monotonic() + 30
    while not (found := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = Path(f"/proc/{found[0]}")
    while not any((tmp_path / "made").glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child.exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists()
