"""The families' syntaxes, and which one a model has: its chat template tells, never its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from everwarm.codec import Codec
from everwarm.prompt.dialects.syntax import CallSyntax, Dialect, Literals, Tags

# --- calls that are JSON objects ---

JSON_TOOLS = CallSyntax(
    open="<tool_call>",
    head="\n",
    call='{"name": "«name»", "arguments": «arguments»}',
    tail="\n",
    close="</tool_call>",
    apart="\n",
)
GRANITE_3 = CallSyntax(
    open="<|tool_call|>",
    head="[",
    call='{"name": "«name»", "arguments": «arguments»}',
    between=", ",
    tail="]",
    close="",
)
PHI_4 = replace(GRANITE_3, close="<|/tool_call|>")
FUNCTOOLS = replace(GRANITE_3, open="functools", bare=True)
COHERE = CallSyntax(
    open="<|START_ACTION|>",
    head="[\n    ",
    call='{"tool_call_id": "«n»", "tool_name": "«name»", "parameters": «arguments»}',
    between=",\n    ",
    tail="\n]",
    close="<|END_ACTION|>",
)
MISTRAL_LIST = replace(GRANITE_3, open="[TOOL_CALLS]")
LLAMA_3 = CallSyntax(
    open="", call='{"name": "«name»", "parameters": «arguments»}', close="", apart=None, bare=True
)
LLAMA_3_TAG = replace(LLAMA_3, open="<|python_tag|>", bare=False)

# --- calls with the name in front of JSON arguments ---

LLAMA_3_FUNCTION = CallSyntax(
    open="<function=", call="«name»>«arguments»", close="</function>", bare=True
)
MISTRAL = CallSyntax(open="[TOOL_CALLS]", call="«name»[ARGS]«arguments»", close="")
MISTRAL_ID = replace(MISTRAL, call="«name»[CALL_ID]«id»[ARGS]«arguments»", own_id="«id»")
KIMI_K2 = CallSyntax(
    open="<|tool_calls_section_begin|>",
    call="<|tool_call_begin|>functions.«name»:«n»<|tool_call_argument_begin|>«arguments»"
    "<|tool_call_end|>",
    between="",
    close="<|tool_calls_section_end|>",
    own_id="functions.«name»:«n»",
)
DEEPSEEK_V31 = CallSyntax(
    open="<｜tool▁calls▁begin｜>",
    call="<｜tool▁call▁begin｜>«name»<｜tool▁sep｜>«arguments»<｜tool▁call▁end｜>",
    between="",
    close="<｜tool▁calls▁end｜>",
)
DEEPSEEK_V3 = replace(
    DEEPSEEK_V31,
    call="<｜tool▁call▁begin｜>function<｜tool▁sep｜>«name»\n```json\n«arguments»\n```"
    "<｜tool▁call▁end｜>",
    between="\n",
)
HARMONY = CallSyntax(
    open="<|channel|>commentary to=functions.",
    call="«name» <|constrain|>json<|message|>«arguments»",
    close="<|call|>",
    apart=None,
)

# --- calls with tags around each argument ---

QWEN3_CODER = CallSyntax(
    open="<tool_call>",
    head="\n",
    call="<function=«name»>\n«arguments»</function>",
    tags=Tags("<parameter=", ">\n", "\n</parameter>\n"),
    tail="\n",
    close="</tool_call>",
    apart="\n",
)
SEED_OSS = replace(
    QWEN3_CODER,
    open="<seed:tool_call>",
    tags=Tags("<parameter=", ">", "</parameter>\n"),
    close="</seed:tool_call>",
)
GLM_4 = CallSyntax(
    open="<tool_call>",
    call="«name»«arguments»",
    tags=Tags("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
    close="</tool_call>",
)
MINIMAX_M2 = CallSyntax(
    open="<minimax:tool_call>",
    head="\n",
    call='<invoke name="«name»">\n«arguments»</invoke>\n',
    between="",
    tags=Tags('<parameter name="', '">', "</parameter>\n"),
    close="</minimax:tool_call>",
)
DEEPSEEK_V32 = CallSyntax(
    open="<｜DSML｜function_calls>",
    head="\n",
    call='<｜DSML｜invoke name="«name»">\n«arguments»</｜DSML｜invoke>\n',
    between="",
    tags=Tags(
        open='<｜DSML｜parameter name="',
        middle='" string="true">',
        others=(("any", '" string="false">'),),
        close="</｜DSML｜parameter>\n",
    ),
    close="</｜DSML｜function_calls>",
)

THINK = ("<think>", "</think>")
FAMILIES: tuple[tuple[Callable[[str], bool], Dialect], ...] = (
    (
        lambda t: "<|channel|>analysis" in t and "<|call|>" in t,
        Dialect(
            "harmony",
            ("<|channel|>analysis<|message|>", "<|end|>"),
            (HARMONY,),
            ("<|channel|>final<|message|>", ""),
            "<|start|>assistant",
        ),
    ),
    (lambda t: "｜DSML｜" in t, Dialect("deepseek_v32", THINK, (DEEPSEEK_V32,))),
    (
        lambda t: "<｜tool▁calls▁begin｜>" in t and "```json" in t,
        Dialect("deepseek_v3", None, (DEEPSEEK_V3, DEEPSEEK_V31)),
    ),
    (
        lambda t: "<｜tool▁calls▁begin｜>" in t,
        Dialect("deepseek_v31", None, (DEEPSEEK_V31, DEEPSEEK_V3)),
    ),
    (lambda t: "<|tool_calls_section_begin|>" in t, Dialect("kimi_k2", None, (KIMI_K2,))),
    (lambda t: "<minimax:tool_call>" in t, Dialect("minimax_m2", None, (MINIMAX_M2,))),
    (
        lambda t: "<seed:tool_call>" in t,
        Dialect("seed_oss", ("<seed:think>", "</seed:think>"), (SEED_OSS,)),
    ),
    (lambda t: "<arg_key>" in t, Dialect("glm_4", None, (GLM_4,))),
    (
        lambda t: "<tool_call>\\n<function=" in t or "<tool_call>\n<function=" in t,
        Dialect("qwen3_coder", None, (QWEN3_CODER, JSON_TOOLS)),
    ),
    (
        lambda t: "[TOOL_CALLS]" in t and "[CALL_ID]" in t,
        Dialect("mistral", None, (MISTRAL_ID, MISTRAL, MISTRAL_LIST)),
    ),
    (
        lambda t: "[TOOL_CALLS]" in t and "[ARGS]" in t,
        Dialect("mistral", None, (MISTRAL, MISTRAL_ID, MISTRAL_LIST)),
    ),
    (
        lambda t: "[TOOL_CALLS]" in t,
        Dialect("mistral", None, (MISTRAL_LIST, MISTRAL, MISTRAL_ID)),
    ),
    (
        lambda t: "<|START_ACTION|>" in t,
        Dialect(
            "cohere",
            ("<|START_THINKING|>", "<|END_THINKING|>"),
            (COHERE,),
            ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ),
    ),
    (
        lambda t: "<|tool_call|>" in t and "<|/tool_call|>" in t,
        Dialect("phi_4", None, (PHI_4, FUNCTOOLS)),
    ),
    (
        lambda t: "<|tool_call|>" in t,
        Dialect("granite_3", None, (GRANITE_3,), ("<response>", "</response>")),
    ),
    (
        lambda t: "<|start_header_id|>" in t and '"parameters": ' in t,
        Dialect("llama_3", None, (LLAMA_3, LLAMA_3_TAG, LLAMA_3_FUNCTION)),
    ),
    (lambda t: "<tool_call>" in t, Dialect("json_tools", None, (JSON_TOOLS,))),
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
}
"""Notations that a tokenizer's own setting names, by mlx-lm's name for them."""
_READ_BY_MLX = ("minicpm5", "muse_spark", "kimi_k3")
_NAMES = {
    "json_tools": "json_tools",
    "qwen3_coder": "qwen3_coder",
    "glm47": "glm_4",
    "laguna": "glm_4",
    "kimi_k2": "kimi_k2",
    "minimax_m2": "minimax_m2",
    "mistral": "mistral",
}
"""What a tokenizer's own setting calls the families."""
_REASONING = (THINK, ("[THINK]", "[/THINK]"))


def of(codec: Codec) -> Dialect:
    """The dialect of a model's template and control tokens."""
    shown = codec.template_text
    found = _calls(codec, shown)
    return replace(found, reasoning=found.reasoning or _reasoning(codec, shown))


def call_tokens(codec: Codec) -> set[int]:
    """Control tokens that only calls have: without them, none can be written."""
    dialect = of(codec)
    others = "".join((*(dialect.reasoning or ()), *dialect.text, dialect.glue))
    found = set()
    for opens in (c.open for c in dialect.calls if not c.bare):
        parts = [s for s in codec.special_texts if s and s in opens and s not in others]
        ids = [codec.encode(p) for p in (opens, *parts)]
        found |= set(next((i for i in ids if len(i) == 1), ()))
    return found


def _calls(codec: Codec, shown: str) -> Dialect:
    name = codec.tool_format or ""
    if name in OTHERS:
        return Dialect(name, None, (OTHERS[name],))
    if name in _READ_BY_MLX and codec.tool_markers:
        opens, closes = codec.tool_markers
        own = CallSyntax(open=opens, call="«name»«arguments»", close=closes, own=True)
        return Dialect(name, None, (own,), tool_format=name)
    specials = "\n".join(codec.special_texts)
    by_name = {d.name: d for _, d in FAMILIES}
    found = next((d for matches, d in FAMILIES if matches(shown)), None)
    if found is None and not shown:
        found = next((d for matches, d in FAMILIES if matches(specials)), None)
    if found is None and "<|/tool_call|>" in specials:  # the template leaves it to the model
        found = by_name["phi_4"]
    return found or by_name.get(_NAMES.get(codec.tool_format or "", "")) or Dialect("plain")


def _reasoning(codec: Codec, shown: str) -> tuple[str, str] | None:
    if codec.think_markers:
        return codec.think_markers
    for opens, closes in _REASONING:
        known = opens in codec.special_texts and closes in codec.special_texts
        if known or (opens in shown and closes in shown):
            return opens, closes
    return None
