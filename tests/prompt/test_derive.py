"""A dialect is derived from its template: what that writes is read, however it is cut.

`EVERWARM_TEMPLATES=DIR` adds the published templates in a directory (`*.jinja`).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest
from dialect_samples import SAMPLES
from growth import growth
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from notations import NOTATIONS, chat, codec_of, each

from everwarm.codec import Writing
from everwarm.messages import Message, ToolCall
from everwarm.prompt.dialects import families
from everwarm.prompt.dialects.derive import NO_CALLS, TOO_SLOW, derived
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.read_back import read

PUBLISHED = sorted(Path(os.environ.get("EVERWARM_TEMPLATES") or os.devnull).glob("*.jinja"))
TYPES = {
    "at": "string",
    "n": "integer",
    "x": "number",
    "ok": "boolean",
    "l": "array",
    "o": "object",
}
LOOK = {"type": "object", "properties": {k: {"type": t} for k, t in TYPES.items()}}
TOOLS = {"look": LOOK, "jump": LOOK}
TOOL_DICTS = [
    {"type": "function", "function": {"name": n, "description": "d", "parameters": LOOK}}
    for n in TOOLS
]
ONE = [("look", {"at": 'C:\\é "here" 🙂\n  {', "n": 7, "ok": True, "l": ["a b", 1]})]
TWO = [("look", {"at": "first"}), ("jump", {"at": "second", "x": -0.5, "o": {"k": "v"}})]
NONE = [("jump", {})]
WITHOUT_FAMILIES = ("glm_4", "kimi_k2", "cohere", "deepseek_v32")
DERIVED = [n for n, s in SAMPLES.items() if s.dialect != "harmony"]
MANY = settings(max_examples=60, deadline=None, database=None, phases=(Phase.generate,))
ENDS = ("</s>", "<SPECIAL_12>", "[e~[", "<|im_end|>", "<|eot_id|>", "<|END_OF_TURN_TOKEN|>")
"""What configs of published models say ends a turn."""
Calls = Sequence[tuple[str, Mapping[str, Any]]]


def reply(calls: Calls, text: str = "", thought: str = "", own_id: str = "") -> dict[str, Any]:
    own_id = own_id if "«name»" in own_id else "c«n»abcdefg"
    made = [
        {
            "id": own_id.replace("«name»", name).replace("«n»", str(i)),
            "type": "function",
            "function": {"name": name, "arguments": dict(arguments)},
        }
        for i, (name, arguments) in enumerate(calls)
    ]
    thoughts = {"reasoning_content": thought, "thinking": thought} if thought else {}
    return {"role": "assistant", "content": text, **thoughts} | (
        {"tool_calls": made} if made else {}
    )


def written(codec: Writing, message: Mapping[str, Any]) -> str | None:
    """What a model writes so that its template shows it this way: what follows the scaffold."""
    user = {"role": "user", "content": "the question"}
    args = {"enable_thinking": True}
    try:
        asked = codec.render([user], TOOL_DICTS, scaffold=True, args=args)
        text = codec.render([user, message], TOOL_DICTS, scaffold=False, args=args)
    except Exception:  # a template may want other messages
        return None
    asked, text = (t[t.rindex("the question") + 12 :] for t in (asked, text))
    think = derived(codec).reasoning
    if think:
        asked = asked.rstrip().removesuffix(think[1]).rstrip().removesuffix(think[0])
    n = next((i for i, (a, b) in enumerate(zip(asked, text, strict=False)) if a != b), len(asked))
    n = max(0, min(n, len(text)))
    opened = text.rfind("<", 0, n)
    n = opened if opened >= 0 and ">" not in text[opened:n] else n
    ends = [codec.decode([i]) for i in codec.eos_ids]
    rest = text[n:]
    return rest[: min((at for e in ends if (at := rest.find(e)) >= 0), default=len(rest))]


def calls_of(message: Message) -> list[tuple[str, Any]]:
    return [(c.name, json.loads(c.arguments)) for c in message.tool_calls]


def hold(codec: Writing, dialect: Dialect, message: Mapping[str, Any], calls: Calls) -> None:
    """What a template writes is these calls and no markers, whole and cut at each character."""
    text = written(codec, message)
    names = [n for n, _ in calls]
    if text is None or not all(n in text for n in names):
        return
    whole = read(dialect, [text], TOOLS)
    assert calls_of(whole) == [(n, dict(a)) for n, a in calls]
    assert whole.text.strip() in ("", message["content"]), text
    assert whole.reasoning.strip() in ("", "hm"), text
    assert read(dialect, list(text), TOOLS) == whole
    for at in range(0, len(text), 1 if len(text) < 400 else 7):
        assert read(dialect, [text[:at], text[at:]], TOOLS) == whole, at


def hold_all(codec: Writing, dialect: Dialect) -> None:
    assert dialect.calls, dialect.note
    for calls in (ONE, TWO, NONE):
        for text, thought in (("", ""), ("I see.", ""), ("", "hm"), ("I see.", "hm")):
            if not (text and dialect.calls[0].bare):  # then it would be text
                made = reply(calls, text, thought, dialect.calls[0].own_id)
                hold(codec, dialect, made, calls)
    for thought in ("", "hm"):
        hold(codec, dialect, reply((), "It is so.", thought), ())


@pytest.mark.parametrize("name", NOTATIONS)
def test_what_a_template_writes_is_read(name: str) -> None:
    codec = codec_of(NOTATIONS[name], ends=("<|im_end|>",))
    dialect = derived(codec)
    assert (dialect.origin, dialect.note) == ("derived", "")
    hold_all(codec, dialect)


@pytest.mark.parametrize("name", DERIVED)
def test_the_samples_of_families_are_derived_without_them(name: str) -> None:
    codec = codec_of(SAMPLES[name].template, SAMPLES[name].markers, ("<|im_end|>",))
    dialect = derived(codec)
    assert (dialect.origin, dialect.note) == ("derived", "")
    hold_all(codec, dialect)


@pytest.mark.parametrize("name", WITHOUT_FAMILIES)
def test_families_that_templates_show_have_no_entry(name: str) -> None:
    sample = SAMPLES[name]
    assert not any(f.matches(sample.template) for f in families.FAMILIES if f.name != "json_tools")
    dialect = families.of(codec_of(sample.template, sample.markers, ("<|im_end|>",)))
    assert dialect.origin == "derived"
    assert len(read(dialect, [sample.reply], TOOLS).tool_calls) == sample.n_calls


def test_each_family_says_why_it_cannot_be_derived() -> None:
    assert all(len(f.reason.split()) > 8 for f in families.FAMILIES)


def test_a_template_without_calls_has_none_and_says_so() -> None:
    dialect = families.of(codec_of(chat("")))
    assert (dialect.calls, dialect.origin, dialect.note) == ((), "none", NO_CALLS)


@pytest.mark.parametrize(
    "calls",
    [
        "{% for c in m.tool_calls %}(calls {{ c.function.name }}){% endfor %}",
        "{% for c in m.tool_calls %}{{ c.function.arguments.values() | join }}{% endfor %}",
        "{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}",
        "{{ raise_exception('no calls') }}",
    ],
)
def test_what_cannot_be_derived_is_no_calls_and_says_so(calls: str) -> None:
    dialect = families.of(codec_of(chat(calls)))
    assert dialect.calls == () and dialect.origin == "none" and dialect.note


def test_a_template_that_takes_long_is_left_alone() -> None:
    loop = "{% for i in range(1000) %}"
    slow = loop * 3 + "{% set k = i %}" + "{% endfor %}" * 3
    begin = time.monotonic()
    dialect = derived(codec_of(slow + chat(each("<c>{{ c.function | tojson }}</c>"))))
    assert time.monotonic() - begin < 5
    assert (dialect.calls, dialect.note) == ((), TOO_SLOW)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_what_a_published_template_writes_is_read(path: Path) -> None:
    codec = codec_of(path.read_text(), ends=ENDS)
    begin = time.monotonic()
    dialect = families.of(codec)
    assert time.monotonic() - begin < 2
    if dialect.name == "harmony" or dialect.note == NO_CALLS:
        return
    hold_all(codec, dialect)


PIECES = [
    "look",
    "jump",
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    ",",
    ":",
    "(",
    ")",
    "=",
    " ",
    "\n",
    "é",
    "<",
]
PIECES += [
    ">",
    "|",
    "</",
    '{"at": "x"}',
    '"name": "look"',
    '"arguments": ',
    '{"at": 1',
    "null",
    "1",
]


def accounted(dialect: Dialect, text: str, message: Message) -> None:
    """Text, reasoning and calls make up all that was written, in its order."""
    rest = bare(dialect, text)
    for part in message.parts:
        if isinstance(part, ToolCall):
            assert part.name in rest, (text, message)
            assert isinstance(json.loads(part.arguments), dict)
            rest = rest[rest.index(part.name) + len(part.name) :]
        else:
            said = bare(dialect, part.text)
            assert said in rest, (text, message)
            rest = rest[rest.index(said) + len(said) :]
    if not message.tool_calls:
        said = "".join(p.text for p in message.parts if not isinstance(p, ToolCall))
        assert bare(dialect, said) == bare(dialect, text)


def bare(dialect: Dialect, text: str) -> str:
    """A text without blanks, and without what stands around reasoning and answers."""
    for marker in sorted(wraps(dialect), key=len, reverse=True):
        text = text.replace(marker, "")
    return "".join(text.split())


def wraps(dialect: Dialect) -> set[str]:
    """What stands around reasoning and answers, and is nobody's text."""
    return {m for m in (*(dialect.reasoning or ()), *dialect.text, *dialect.ends) if m}


@pytest.mark.parametrize("name", NOTATIONS)
def test_random_text_and_mutated_calls_are_never_half_a_call(name: str) -> None:
    codec = codec_of(NOTATIONS[name], ends=("<|im_end|>",))
    dialect = derived(codec)
    whole = [w for c in (ONE, TWO, NONE) if (w := written(codec, reply(c, "I see.", "hm")))]
    (syntax,) = dialect.calls
    words = [w for w in (*PIECES, *wraps(dialect), syntax.open, syntax.close, *whole) if w]
    cuts = st.lists(st.integers(1, 30), max_size=20)
    valid = [dict(a) for calls in (ONE, TWO, NONE) for _, a in calls]

    def same_however_cut(text: str, lengths: Sequence[int]) -> Message:
        pieces, at = [], 0
        for n in lengths:
            pieces.append(text[at : at + n])
            at += n
        expected = read(dialect, [text], TOOLS)
        assert read(dialect, [*pieces, text[at:]], TOOLS) == expected
        for call in expected.tool_calls:
            assert isinstance(json.loads(call.arguments), dict)
        accounted(dialect, text, expected)
        return expected

    @seed(0)
    @MANY
    @given(st.lists(st.sampled_from(words), max_size=14), cuts)
    def of_words(pieces: list[str], lengths: list[int]) -> None:
        same_however_cut("".join(pieces), lengths)

    @seed(0)
    @MANY
    @given(st.sampled_from(whole), st.data(), cuts)
    def cut_off(text: str, data: st.DataObject, lengths: list[int]) -> None:
        end = data.draw(st.integers(0, len(text)))
        for call in same_however_cut(text[:end], lengths).tool_calls:
            assert json.loads(call.arguments) in valid, text[:end]

    @seed(0)
    @MANY
    @given(st.sampled_from(whole), st.data(), st.sampled_from(PIECES), cuts)
    def mutated(text: str, data: st.DataObject, piece: str, lengths: list[int]) -> None:
        at = data.draw(st.integers(0, len(text)))
        n = data.draw(st.integers(0, 5))
        same_however_cut(text[:at] + piece + text[at + n :], lengths)

    of_words()
    cut_off()
    mutated()


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None, database=None)
def test_any_text_is_an_answer_word_for_word_where_it_has_no_marker(text: str) -> None:
    dialect = derived(codec_of(NOTATIONS["keys and values on lines"], ends=("<|im_end|>",)))
    message = read(dialect, list(text), TOOLS)
    if "<" not in text:
        assert message.text == text


@pytest.mark.parametrize("name", ["typed tags between words", "a bare list", "tags in tags"])
@pytest.mark.parametrize("piece", ["\n", "word ", "<tool_call>", '{"name": "look", "arguments": {'])
def test_a_long_reply_is_read_in_time_that_grows_with_its_length(name: str, piece: str) -> None:
    dialect = derived(codec_of(NOTATIONS[name], ends=("<|im_end|>",)))
    assert growth(lambda n: read(dialect, [piece] * n, TOOLS), 2_000, 16_000) < 24


@pytest.mark.parametrize("name", NOTATIONS)
def test_a_damaged_template_never_fails_the_load(name: str) -> None:
    dice = random.Random(name)
    for _ in range(12):
        template = NOTATIONS[name]
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(template))
            piece = dice.choice(
                ["<", "[", '"', "}", "«name»", "«arguments»", "{{ m.content }}", ""]
            )
            template = template[:at] + piece + template[at + dice.randint(0, 9) :]
        try:
            codec = codec_of(template)
        except jinja2.TemplateError:
            continue
        dialect = families.of(codec)
        assert dialect.calls or dialect.note
