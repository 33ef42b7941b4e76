"""What a model's tokenizer says about how its replies are written, before its template is asked.

Ends of turns, markers of reasoning and calls, the parser of calls, and the name of the template's
argument for thinking. The same answers as mlx-lm's `TokenizerWrapper` gives, which a contract test
holds for all its parsers: what is a reply of a model must not depend on which process reads it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from everwarm.text.upstream import text_module

_Pair = tuple[str, str]
_THINK_TOKENS: Final[tuple[_Pair, ...]] = (
    ("<think>", "</think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
)
_XTML: Final = frozenset(("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"))
_IN_TEMPLATE: Final[tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]] = (
    ("minimax_m2", (("<minimax:tool_call>",),)),
    ("gemma4", (("<|tool_call>", "<tool_call|>"),)),
    ("function_gemma", (("<start_function_call>",),)),
    ("longcat", (("<longcat_tool_call>",),)),
    ("glm47", (("<arg_key>",),)),
    ("pythonic", (("<|tool_list_start|>",), ("<|tool_call_start|>",))),
    ("qwen3_coder", (("<tool_call>\\n<function=",), ("<tool_call>\n<function=",))),
    ("kimi_k2", (("<|tool_calls_section_begin|>",),)),
    ("minicpm5", (('<function name="', '<param name="'),)),
    ("mistral", (("[TOOL_CALLS]",),)),
    ("muse_spark", (("<atem:function_calls>",),)),
    ("json_tools", (("<tool_call>", "tool_call.name"),)),
)
"""A parser's name, and what a template holds that asks for it: all texts of one of the groups. The
first that fits is taken."""


@dataclass(frozen=True, slots=True)
class Notation:
    """How a model's replies are written. `tool_parser` gives a dict or a list of them.

    `render`: the template, where it is Python code beside the tokenizer. `thinking_argument`: what
    the template calls the switch that has reasoning written.
    """

    eos_ids: frozenset[int]
    think_markers: _Pair | None
    tool_markers: _Pair | None
    tool_parser: Callable[..., Any] | None
    tool_format: str | None
    thinking_argument: str
    render: Callable[..., str] | None

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        *,
        eos_ids: Collection[int] = (),
        tool_parser: str | None = None,
        render: Callable[..., str] | None = None,
    ) -> Notation:
        """Of a tokenizer. `tool_parser`: the name of one of mlx-lm's parsers, if any."""
        module = text_module("tool_parsers", tool_parser) if tool_parser else None
        own = tokenizer.eos_token_id
        return cls(
            eos_ids=frozenset((*eos_ids, *(() if own is None else (own,)))),
            think_markers=think_markers(tokenizer.get_vocab()),
            tool_markers=(module.tool_call_start, module.tool_call_end or "") if module else None,
            tool_parser=module.parse_tool_call if module else None,
            # One module may lend its function to another: the lender's name is the notation's.
            tool_format=module.parse_tool_call.__module__.rsplit(".")[-1] if module else None,
            thinking_argument=_thinking_argument(tokenizer),
            render=render,
        )


def think_markers(vocab: Mapping[str, int]) -> _Pair | None:
    """Texts that open and close reasoning, by the tokens that there are."""
    for opens, closes in _THINK_TOKENS:
        if opens in vocab and closes in vocab:
            return opens, closes
    if "<|channel>" in vocab and "<channel|>" in vocab:
        return "<|channel>thought", "<channel|>"
    if vocab.keys() >= _XTML:
        return "<|open|>think<|sep|>", "<|close|>think<|sep|>"
    return None


def tool_parser_of(tokenizer: Any) -> str | None:
    """The parser's name that the template, or else the vocabulary, asks for."""
    template = tokenizer.chat_template
    if isinstance(template, str):
        for name, groups in _IN_TEMPLATE:
            if any(all(text in template for text in group) for group in groups):
                return name
    vocab = tokenizer.get_vocab()
    if vocab.keys() >= _XTML:
        return "kimi_k3"
    return "pythonic" if {"<|tool_call_start|>", "<|tool_call_end|>"} <= vocab.keys() else None


def has_own_renderer(tokenizer: Any) -> bool:
    """Whether the tokenizer's class has a template in code."""
    own: Any = getattr(type(tokenizer), "apply_chat_template", None)
    return own is not PreTrainedTokenizerBase.apply_chat_template


def _thinking_argument(tokenizer: Any) -> str:
    if has_own_renderer(tokenizer):
        try:
            names = inspect.signature(type(tokenizer).apply_chat_template).parameters
        except (ValueError, TypeError):
            return "enable_thinking"
        if "thinking" in names and "enable_thinking" not in names:
            return "thinking"
    return "enable_thinking"
