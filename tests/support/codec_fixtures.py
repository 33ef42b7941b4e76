"""A real tokenizer with small chat templates of our own.

`EVERWARM_TEMPLATES=DIR` adds the published templates in a directory (`*.jinja`) to `any_codec`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from dialect_samples import SAMPLES, Sample
from prompt_templates import HABITS, MARKERS, PROVED
from transformers import AutoTokenizer

from everwarm.text.notation import Notation
from everwarm.text.text_codec import TextCodec

PUBLISHED = sorted(Path(os.environ.get("EVERWARM_TEMPLATES") or os.devnull).glob("*.jinja"))
_MARKER = re.compile(
    r"<\|[^<>|\s]+\|?>|<[^<>|\s]+\|>|<｜[^<>｜]+｜>|\[/?[A-Z_]+\]|\]~!?b?\w*\[|\]<\]\w+\[>\["
    r"|</?(?:think|tool_call|tool_response|arg_key|arg_value|assistant|user|system|\w+_turn|s)>"
)
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Drops the reasoning of all old turns and spells tool arguments in its own way.
FORGETFUL = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}"
    "{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.fixture(scope="session")
def codec(smollm2: Path) -> Callable[..., TextCodec]:
    """Makes the codec of SmolLM2's tokenizer, with markers for reasoning and calls, by template.

    One for each template and what ends its turns: making one takes 0.3 s.
    """

    @functools.cache
    def made(template: str, ends: tuple[str, ...]) -> TextCodec:
        return make(template, ends)

    def make(template: str, ends: Sequence[str] = ()) -> TextCodec:
        tokenizer = AutoTokenizer.from_pretrained(smollm2)
        tokenizer.add_tokens(MARKERS, True)
        tokenizer.chat_template = template
        ids = tokenizer.convert_tokens_to_ids(list(ends))
        return TextCodec(tokenizer, Notation.of(tokenizer, eos_ids=ids, tool_parser="json_tools"))

    return lambda template, ends=(): made(template, tuple(ends))


@pytest.fixture(scope="session")
def plain(codec: Callable[[str], TextCodec]) -> TextCodec:
    """ChatML as it is."""
    return codec(PLAIN)


@pytest.fixture(scope="session")
def forgetful(codec: Callable[[str], TextCodec]) -> TextCodec:
    """A template that writes old replies in another way than the model did."""
    return codec(FORGETFUL)


@pytest.fixture(scope="session")
def marked_codec(smollm2: Path) -> Callable[[str, list[str]], TextCodec]:
    """Makes the codec of SmolLM2's tokenizer with any template and markers."""

    def make(template: str, markers: list[str]) -> TextCodec:
        tokenizer = AutoTokenizer.from_pretrained(smollm2)
        tokenizer.add_tokens(markers, True)
        tokenizer.chat_template = template
        return TextCodec(tokenizer, Notation.of(tokenizer))

    return make


@pytest.fixture(scope="session")
def sample_codec(smollm2: Path) -> Callable[[str], TextCodec]:
    """Makes the codec of a dialect's sample: SmolLM2's tokenizer with its markers and template."""

    return cache(lambda name: _sample_codec(smollm2, SAMPLES[name], SAMPLES[name].template))


@pytest.fixture(scope="session")
def muted_codec(smollm2: Path) -> Callable[[str], TextCodec]:
    """Makes the codec of a dialect's sample with a template that writes no calls at all."""
    return cache(lambda name: _sample_codec(smollm2, SAMPLES[name], PLAIN))


def _sample_codec(smollm2: Path, sample: Sample, template: str) -> TextCodec:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.add_tokens(list(sample.markers), True)
    tokenizer.chat_template = template
    ends = tokenizer.convert_tokens_to_ids(list(sample.ends))
    notation = Notation.of(tokenizer, eos_ids=ends, tool_parser=sample.parser)
    return TextCodec(tokenizer, notation)


@pytest.fixture(params=[*PROVED, *HABITS, *SAMPLES, *(p.stem for p in PUBLISHED)])
def any_codec(
    request: pytest.FixtureRequest,
    codec: Callable[..., TextCodec],
    sample_codec: Callable[[str], TextCodec],
    marked_codec: Callable[[str, list[str]], TextCodec],
) -> TextCodec:
    """The codec of each template at hand, with its markers as tokens."""
    name = request.param
    if own := (PROVED | HABITS).get(name):
        return codec(own)
    if name in SAMPLES:
        return sample_codec(name)
    template = next(p for p in PUBLISHED if p.stem == name).read_text(encoding="utf-8")
    return marked_codec(template, sorted(set(_MARKER.findall(template))))
