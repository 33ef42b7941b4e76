"""The front's modules and the text side load where MLX is not, or must not be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlx_lm import chat_templates, tool_parsers
from without_packages import Hidden, hiding

from everwarm.errors import ConfigError
from everwarm.models.directory import weight_bytes
from everwarm.text.load import load_text

LOADED = """
import json
print(json.dumps(sorted(m for m in sys.modules if m.split(".")[0] in ("mlx", "mlx_lm"))))
"""


def run(code: str, *args: object, hidden: Hidden = ()) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own, where importing the refused packages fails."""
    whole = hiding(hidden) + code
    return subprocess.run(
        [sys.executable, "-c", whole, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


def last_json(code: str, *args: object, hidden: Hidden = ()) -> object:
    done = run(code, *args, hidden=hidden)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", ["everwarm.serve", "everwarm.text.load", "everwarm.cli"])
def test_a_module_of_the_front_does_not_import_mlx(module: str) -> None:
    assert last_json(f"import {module}\n{LOADED}") == []


def test_an_import_of_mlx_would_be_seen() -> None:
    assert "mlx.core" in last_json(f"import everwarm.engine.model\n{LOADED}")  # type: ignore[operator]


TEXT_SIDE = """
from everwarm.text.load import load_text
text = load_text(sys.argv[1], model_id="m", context_length=None)
prompt = text.codec.render([{"role": "user", "content": "hello"}], None, scaffold=True, args={})
ids = text.codec.encode(prompt)
assert text.codec.decode(ids) == prompt and text.codec.eos_ids and text.info.nbytes > 0
"""


@pytest.mark.parametrize("hidden", [("mlx",), ("mlx", "mlx_lm")], ids=["mlx", "both"])
def test_the_text_side_loads_without_mlx(smollm2: Path, hidden: Hidden) -> None:
    assert last_json(TEXT_SIDE + LOADED, smollm2, hidden=hidden) == []


def test_transformers_says_nothing_of_pytorch(smollm2: Path) -> None:
    assert run(TEXT_SIDE, smollm2).stderr == ""


EVERY = """
from everwarm.text.upstream import text_module
for name in sys.argv[2:]:
    assert text_module(sys.argv[1], name) is not None, name
"""


@pytest.mark.parametrize("package", [tool_parsers, chat_templates], ids=lambda p: p.__name__)
def test_each_text_module_of_mlx_lm_runs_without_mlx(package: object) -> None:
    folder = Path(package.__path__[0])  # type: ignore[attr-defined]
    names = sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
    assert names and last_json(EVERY + LOADED, folder.name, *names, hidden=("mlx",)) == []


MISSING = """
from everwarm.text.upstream import text_module
print(json.dumps(text_module("tool_parsers", "json_tools")))
"""


def test_where_mlx_lm_is_missing_there_are_no_parsers() -> None:
    assert last_json("import json\n" + MISSING, hidden=("mlx", "mlx_lm")) is None


def test_a_model_is_named_by_its_directory_or_as_told(smollm2: Path) -> None:
    own = load_text(str(smollm2), model_id=None, context_length=None)
    told = load_text(str(smollm2), model_id="mine", context_length=100)
    assert (own.info.id, own.directory) == (smollm2.name, smollm2)
    assert (told.info.id, told.info.context_length) == ("mine", 100)
    file = smollm2 / "model.safetensors"
    assert 0 < own.info.nbytes == weight_bytes(smollm2) < file.stat().st_size


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./nowhere", "is not a model directory"),
        ("a/b/c/d", "is neither a directory on this computer nor a Hugging Face id"),
        ("-bad-/name..", "is neither a directory"),
        ("nobody/nothing-at-all", "the Hugging Face hub cannot be reached|hub has no model"),
    ],
)
def test_a_name_that_is_no_model_is_refused_in_one_sentence(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=said) as e:
        load_text(name, model_id=None, context_length=None)
    assert "\n" not in e.value.message
