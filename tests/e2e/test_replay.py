"""Recorded agents, replayed against a real server with a hybrid model that thinks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zoo
from forked import Forked
from prompt_templates import DROPS_REASONING
from recordings import NOTE, Habits, session
from tokenizers import Tokenizer
from transformers import AutoTokenizer

MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
           "</tool_response>"]  # fmt: skip
FRAME = 6
"""`<|im_start|>`, `user`, newline, `<|im_end|>`, newline around a message; one special token is
shared with whatever comes in its place."""

FORKS = (6, 8)
"""The requests that leave what was read in the middle of a message."""

HABITS = {
    "sends all back": Habits(),
    "drops reasoning": Habits(sends_reasoning=False),
    "trims and strips": Habits(sends_reasoning=False, trims_text=True, strips_ids=True),
}


@dataclass
class Server:
    url: str
    tokenizer: Path

    def replay(self, recording: Path, *flags: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "everwarm", "bench", "replay", str(recording)]
        out = subprocess.run(
            [*command, "--url", self.url, *flags], capture_output=True, text=True, check=True
        )
        if "--json" not in flags:
            return {"text": out.stdout}
        (client,) = json.loads(out.stdout)["clients"]
        return dict(client)


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path, smollm2: Path) -> Iterator[Server]:
    """A fresh one: what an earlier recording left would be found."""
    texts = tmp_path / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.add_tokens(MARKERS, True)
    tokenizer.chat_template = DROPS_REASONING.replace("assistant\n<think>\n", "assistant\n")
    tokenizer.save_pretrained(texts)
    about = json.loads((texts / "tokenizer_config.json").read_text())
    about["tool_parser_type"] = "json_tools"
    about.setdefault("chat_template", tokenizer.chat_template)
    (texts / "tokenizer_config.json").write_text(json.dumps(about))
    path = zoo.save("qwen3_5", tmp_path / "model", texts)
    command = [sys.executable, "-m", "everwarm", "serve", str(path), "--port", "0", "--no-disk"]
    process = Forked(
        [*command, "--forced-replies", "--no-remember", *getattr(request, "param", ())],
        stdout=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    assert process.stdout is not None
    yield Server(process.stdout.readline().split()[-1].removesuffix("/v1"), texts)
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()


@pytest.mark.parametrize("habit", HABITS)
def test_no_token_is_read_twice_whatever_a_client_sends_back(
    server: Server, tmp_path: Path, habit: str
) -> None:
    recording = session(HABITS[habit]).write(tmp_path / "agent.jsonl")
    got = server.replay(recording, "--json")
    (all_of_it,) = got["sums"]
    assert all_of_it["requests"] == 10
    assert all_of_it["again"] == 0
    assert all_of_it["reprocess_ratio"] <= 1
    for read in got["requests"]:
        lost = read["prefilled"] - read["unseen"]
        # A fork goes back to where its user message begins, and shares the first words of it.
        assert lost == 0 or (read["seq"] in FORKS and lost < FRAME)
    assert all_of_it["cache_ratio"] < 1.03


@pytest.mark.parametrize("server", [("--history", "template")], indirect=True)
def test_by_the_template_each_question_reads_the_turn_before_it_again(
    server: Server, tmp_path: Path
) -> None:
    recording = session(Habits()).write(tmp_path / "agent.jsonl")
    got = server.replay(recording, "--json")
    assert got["sums"][0]["reprocess_ratio"] > 1.5
    question = next(r for r in got["requests"] if r["phase"] == "t2")
    assert question["prefilled"] > 5 * question["new"]
    assert "template" in question["miss"]["cause"]


def test_behind_a_throw_away_message_only_the_reply_and_what_follows_is_read(
    server: Server, tmp_path: Path
) -> None:
    recording = session(Habits(note=True)).write(tmp_path / "agent.jsonl")
    reads = server.replay(recording, "--json")["requests"]
    tokenizer = Tokenizer.from_file(str(server.tokenizer / "tokenizer.json"))
    note = len(tokenizer.encode(NOTE, add_special_tokens=False).ids) + FRAME
    scaffold = len(tokenizer.encode("<|im_start|>assistant\n").ids)
    in_a_row = [(a, b) for a, b in pairwise(reads) if a["phase"] == b["phase"]]
    assert len(in_a_row) == 5
    for before, now in in_a_row:
        behind = now["prompt"] - before["prompt"]
        assert now["prefilled"] <= behind + note + scaffold
        assert now["prefilled"] - now["unseen"] <= 1


def test_the_table_names_phases_and_the_worst_requests(server: Server, tmp_path: Path) -> None:
    recording = session(Habits(note=True)).write(tmp_path / "agent.jsonl")
    text = server.replay(recording, "--without", "t3-fork")["text"]
    assert "t3-fork" in text and "outside them" in text and "reprocess" in text
    assert "a message was taken out before message" in text
