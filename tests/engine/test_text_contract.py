"""The text side that is loaded without MLX is the one that mlx-lm would load, and says the same.

`EVERWARM_TEMPLATES=DIR` adds the published templates in a directory (`*.jinja`).
"""

from __future__ import annotations

import ast
import itertools
import json
import pkgutil
import re
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from codec_fixtures import _MARKER as MARKER
from codec_fixtures import PUBLISHED
from dialect_samples import SAMPLES
from jinja2.exceptions import SecurityError
from mlx_lm import chat_templates, models, tool_parsers
from mlx_lm.tokenizer_utils import (
    BPEStreamingDetokenizer,
    TokenizerWrapper,
    _infer_thinking,
    _infer_tool_parser,
)
from mlx_lm.utils import (
    MODEL_ARCHITECTURE_REMAPPING,
    MODEL_REMAPPING,
    _get_classes,
    load_config,
    load_tokenizer,
)
from prompt_templates import HABITS, MARKERS, PROVED
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers import models as kinds
from transformers import AutoTokenizer

from everwarm.errors import ConfigError, RequestError
from everwarm.models.info import read_config
from everwarm.text import load
from everwarm.text.load import load_text, notation_of
from everwarm.text.notation import think_markers
from everwarm.text.text_codec import TextCodec
from everwarm.text.upstream import text_module

TEXTS = (
    "", " ", "Hello,  world\n\n", " leading", "trailing ", "é 漢字 🙂 12", "a ,b . c", "▁x",
    "\tdef f(x):\n    return x\n", "<think>hm</think>\n\nyes", "<n><|im_end|>", "1234567890",
)  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": 'Looks <around> & "waits".',
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
        },
    }
]
CALL = {
    "id": "callabc12",
    "type": "function",
    "function": {"name": "look", "arguments": {"at": "here é", "n": [1, None, True]}},
}
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "hello é <|im_end|>\n"}
SAID = {"role": "assistant", "content": "I look.", "reasoning_content": "hm"}
RESULT = {"role": "tool", "tool_call_id": "callabc12", "name": "look", "content": "seen"}
TALKS = (
    [USER],
    [SYSTEM, USER],
    [USER, SAID, USER],
    [SYSTEM, USER, {**SAID, "tool_calls": [CALL]}, RESULT],
    [USER, {**SAID, "tool_calls": [CALL, CALL]}, RESULT, RESULT, USER],
)


def templates() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each template at hand: its name, its text and the control tokens that it needs."""
    for name, text in (PROVED | HABITS).items():
        yield name, text, tuple(MARKERS)
    for name, sample in SAMPLES.items():
        yield name, sample.template, sample.markers
    for path in PUBLISHED:
        text = path.read_text(encoding="utf-8")
        yield path.stem, text, tuple(sorted(set(MARKER.findall(text))))


TEMPLATES = {name: (text, markers) for name, text, markers in templates()}


class Sides:
    """One model's text side as mlx-lm has it, and as we do."""

    def __init__(self, theirs: Any, tokenizer: Any, config: dict[str, Any]) -> None:
        self.theirs = theirs
        self.notation = notation_of(tokenizer, config)
        self.codec = TextCodec(tokenizer, self.notation)

    @classmethod
    def loaded(cls, directory: Path) -> Sides:
        """Each loads the directory for itself."""
        ends = load_config(directory).get("eos_token_id")
        theirs = load_tokenizer(directory, eos_token_ids=ends)
        own = load_text(str(directory), model_id=None, context_length=None).tokenizer
        return cls(theirs, own, read_config(directory))

    @classmethod
    def of(cls, tokenizer: Any) -> Sides:
        """Both over one tokenizer: loading it is what takes long."""
        name = _infer_tool_parser(tokenizer)
        module: Any = import_module(f"mlx_lm.tool_parsers.{name}") if name else None
        theirs = TokenizerWrapper(
            tokenizer,
            BPEStreamingDetokenizer,
            tool_call_start=module and module.tool_call_start,
            tool_call_end=module and module.tool_call_end,
            tool_parser=module and module.parse_tool_call,
        )
        return cls(theirs, tokenizer, {})

    def check(self) -> None:
        self.check_notation()
        self.check_tokens()
        self.check_renders()

    def check_notation(self) -> None:
        theirs, ours = self.theirs, self.notation
        parser = theirs.tool_parser
        assert set(ours.eos_ids) == theirs.eos_token_ids
        assert (ours.think_markers or (None, None)) == (theirs.think_start, theirs.think_end)
        assert (ours.tool_markers is not None) == theirs.has_tool_calling
        if ours.tool_markers:
            assert ours.tool_markers == (theirs.tool_call_start, theirs.tool_call_end or "")
        named = parser.__module__.rsplit(".")[-1] if parser else None
        assert ours.tool_format == self.codec.tool_format == named
        assert ours.thinking_argument == theirs._thinking_kwarg
        assert (ours.render is not None) == (theirs._chat_template is not None)
        assert len(self.codec._tokenizer) == len(theirs)

    def check_tokens(self) -> None:
        for text in (*TEXTS, "".join(f"a {t}" for t in self.codec.special_texts)):
            ids = self.theirs.encode(text, add_special_tokens=False)
            assert self.codec.encode(text) == ids
            plain = self.theirs.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            assert self.codec.decode(ids) == plain
            streaming, pieces = self.theirs.detokenizer, self.codec.detokenizer()
            for token in ids:
                streaming.add_token(token)
            streaming.finalize()
            streamed = "".join(map(pieces.add, ids)) + pieces.finish()
            assert streamed == plain
            # Some of theirs take the first blank away, or one before a comma, which ours keep.
            assert re.sub(" ", "", streaming.text) == re.sub(" ", "", streamed)

    def check_renders(self) -> None:
        switches: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": False})
        for talk, tools, scaffold, args in itertools.product(
            TALKS, (None, TOOLS), (True, False), switches
        ):
            asked: Any = json.loads(json.dumps(talk))
            try:
                expected = self.theirs.apply_chat_template(
                    asked, tools=tools, tokenize=False, add_generation_prompt=scaffold, **args
                )
            except SecurityError:  # theirs may not write into its own lists, and ours may
                continue
            except Exception:
                if any("reasoning_content" in m for m in talk):
                    continue  # transformers gives reasoning twice, which some templates refuse
                expected = None
            try:
                found = self.codec.render(talk, tools, scaffold=scaffold, args=args)
            except RequestError:
                found = None
            assert found == expected


Copy = Callable[..., Path]


@pytest.fixture
def copy(smollm2: Path, tmp_path: Path) -> Copy:
    """Makes a copy of the default model's text files, with other settings, template and tokens."""

    def make(
        template: str | None = None,
        markers: tuple[str, ...] = (),
        config: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Path:
        path = tmp_path / "model"
        path.mkdir()
        (path / "model.safetensors").symlink_to(smollm2 / "model.safetensors")
        tokenizer: Any = AutoTokenizer.from_pretrained(smollm2)
        tokenizer.add_tokens(list(markers), True)
        if template is not None:
            tokenizer.chat_template = template
        tokenizer.save_pretrained(path)
        whole = json.loads((smollm2 / "config.json").read_text()) | (config or {})
        (path / "config.json").write_text(json.dumps(whole))
        file = path / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        return path

    return make


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_the_same_with_and_without_mlx_lm(name: str, smollm2: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.chat_template, markers = TEMPLATES[name]
    tokenizer.add_tokens(list(markers), True)
    Sides.of(tokenizer).check()


def test_a_directory_is_the_same_with_and_without_mlx_lm(smollm2: Path) -> None:
    Sides.loaded(smollm2).check()


def test_each_parser_is_inferred_from_some_template_here(copy: Copy) -> None:
    """Otherwise the test above would say little about which parser is taken."""
    found = {load.tool_parser_of(_Told(text, markers)) for text, markers in TEMPLATES.values()}
    assert {"gemma4", "function_gemma", "longcat", "pythonic", "minicpm5"} <= found


class _Told:
    def __init__(self, template: str | None, tokens: tuple[str, ...]) -> None:
        self.chat_template, self._tokens = template, tokens

    def get_vocab(self) -> dict[str, int]:
        return {t: n for n, t in enumerate(self._tokens)}


_TELLING = (
    "<minimax:tool_call>", "<|tool_call>", "<tool_call|>", "<start_function_call>",
    "<longcat_tool_call>", "<arg_key>", "<|tool_list_start|>", "<|tool_call_start|>",
    "<tool_call>\\n<function=", "<tool_call>\n<function=", "<|tool_calls_section_begin|>",
    '<function name="', '<param name="', "[TOOL_CALLS]", "<atem:function_calls>", "<tool_call>",
    "tool_call.name", "<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>", "<|tool_call_end|>",
)  # fmt: skip


def test_the_same_parser_and_markers_are_inferred_from_any_three_telling_texts() -> None:
    xtml = ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>")
    for texts in itertools.combinations(_TELLING, 3):
        for tokens in ((), texts, xtml):
            for template in (None, "", " ".join(texts)):
                told = _Told(template, tokens)
                assert load.tool_parser_of(told) == _infer_tool_parser(told)


def test_the_same_reasoning_is_inferred_from_any_tokens() -> None:
    class Vocabulary(_Told):
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return []

    telling = (
        "<think>", "</think>", "<longcat_think>", "</longcat_think>", "<|think:start|>",
        "<|think:end|>", "<|channel>", "<channel|>", "<|open|>", "<|close|>", "<|sep|>",
        "<|end_of_msg|>",
    )  # fmt: skip
    for n in range(len(telling) + 1):
        for tokens in itertools.combinations(telling, n):
            told = Vocabulary(None, tokens)
            assert (think_markers(told.get_vocab()) or (None, None)) == _infer_thinking(told)[:2]


PARSERS = [m.name for m in pkgutil.iter_modules(tool_parsers.__path__)]


@pytest.mark.parametrize("name", ["json_tools", "laguna", "mistral"])
def test_a_tokenizer_may_name_its_parser(name: str, copy: Copy) -> None:
    sides = Sides.loaded(copy(tool_parser_type=name))
    sides.check_notation()
    assert sides.codec.tool_format is not None


@pytest.mark.parametrize("kind", [m.name for m in pkgutil.iter_modules(chat_templates.__path__)])
def test_a_template_that_is_code_of_mlx_lm(kind: str, copy: Copy) -> None:
    module = import_module(f"mlx_lm.chat_templates.{kind}")
    if not hasattr(module, "apply_chat_template"):
        pytest.skip("no template, only a format of replies")
    sides = Sides.loaded(copy(chat_template_type=kind))
    sides.check()
    assert sides.notation.render is not None


@pytest.mark.parametrize("name", ["", "..json_tools", "os", "json_tools.json", "nothing"])
def test_a_parser_that_mlx_lm_lacks_is_refused(name: str, copy: Copy) -> None:
    path = copy(tool_parser_type=name)
    if not name:  # as mlx-lm has it: an empty name is a name
        assert notation_of(AutoTokenizer.from_pretrained(path), {}).tool_parser is None
        return
    with pytest.raises(ConfigError, match="which this version of mlx-lm lacks"):
        notation_of(AutoTokenizer.from_pretrained(path), {})


@pytest.mark.parametrize(
    ("own", "generation"),
    [
        (None, None), (None, '{"eos_token_id": 5}'), (0, "{}"), (7, '{"eos_token_id": 0}'),
        ([], "{"), ([3, 4], '{"eos_token_id": [5, 6]}'), ([3, 4], '{"eos_token_id": null}'),
    ],
)  # fmt: skip
def test_ends_of_turns_are_those_of_the_configs(
    own: Any, generation: str | None, tmp_path: Path, smollm2: Path
) -> None:
    path = spm(tmp_path / "small", smollm2, strips=True)
    config = json.loads((path / "config.json").read_text()) | {"eos_token_id": own}
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (path / "generation_config.json").write_text(generation)
    Sides.loaded(path).check_notation()


def test_what_model_modules_say_of_tokenizers_is_known() -> None:
    said = {}
    for path in Path(models.__path__[0]).glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and "TOKENIZER_DEFAULTS" in ast.unparse(node):
                said[path.stem] = ast.literal_eval(node.value)
    assert said == load._DEFAULTS
    remapped = {*MODEL_REMAPPING.values(), *MODEL_ARCHITECTURE_REMAPPING.values()}
    assert not remapped & said.keys()


def test_a_models_defaults_are_taken_where_its_files_say_nothing(copy: Copy) -> None:
    path = copy(config={"model_type": "muse_spark", "eos_token_id": None})
    assert _get_classes(load_config(path))  # otherwise mlx-lm would not look for defaults
    Sides.loaded(path).check_notation()


def spm(directory: Path, smollm2: Path, *, strips: bool) -> Path:
    """A tokenizer of SentencePiece's kind, which spells blanks as ▁ and has bytes as tokens."""
    letters = "abcdefghijklmnopqrstuvwxyzHL,.▁()<>/:_|0123456789"
    words = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *letters, "▁he", "▁x"]
    model = kinds.BPE(
        vocab={w: n for n, w in enumerate(words)},
        merges=[],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")] if strips
        else [normalizers.Replace(" ", "▁")]
    )  # fmt: skip
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if strips else [])])
    made.add_special_tokens([AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")])
    directory.mkdir()
    made.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "chat_template": "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    shutil.copy(smollm2 / "config.json", directory)
    (directory / "model.safetensors").symlink_to(smollm2 / "model.safetensors")
    return directory


@pytest.mark.parametrize("strips", [True, False])
def test_a_tokenizer_of_sentencepieces_kind(tmp_path: Path, smollm2: Path, strips: bool) -> None:
    Sides.loaded(spm(tmp_path / "spm", smollm2, strips=strips)).check()


def test_a_tokenizer_that_spells_line_ends_is_the_one_in_its_file(copy: Copy) -> None:
    """mlx-lm's own class has an `__init__`, for which transformers 5 drops the pre-tokenizer."""
    path = copy(markers=("<n>",), tokenizer_class="NewlineTokenizer")
    codec = load_text(str(path), model_id=None, context_length=None).codec
    plain: Any = Tokenizer.from_file(str(path / "tokenizer.json"))
    for text in (*TEXTS, "a\nb\n"):
        ids = codec.encode(text)
        assert ids == plain.encode(text.replace("\n", "<n>"), add_special_tokens=False).ids
        assert codec.decode(ids) == text.replace("<n>", "\n")


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_run_from_its_file_reads_what_mlx_lms_reads(name: str) -> None:
    theirs: Any = import_module(f"mlx_lm.tool_parsers.{name}")
    ours: Any = text_module("tool_parsers", name)
    bodies = [
        '{"name": "look", "arguments": {"at": "here"}}', "look(at='here', n=[1])", "{", "",
        'look\n<arg_key>at</arg_key>\n<arg_value>here</arg_value>', 'look[ARGS]{"at": "here"}',
        '<function name="look"><param name="at">here</param></function>',
        "<function=look>\n<parameter=at>\nhere\n</parameter>\n</function>",
        'call:look{at:<|"|>here<|"|>}', "call:look{at:<escape>here<escape>}",
        'functions.look:0<|tool_call_argument_begin|>{"at": "here"}',
        '<invoke name="look"><parameter name="at">here</parameter></invoke>',
        "look\n<longcat_arg_key>at</longcat_arg_key><longcat_arg_value>1</longcat_arg_value>",
    ]  # fmt: skip

    def read(module: Any, body: str) -> Any:
        try:
            return module.parse_tool_call(body, TOOLS)
        except Exception as e:
            return type(e), str(e)

    found = [read(ours, body) for body in bodies]
    assert found == [read(theirs, body) for body in bodies]
