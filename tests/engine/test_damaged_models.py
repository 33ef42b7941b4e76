"""A model directory that cannot work is refused at the start, with what is wrong in which file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zoo

from everwarm.engine.model import load_model
from everwarm.errors import ConfigError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return zoo.save("llama", tmp_path_factory.mktemp("models") / "llama", smollm2)


def config(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        value = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(value | changes))

    return change


def template(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / "chat_template.jinja").write_text(text)
        value = json.loads((path / "tokenizer_config.json").read_text())
        value.pop("chat_template", None)
        (path / "tokenizer_config.json").write_text(json.dumps(value))

    return change


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda path: void((path / name).write_text(content))


def void(_: object) -> None:
    return None


def cut(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def rename(path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a text for an object": (config(text_config="none"), r"config\.json: text_config is no JSON"),
    "a list for a config": (text("config.json", "[]"), r"config\.json is no JSON object"),
    "half a config": (text("config.json", '{"a": '), r"config\.json cannot be read as JSON"),
    "words for a number": (config(max_position_embeddings="many"), "cannot be loaded"),
    "an unknown model": (config(model_type="nothing"), r"cannot be loaded \(ValueError"),
    "half a tokenizer": (text("tokenizer.json", '{"a": '), r"tokenizer\.json cannot be read"),
    "no tokenizer": (text("tokenizer.json", "{}"), "cannot be loaded"),
    "another's tokenizer": (config(vocab_size=1000), "cannot be loaded|another model's"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "has no weights"),
    "cut weights": (cut, r"model\.safetensors is cut off: [\d,]+ bytes of [\d,]+"),
    "empty weights": (text("model.safetensors", ""), "has no readable header"),
    "weights that are none": (text("model.safetensors", "x" * 99), "has no readable header"),
    "a missing part": (rename, r"lacks model-00001-of-00002\.safetensors, one of 2 files"),
    "a template's syntax": (template("{% for m in %}"), r"has an error in line 1: .*Correct it"),
    "a huge template": (template("{{ 'x' * 10**12 }}"), "cannot be used.*makes more than"),
    "an unknown filter": (template("{{ 1 | nothing }}"), r"has an error in line 1: No filter"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_model_is_refused_in_one_sentence(
    whole: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "copy"))
    damage(path)
    with pytest.raises(ConfigError, match=said) as e:
        load_model(str(path), model_id=None, context_length=None)
    assert "\n" not in e.value.message


def test_a_tokenizer_with_more_words_than_embeddings_is_refused(
    tmp_path: Path, smollm2: Path
) -> None:
    path = zoo.save("llama", tmp_path / "small", smollm2, vocab_size=1000)
    with pytest.raises(ConfigError, match=r"another model's: it has ids up to 49,1\d\d, and"):
        load_model(str(path), model_id=None, context_length=None)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (config(text_config="none"), "text_config is no JSON object"),
        (
            template("{% if tools %}{{ 'x' * 10**12 }}{% endif %}{{ messages[0].content }}"),
            "makes more than",
        ),
    ],
    ids=["config", "a template that fails with tools only"],
)
def test_a_server_on_a_damaged_model_ends_with_one_line(
    whole: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "copy"))
    damage(path)
    command = [sys.executable, "-m", "everwarm", "serve", str(path), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr and ended.stdout == ""
    assert said in ended.stderr.splitlines()[-1]
