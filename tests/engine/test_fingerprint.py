"""Another model's cache can never match; the same model is known again wherever it lies."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
import zoo

from everwarm.engine.fingerprint import fingerprint
from everwarm.engine.kv import Arrangement, arrange
from everwarm.engine.model import load_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return zoo.save("llama", tmp_path_factory.mktemp("models") / "llama", smollm2)


def print_of(path: Path, kv: Arrangement | None = None) -> bytes:
    loaded = load_model(str(path), model_id=None, context_length=None)
    arrange(loaded.model, kv or Arrangement())
    return fingerprint(loaded.model, loaded.config, path, path.parent / "sums.json")


def copied(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads((path / "config.json").read_text())
    change(value)
    (path / "config.json").write_text(json.dumps(value))


def weights(path: Path) -> None:
    file = path / "model.safetensors"
    held = mx.load(str(file))
    name = sorted(held)[0]
    held[name] = held[name] + 1e-3
    mx.save_safetensors(str(file), held)


def numbers(kind: str) -> Callable[[Path], None]:
    """The weights in numbers of another kind, as another conversion of the same model has them."""

    def change(path: Path) -> None:
        file = path / "model.safetensors"
        held = mx.load(str(file))
        mx.save_safetensors(str(file), {k: v.astype(getattr(mx, kind)) for k, v in held.items()})

    return change


CHANGES: dict[str, Callable[[Path], None]] = {
    "weights": weights,
    "rope": lambda p: config(p, lambda c: c.update(rope_theta=20000.0)),
    "rope scaling": lambda p: config(
        p, lambda c: c.update(rope_scaling={"rope_type": "linear", "factor": 2.0})
    ),
    "quantisation": lambda p: config(
        p, lambda c: c.update(quantization={"group_size": 64, "bits": 8})
    ),
    "numbers": numbers("bfloat16"),
    "norm": lambda p: config(p, lambda c: c.update(rms_norm_eps=1e-5)),
    "adapter": lambda p: mx.save_safetensors(
        str(p / "adapters.safetensors"), {"a": mx.zeros((2, 2))}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_that_alters_numbers_is_another_model(
    change: Callable[[Path], None], model_dir: Path, tmp_path: Path
) -> None:
    path = copied(model_dir, tmp_path)
    assert print_of(path) == print_of(model_dir)
    change(path)
    assert print_of(path) != print_of(model_dir)


def test_rows_kept_otherwise_are_another_models(tmp_path: Path, smollm2: Path) -> None:
    path = zoo.save("llama", tmp_path / "model", smollm2, head_dim=64)
    ways = [None, Arrangement(bits=8), Arrangement(bits=4), Arrangement(bits=8, group_size=32)]
    ways += [Arrangement(window=64), Arrangement(window=128)]
    assert len({print_of(path, kv) for kv in ways}) == len(ways)


@pytest.mark.parametrize(
    ("of", "name", "value"),
    [("mlx_lm", "__version__", "99.0.1"), (fingerprint.__module__, "VERSION", 2)],
    ids=["mlx-lm", "format"],
)
def test_another_layout_of_mlx_lm_or_of_the_files_is_another_model(
    of: str, name: str, value: object, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = print_of(model_dir)
    monkeypatch.setattr(sys.modules[of], name, value)
    assert print_of(model_dir) != before


def test_a_small_release_of_mlx_lm_is_the_same_model(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = print_of(model_dir)
    major, minor, *_ = mlx_lm.__version__.split(".")
    monkeypatch.setattr(mlx_lm, "__version__", f"{major}.{minor}.99")
    assert print_of(model_dir) == before


def test_neither_name_nor_template_nor_tokenizer_matter(model_dir: Path, tmp_path: Path) -> None:
    path = copied(model_dir, tmp_path).rename(tmp_path / "renamed")
    about = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(about | {"chat_template": "{{ 1 }}"}))
    assert print_of(path) == print_of(model_dir)


def test_weights_are_summed_once(model_dir: Path, tmp_path: Path) -> None:
    loaded = load_model(str(model_dir), model_id=None, context_length=None)
    sums = tmp_path / "sums.json"
    read: list[str] = []

    def made() -> bytes:
        return fingerprint(
            loaded.model, loaded.config, model_dir, sums, lambda what, done, of: read.append(what)
        )

    first = made()
    n = len(read)
    assert n > 0 and made() == first and len(read) == n
    sums.write_text("not JSON")
    assert made() == first and len(read) == 2 * n


def test_sums_are_not_known_by_a_devices_number(model_dir: Path, tmp_path: Path) -> None:
    loaded = load_model(str(model_dir), model_id=None, context_length=None)
    sums = tmp_path / "sums.json"
    fingerprint(loaded.model, loaded.config, model_dir, sums)
    (key,) = json.loads(sums.read_text())
    stat = (model_dir / "model.safetensors").stat()
    inode, size, mtime_ns, _sample = key.split(":")
    assert [int(n) for n in (inode, size, mtime_ns)] == [
        stat.st_ino, stat.st_size, stat.st_mtime_ns,
    ]  # fmt: skip


def test_weights_written_in_place_with_their_old_time_are_summed_anew(
    model_dir: Path, tmp_path: Path
) -> None:
    path = copied(model_dir, tmp_path)
    before, file = print_of(path), path / "model.safetensors"
    stat = file.stat()
    with file.open("r+b") as f:
        f.seek(stat.st_size // 2)
        f.write(bytes(stat.st_size - stat.st_size // 2))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert print_of(path) != before


def test_the_hubs_files_are_known_by_their_names(model_dir: Path, tmp_path: Path) -> None:
    path = copied(model_dir, tmp_path)
    blob = tmp_path / ("a1" * 32)
    (path / "model.safetensors").rename(blob)
    (path / "model.safetensors").symlink_to(blob)
    loaded = load_model(str(path), model_id=None, context_length=None)
    read: list[str] = []
    fingerprint(
        loaded.model, loaded.config, path, tmp_path / "s", lambda what, *_: read.append(what)
    )
    assert read == []
