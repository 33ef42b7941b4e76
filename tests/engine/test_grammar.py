"""Grammars held over real tokens: whatever the logits say, what finishes is valid."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from random_writer import WIDTH, Writer

from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.engine.compiled_grammar import Grammars
from everwarm.engine.thread import EngineThread
from everwarm.job import Ended, Failed, Grammar, Job, Output, Token
from everwarm.messages import Message, Text
from everwarm.prompt.dialects import families
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.grammars.reply_grammar import wanted
from everwarm.request import AnswerSchema, Request, Sampling, Tool
from everwarm.text.text_codec import TextCodec
from everwarm.tokens import tokens_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "deep": {"type": "integer", "minimum": 0, "maximum": 12000},
        "kinds": {"type": "array", "items": {"enum": ["lake", "sea"]}, "maxItems": 3},
        "cold": {"type": "boolean"},
    },
    "required": ["name", "deep", "kinds", "cold"],
    "additionalProperties": False,
}
ASK = (Message("user", (Text("Which lake?"),)),)


def holds(value: Any) -> bool:
    """Whether a value is as SCHEMA says."""
    return (
        list(value) == list(SCHEMA["required"])
        and isinstance(value["name"], str)
        and len(value["name"]) <= 12
        and type(value["deep"]) is int
        and 0 <= value["deep"] <= 12000
        and len(value["kinds"]) <= 3
        and set(value["kinds"]) <= {"lake", "sea"}
        and type(value["cold"]) is bool
    )


@pytest.fixture(scope="module")
def grammars(plain: TextCodec) -> Grammars:
    return Grammars(plain._tokenizer, WIDTH, plain.eos_ids)


def shaped(codec: Codec, dialect: Dialect = Dialect("plain"), **request: Any) -> Grammar:  # noqa: B008
    found = wanted(
        codec, dialect, replace(Request(None, ASK), **request), may_call=True, thinks=False
    )
    assert found is not None
    return found.grammar


@pytest.fixture(scope="module")
def writer(plain: TextCodec, grammars: Grammars) -> Writer:
    return Writer(plain, grammars)


def test_a_thousand_random_replies_are_valid(plain: TextCodec, writer: Writer) -> None:
    grammar = shaped(plain, shape=AnswerSchema(SCHEMA, "response_format")).reply
    finished = seed = 0
    while finished < 1000 and seed < 3000:
        seed += 1
        ids = writer.say(grammar, seed)
        if ids is not None:
            finished += 1
            assert holds(json.loads(plain.decode(ids)))
    assert finished == 1000


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ('{"name": "x", "deep": 1, "kinds": ["sea", "lake"], "cold": true}', True),
        ('{"name":"x","deep":1,"kinds":["sea","lake"],"cold":true}', True),
        (json.dumps({"name": "x", "deep": 1, "kinds": ["sea"], "cold": True}, indent=4), True),
        ("{\n\n", False),
        ("{  ", False),
        ('{"name":  "x"', False),
        ("{\n" + " " * 21, False),
        (' {"name"', False),
    ],
)
def test_an_answer_is_on_one_line_or_indented_and_never_full_of_blanks(
    plain: TextCodec, grammars: Grammars, said: str, allowed: bool
) -> None:
    matcher = grammars.matcher(shaped(plain, shape=AnswerSchema(SCHEMA, "response_format")).reply)
    for token in plain.encode(said):
        if not np.array(matcher.mask(WIDTH))[token]:
            assert not allowed, plain.decode([token])
            return
        matcher.take(token)
    assert allowed and np.array(matcher.mask(WIDTH))[min(plain.eos_ids)]


# --- through the real engine ---


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[EngineThread]:
    path = tmp_path_factory.mktemp("models") / "hybrid"
    zoo.save("qwen3_next", path, smollm2)
    thread = EngineThread.start(str(path), Settings(prefill_step=64, disk=False))
    yield thread
    thread.stop()


def run(engine: EngineThread, job: Job) -> tuple[list[int], Output]:
    outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine.submit(job, outputs.put)
    ids: list[int] = []
    while not isinstance(out := outputs.get(timeout=60), (Ended, Failed)):
        if isinstance(out, Token):
            ids.append(out.id)
    return ids, out


def asking(engine: EngineThread, grammar: Grammar | None, seed: int, most: int = 150) -> Job:
    sampling = Sampling(temperature=1.0, seed=seed)
    tokens = tokens_of(engine.codec.encode("A lake as JSON:"))
    return Job(f"job{seed}", tokens, (), sampling, most, grammar=grammar)


def test_twenty_random_replies_of_a_model_are_valid(engine: EngineThread) -> None:
    grammar = shaped(engine.codec, shape=AnswerSchema(SCHEMA, "response_format"))
    finished = seed = 0
    while finished < 20 and seed < 60:
        seed += 1
        ids, end = run(engine, asking(engine, grammar, seed))
        assert isinstance(end, Ended)
        if end.reason == "stop":
            finished += 1
            assert holds(json.loads(engine.codec.decode(ids)))
        else:
            assert end.reason == "length" and len(ids) == 150
    assert finished == 20


def test_a_job_without_a_grammar_is_not_held_by_anothers(engine: EngineThread) -> None:
    free = run(engine, asking(engine, None, 3, 20))[0]
    grammar = shaped(engine.codec, shape=AnswerSchema(SCHEMA, "response_format"))
    held = run(engine, asking(engine, grammar, 3, 20))[0]
    assert engine.codec.decode(held).startswith("{")
    assert run(engine, asking(engine, None, 3, 20))[0] == free != held


def test_what_cannot_be_held_is_refused_with_the_reason(engine: EngineThread) -> None:
    for schema, reason in (
        ({"not": {"type": "string"}}, "not"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "http://other.example/schema"}, "other.example"),
        ({"enum": []}, "Unsatisfiable"),
    ):
        grammar = shaped(engine.codec, shape=AnswerSchema(schema, "response_format")).reply
        with pytest.raises(ValueError, match=reason):
            engine.check(grammar)


def test_a_grammar_in_which_nothing_can_begin_is_refused_before_its_job(
    engine: EngineThread,
) -> None:
    with pytest.raises(ValueError, match="no reply can begin"):
        engine.check('start: %json {"$ref": "#"}\n')


def test_hostile_schemas_end_within_the_limits(engine: EngineThread) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        deep = {"type": "array", "items": deep}
    wide = {"anyOf": [{"type": "string", "pattern": f"(a|b)*{i}{{0,900}}"} for i in range(40)]}
    counted = {"type": "string", "pattern": "((a{0,999}){0,999}){0,999}"}
    for schema in (deep, wide, counted):
        grammar = shaped(engine.codec, shape=AnswerSchema(schema, "response_format")).reply
        try:
            engine.check(grammar)
        except ValueError as refused:
            assert str(refused)


def test_a_tools_name_that_is_a_control_tokens_is_written_as_text(forgetful: TextCodec) -> None:
    tool = Tool("<|im_end|>", "", {"type": "object", "properties": {}})
    request = Request(None, ASK, (tool,), tool_choice="required")
    made = wanted(forgetful, families.of(forgetful), request, may_call=True, thinks=False)
    assert made is not None
    assert '"<|im_end|>"' in made.grammar.reply and "<[2]>" not in made.grammar.reply
