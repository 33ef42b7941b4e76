"""What version 0.1.0 wrote is read warm: no conversation is cold after an update.

`tests/support/written_by_0_1_0.zip` was made by that version: two turns of a conversation with tiny
models of three cache families (seeded weights, fingerprint 00 01 … 1f), and a `history.db`.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import zoo
from talk import Talk, said, user
from turn_requests import marks_of, turn, words

from everwarm.cache.cache import Cache
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.tier import DiskTier
from everwarm.chat import session_table
from everwarm.engine.state import ModelState
from everwarm.history.database import Database
from everwarm.history.reply_table import ReplyTable
from everwarm.prompt.render import Renderer
from everwarm.text.load import load_text

ARCHIVE = Path(__file__).parents[1] / "support" / "written_by_0_1_0.zip"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The directory as that version left it."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "mamba2"])
def test_the_kv_cache_of_an_older_version_is_read_warm(family: str, older: Path) -> None:
    history = json.loads((older / f"{family}.json").read_text())
    model = zoo.build(family)[0]
    tier = DiskTier(DiskStore.open(older / family), bytes(range(32)), lambda: None)
    cache = Cache(lambda: ModelState(model), budget=1 << 34, tier=tier)
    asked = history + words(9, 30)
    warm = turn(cache, asked, marks_of(asked))
    cold = turn(Cache(lambda: ModelState(model), budget=1 << 34, keep=False), asked)
    assert (warm.cached_from, warm.prefilled) == ("disk", 30)
    assert warm.reply.agrees(cold.reply)
    tier.close(5)


def test_replies_of_an_older_version_are_put_back(smollm2: Path, older: Path) -> None:
    """Their tokens are not those that the tokenizer would make of their texts."""
    codec = load_text(str(smollm2), model_id=None, context_length=None).codec
    db = Database(older / "history.db")
    renderer = Renderer(codec, store=ReplyTable(db, codec.fingerprint))
    messages = [user("first"), said("one two"), user("then"), said("three four"), user("more")]
    prompt = Talk(renderer, codec, (), messages).ask()
    assert list(prompt.tokens) == json.loads((older / "history.json").read_text())
    db.close()


def test_sessions_of_an_older_version_are_there(older: Path) -> None:
    db = Database(older / "history.db").open()
    found = db.call(lambda rows: session_table.get(rows, "s1")).result()
    assert (found.title, found.updated) == ("Old talk", 2.0)
    db.close()
