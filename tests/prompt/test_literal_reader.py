"""Arguments in a model's own spelling: the JSON that they are, however their text is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from everwarm.prompt.dialects.families import OTHERS
from everwarm.prompt.dialects.literal_reader import LiteralReader

SCHEMA = {
    "properties": {
        "text": {"type": "string"},
        "n": {"type": "integer"},
        "maybe": {"type": ["string", "null"]},
    }
}
Q, E = '<|"|>', "<escape>"
WHOLE: list[tuple[str, str, Any]] = [
    ("gemma4", "{}", {}),
    ("gemma4", "{ }", {}),
    ("gemma4", f"{{text:{Q}a, b: {{c}} \"d\" \\n\n{Q}}}", {"text": 'a, b: {c} "d" \\n\n'}),
    ("gemma4", f"{{n:-12,text:{Q}{Q},f:1.5e3}}", {"n": -12, "text": "", "f": 1500.0}),
    ("gemma4", "{text:12,maybe:null,n:7}", {"text": "12", "maybe": None, "n": 7}),
    ("gemma4", '{text:"quoted, \\"too\\"",b:true}', {"text": 'quoted, "too"', "b": True}),
    ("gemma4", f"{{o:{{a:{Q}x{Q},l:[1,[],{{}},{Q}y{Q}]}},n:1}}",
     {"o": {"a": "x", "l": [1, [], {}, "y"]}, "n": 1}),
    ("gemma4", "{ text : two words , n : 3 }", {"text": "two words", "n": 3}),
    ("gemma4", f"{{{Q}text{Q}:{Q}k{Q},{Q}n{Q}:4}}", {"text": "k", "n": 4}),
    ("function_gemma", f"{{text:{E}<esc{E},n:5}}", {"text": "<esc", "n": 5}),
    ("pythonic", "()", {}),
    ("pythonic", "(text='it\\'s', n=1)", {"text": "it's", "n": 1}),
    ("pythonic", '(text="a\\n\\t\\\\ \\u00e9\\x41 \\d", ok=True, no=None)',
     {"text": "a\n\t\\ éA \\d", "ok": True, "no": None}),
    ("pythonic", '(text="\\ud83d\\ude42", n=-0.5)', {"text": "🙂", "n": -0.5}),
    ("pythonic", '(text="""one "two"\nthree""", l=[], e="")',
     {"text": 'one "two"\nthree', "l": [], "e": ""}),
    ("pythonic", "(o={\"a\": [1, {'b': false}], 'c': (1, 2)},)",
     {"o": {"a": [1, {"b": False}], "c": [1, 2]}}),
    ("pythonic", "(url='http://x?a=b&c=d', n = 2)", {"url": "http://x?a=b&c=d", "n": 2}),
]  # fmt: skip


def reader(name: str) -> LiteralReader:
    literals = OTHERS[name].literals
    assert literals is not None
    return LiteralReader(literals, SCHEMA, ["<end>"], 0)


@pytest.mark.parametrize(("name", "text", "value"), WHOLE)
def test_it_is_the_same_json_wherever_the_text_is_cut(name: str, text: str, value: Any) -> None:
    for border in range(len(text) + 1):
        r = reader(name)
        told = r.read(text[:border], final=False)
        assert json.dumps(value, ensure_ascii=False).startswith(told[:1])
        told += r.read(text + "<end>", final=False)
        assert (json.loads(told), r.state, r.at) == (value, "ended", len(text)), border
    r, told = reader(name), ""
    for end in range(len(text) + 1):
        told += r.read(text[:end], final=False)
    assert (json.loads(told), r.state) == (value, "ended")


def test_a_text_comes_letter_by_letter() -> None:
    for name, begun in (("gemma4", f"{{text:{Q}one tw"), ("pythonic", "(text='one tw")):
        assert reader(name).read(begun, final=False) == '{"text": "one tw'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gemma4", "{text:<end>"),
        ("gemma4", "{text:1<end>"),
        ("gemma4", "{te<end>"),
        ("gemma4", f"{{text:{Q}a{Q}<end>"),
        ("pythonic", "(n=1, <end>"),
    ],
)
def test_arguments_that_break_off_end_where_the_call_does(name: str, text: str) -> None:
    for border in range(len(text) + 1):
        r = reader(name)
        r.read(text[:border], final=False)
        r.read(text, final=False)
        if r.state == "broken":
            assert text == "{te<end>"
        else:
            assert (r.state, text[r.at :]) == ("ended", "<end>")


@pytest.mark.parametrize(
    ("name", "text"),
    [("gemma4", "{a]"), ("gemma4", "{a:}"), ("gemma4", "{a:1;b:2]"), ("pythonic", "(a=f(1))"),
     ("pythonic", "(1)"), ("pythonic", "(a=)")],
)  # fmt: skip
def test_what_is_no_object_is_broken(name: str, text: str) -> None:
    for border in range(len(text) + 1):
        r = reader(name)
        r.read(text[:border], final=False)
        r.read(text, final=True)
        assert r.state == "broken"
