"""A deleted session is gone: not a word and not a token of it is left in the home directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from held import done, holding, settle
from transformers import AutoTokenizer

WORD = "xyzzyplugh"
SYSTEM = "You answer in few words. " * 30


def files(home: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(home.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def ids_of(model: Path, text: str) -> bytes:
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return b"".join(i.to_bytes(4, "little") for i in ids)


def holders(home: Path, *needles: bytes) -> list[str]:
    return [p.name for p, raw in files(home) if any(n in raw for n in needles)]


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_nothing_of_a_deleted_session_is_left(family: str, tmp_path: Path, smollm2: Path) -> None:
    home, model = tmp_path / "home", zoo.save(family, tmp_path / "model", smollm2)
    needles = WORD.encode(), ids_of(model, f" {WORD}")
    with holding(model, home) as client:
        kept, gone = client.new(system=SYSTEM), client.new(system=SYSTEM)
        client.say(kept, "Which way is north?")
        client.say(gone, f"Remember the word {WORD} for me.")
        client.say(gone, "Another question " * 20)
        first = client.get(f"/api/sessions/{gone}")["messages"][0]["id"]
        path = f"/api/sessions/{gone}/edit"
        done(client.stream(path, {"message": first, "text": f"Forget {WORD}."}))
        client.say(gone, f"And {WORD} again.")
        client.post(f"/api/sessions/{gone}/undo")
        client.ask("PATCH", f"/api/sessions/{gone}", {"title": f"About {WORD}"})
        settle(client)
        assert len(holders(home, *needles)) > 2, "it was there"
        status, answer = client.ask("DELETE", f"/api/sessions/{gone}")
        assert status == 200 and answer["deleted"] and answer["bytes"] > 0
        settle(client)
        assert holders(home, *needles) == []
        assert client.ask("GET", f"/api/sessions/{gone}")[0] == 404
        assert client.get(f"/api/sessions?q={WORD}")["sessions"] == []
        turn = client.say(kept, "And south?")["message"]["turn"]
        assert turn["prefilled_tokens"] <= turn["new_tokens"]
        settle(client)
    assert holders(home, *needles) == []
    with holding(model, home) as client:
        turn = client.say(kept, "And east?")["message"]["turn"]
        assert turn["cached_from"] == "disk"
        assert turn["prefilled_tokens"] <= turn["new_tokens"]


def test_the_same_words_in_another_session_stay(tmp_path: Path, smollm2: Path) -> None:
    home, model = tmp_path / "home", zoo.save("llama", tmp_path / "model", smollm2)
    with holding(model, home) as client:
        both = [client.new(system=SYSTEM) for _ in range(2)]
        for session in both:
            client.say(session, "The same question, " * 20)
        client.say(both[0], f"Only here: {WORD}")
        client.ask("DELETE", f"/api/sessions/{both[0]}")
        turn = client.say(both[1], "Go on.")["message"]["turn"]
        assert turn["prefilled_tokens"] <= turn["new_tokens"]
        settle(client)
    assert holders(home, WORD.encode()) == []
    with holding(model, home) as client:
        turn = client.say(both[1], "Still warm?")["message"]["turn"]
        assert turn["prefilled_tokens"] <= turn["new_tokens"]
