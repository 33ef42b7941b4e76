"""Finds a model's dialect: derived from its template, with what its family never shows there.

Every entry says why it cannot be derived. What a template shows has no entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from everwarm.codec import Codec, Writing
from everwarm.prompt.dialects.derive import derived
from everwarm.prompt.dialects.dialect import CallSyntax, Dialect, DialectOrigin, Literals, Tags

THINK = ("<think>", "</think>")
JSON_TOOLS = CallSyntax(
    open="<tool_call>",
    head="\n",
    call='{"name": "«name»", "arguments": «arguments»}',
    tail="\n",
    close="</tool_call>",
    apart="\n",
)
PHI_4 = CallSyntax(
    open="<|tool_call|>",
    head="[",
    call='{"name": "«name»", "arguments": «arguments»}',
    between=", ",
    tail="]",
    close="<|/tool_call|>",
)
FUNCTOOLS = replace(PHI_4, open="functools", close="", bare=True)
LLAMA_3_TAG = CallSyntax(
    open="<|python_tag|>",
    call='{"name": "«name»", "parameters": «arguments»}',
    close="",
    apart=None,
)
LLAMA_3_FUNCTION = CallSyntax(
    open="<function=", call="«name»>«arguments»", close="</function>", bare=True
)
HARMONY = Dialect(
    "harmony",
    ("<|channel|>analysis<|message|>", "<|end|>"),
    (
        CallSyntax(
            open="<|channel|>commentary to=functions.",
            call="«name» <|constrain|>json<|message|>«arguments»",
            close="<|call|>",
            apart=None,
        ),
    ),
    ("<|channel|>final<|message|>", ""),
    "<|start|>assistant",
)


@dataclass(frozen=True, slots=True)
class Family:
    """What one family writes and its template never shows, and why that cannot be derived.

    `matches`: whether a template's text is this family's. `calls` are read where the template
    shows none, and `beside` those that are derived; `dialect` stands for all that is derived.
    """

    name: str
    reason: str
    matches: Callable[[str], bool]
    calls: tuple[CallSyntax, ...] = ()
    beside: tuple[CallSyntax, ...] = ()
    reasoning: tuple[str, str] | None = None
    text: tuple[str, str] = ("", "")
    dialect: Dialect | None = None


FAMILIES = (
    Family(
        "harmony",
        "The template writes a call's recipient before the channel, the model behind it; and each "
        "part of a reply has a header of its own, which is no marker around text.",
        lambda t: "<|channel|>analysis" in t and "<|call|>" in t,
        dialect=HARMONY,
    ),
    Family(
        "llama_3",
        "The template shows a bare JSON object; the model also writes `<|python_tag|>` in front of "
        "one, and `<function=NAME>`.",
        lambda t: "<|start_header_id|>" in t and '"parameters": ' in t,
        beside=(LLAMA_3_TAG, LLAMA_3_FUNCTION),
    ),
    Family(
        "qwen3_coder",
        "The model falls back to calls in JSON where it sees them so in a conversation.",
        lambda t: "<tool_call>\\n<function=" in t or "<tool_call>\n<function=" in t,
        beside=(JSON_TOOLS,),
    ),
    Family(
        "phi_4",
        "The template drops past calls; the notation stands in the control tokens alone.",
        lambda t: "<|tool_call|>" in t and "<|/tool_call|>" in t,
        calls=(PHI_4, FUNCTOOLS),
    ),
    Family(
        "granite_3",
        "The template asks for `<response>` in words and drops it from past replies.",
        lambda t: "<|tool_call|>" in t and "<|/tool_call|>" not in t,
        calls=(replace(PHI_4, close=""),),
        text=("<response>", "</response>"),
    ),
    Family(
        "apertus",
        "The template shows reasoning only where a message comes in blocks of its own kind.",
        lambda t: "<|inner_prefix|>" in t and "<|inner_suffix|>" in t,
        reasoning=("<|inner_prefix|>", "<|inner_suffix|>"),
    ),
    Family(
        "json_tools",
        "The template asks for such calls in words, and drops them from past replies.",
        lambda t: "<tool_call>" in t,
        calls=(JSON_TOOLS,),
    ),
)
OTHERS = {
    "gemma4": CallSyntax(
        open="<|tool_call>",
        call="call:«name»«arguments»",
        close="<tool_call|>",
        literals=Literals("{", ":", "}", ('<|"|>', '"')),
    ),
    "function_gemma": CallSyntax(
        open="<start_function_call>",
        call="call:«name»«arguments»",
        close="<end_function_call>",
        literals=Literals("{", ":", "}", ("<escape>", '"')),
    ),
    "pythonic": CallSyntax(
        open="<|tool_call_start|>",
        head="[",
        call="«name»«arguments»",
        between=", ",
        tail="]",
        close="<|tool_call_end|>",
        literals=Literals("(", "=", ")", ('"', "'", '"""', "'''")),
    ),
    "longcat": CallSyntax(
        open="<longcat_tool_call>",
        call="«name»\n«arguments»",
        tags=Tags(
            "<longcat_arg_key>",
            "</longcat_arg_key>\n<longcat_arg_value>",
            "</longcat_arg_value>\n",
        ),
        close="</longcat_tool_call>",
        apart="\n",
    ),
    "json_tools": JSON_TOOLS,
}
"""By mlx-lm's name, for models whose templates write no calls: a tokenizer's own setting says how
they are written, and nothing else does."""
_READ_BY_MLX = ("minicpm5", "muse_spark", "kimi_k3")
"""Notations that mlx-lm reads, for models whose templates write no calls."""
_REASONING = (THINK, ("[THINK]", "[/THINK]"))
"""Markers of reasoning that templates drop from past replies and tokenizers do not name."""
_found: WeakKeyDictionary[Writing, Dialect] = WeakKeyDictionary()


def of(codec: Writing) -> Dialect:
    """The dialect of a model's template and control tokens. Worked out once for each codec."""
    found = _found.get(codec)
    if found is None:
        found = _found[codec] = corrected(codec, derived(codec))
    return found


def corrected(codec: Writing, shown: Dialect) -> Dialect:
    """A derived dialect with what its template never shows."""
    text = codec.template_text
    family = next((f for f in FAMILIES if f.matches(text)), None)
    if family is None and not shown.calls and "<|/tool_call|>" in codec.special_texts:
        family = next(f for f in FAMILIES if f.name == "phi_4")
    if family is not None and family.dialect is not None:
        return replace(family.dialect, origin="known", note=family.reason)
    made = _with_family(shown, family) if family is not None else shown
    if not made.calls:
        made = _by_setting(codec, made)
    return replace(made, reasoning=made.reasoning or _reasoning(codec))


def _with_family(shown: Dialect, family: Family) -> Dialect:
    calls = family.beside if shown.calls else family.calls + family.beside
    text = family.text if family.text[0] and not shown.text[0] else shown.text
    made = replace(
        shown,
        calls=(*shown.calls, *calls),
        text=text,
        reasoning=shown.reasoning or family.reasoning,
    )
    if made == shown:
        return shown
    origin: DialectOrigin = "corrected" if shown.calls else "known" if calls else shown.origin
    return replace(made, name=family.name, origin=origin, note=family.reason)


def _by_setting(codec: Writing, shown: Dialect) -> Dialect:
    """Calls as mlx-lm's name for a tokenizer's notation says."""
    name = codec.tool_format or ""
    note = "The template writes no calls; a setting of the tokenizer names their notation."
    if name in OTHERS:
        calls: tuple[CallSyntax, ...] = (OTHERS[name],)
        return replace(shown, name=name, calls=calls, origin="known", note=note)
    if name in _READ_BY_MLX and codec.tool_markers:
        opens, closes = codec.tool_markers
        own = CallSyntax(open=opens, call="«name»«arguments»", close=closes, own=True)
        return replace(shown, name=name, calls=(own,), origin="known", note=note)
    return shown


def call_tokens(codec: Codec) -> set[int]:
    """Control tokens that only calls have: without them, none can be written."""
    dialect = of(codec)
    others = "".join((*(dialect.reasoning or ()), *dialect.text, *dialect.ends, dialect.glue))
    found = set()
    for opens in (c.open for c in dialect.calls if not c.bare):
        parts = [s for s in codec.special_texts if s and s in opens and s not in others]
        ids = [codec.encode(p) for p in (opens, *parts)]
        found |= set(next((i for i in ids if len(i) == 1), ()))
    return found


def _reasoning(codec: Writing) -> tuple[str, str] | None:
    if codec.think_markers:
        return codec.think_markers
    shown = codec.template_text
    for opens, closes in _REASONING:
        known = opens in codec.special_texts and closes in codec.special_texts
        if known or (opens in shown and closes in shown):
            return opens, closes
    return None
