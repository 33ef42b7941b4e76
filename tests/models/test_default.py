"""The default model is made once, and an interrupted run is redone."""

from pathlib import Path

import pytest

from everwarm.engine.model import load_model
from everwarm.errors import ConfigError
from everwarm.models import ensure_default, list_models


def test_a_ready_model_is_not_made_again(tmp_path: Path) -> None:
    ready = tmp_path / "models" / "SmolLM2-135M-Instruct"
    ready.mkdir(parents=True)
    (ready / "config.json").write_text("{}")

    def never(gguf: Path, out: Path) -> None:
        raise AssertionError("converted again")

    assert ensure_default(tmp_path, convert=never) == ready
    assert list_models(tmp_path) == [ready]


def test_the_reply_is_what_its_pieces_are(smollm2: Path) -> None:
    codec = load_model(str(smollm2), model_id=None, context_length=None).codec
    assert codec.splits_at_specials
    for text in (" leading space", "é 😀 日本", "a\n\n b"):
        ids = codec.encode(text)
        pieces = codec.detokenizer()
        assert "".join(map(pieces.add, ids)) + pieces.finish() == codec.decode(ids) == text


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(str(tmp_path), model_id=None, context_length=None)
