"""Chat templates of our own, each with a way of writing calls that no sample of a family has."""

from __future__ import annotations

import json
from collections.abc import Sequence

from everwarm.text.bare_text import TemplateText
from everwarm.text.template_bounds import RenderLimits

NAME, ARGS, ID = "{{ c.function.name }}", "{{ c.function.arguments | tojson }}", "{{ c.id }}"


def codec_of(
    template: str, specials: Sequence[str] = (), ends: Sequence[str] = ("</s>",)
) -> TemplateText:
    """What derives a template's dialect: no tokenizer is needed. Bounded to a second."""
    return TemplateText(template, specials, ends, RenderLimits(seconds=1.0))


def chat(
    calls: str, *, think: tuple[str, str] = ("", ""), text: tuple[str, str] = ("", ""),
    end: str = "<|im_end|>", ask: str = "",
) -> str:  # fmt: skip
    """ChatML around a notation."""
    thought = (
        "{% if m.reasoning_content %}" + _said(think[0]) + "{{ m.reasoning_content }}"
        + _said(think[1]) + "{% endif %}"
    ) if think[0] else ""  # fmt: skip
    return (
        "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        + thought + "{% if m.content %}" + _said(text[0]) + "{{ m.content }}" + _said(text[1])
        + "{% endif %}{% if m.tool_calls %}" + calls + "{% endif %}" + _said(end)
        + "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}<|im_start|>assistant\n" + _said(ask) + "{% endif %}"
    )  # fmt: skip


def _said(text: str) -> str:
    """A text that trimmed blocks leave alone."""
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""


def each(call: str, between: str = "", before: str = "", behind: str = "") -> str:
    """Each call in turn."""
    apart = "{% if not loop.first %}" + _said(between) + "{% endif %}" if between else ""
    return (
        _said(before) + "{% for c in m.tool_calls %}" + apart + call + "{% endfor %}"
        + _said(behind)
    )  # fmt: skip


def _keyed(before: str, middle: str, behind: str, *, value: str = "") -> str:
    value = value or "{{ v if v is string else v | tojson }}"
    return (
        "{% for k, v in c.function.arguments.items() %}" + _said(before) + "{{ k }}"
        + _said(middle) + value + _said(behind) + "{% endfor %}"
    )  # fmt: skip


_TYPED = (
    '{% for k, v in c.function.arguments.items() %}<|open|>arg key="{{ k }}" type="'
    "{{ 'string' if v is string else 'boolean' if v is boolean else 'number' if v is number else "
    "'null' if v is none else 'object' if v is mapping else 'array' }}\"<|sep|>"
    "{{ v if v is string else v | tojson }}<|close|>arg<|sep|>{% endfor %}"
)
_NESTED = (
    "{% macro tags(k, v) %}<{{ k }}>{% if v is mapping %}{% for a, b in v.items() %}"
    "{{ tags(a, b) }}{% endfor %}{% elif v is string or v is not iterable %}"
    "{{ v if v is string else v | tojson }}{% else %}{% for b in v %}{{ tags('item', b) }}"
    "{% endfor %}{% endif %}</{{ k }}>{% endmacro %}"
)
_PYTHON = (
    "{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}="
    "{{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %})"
)
_FENCED = (
    "{{ '\\nAction:\\n```json\\n[\\n' }}{% for c in m.tool_calls %}"
    "{{ '    {\\n        \"tool_name\": ' }}{{ c.function.name | tojson }}"
    "{{ ',\\n        \"parameters\": ' }}"
    "{{ c.function.arguments | tojson(indent=4) }}{{ '\\n    }' }}"
    "{% if not loop.last %}{{ ',\\n' }}{% endif %}{% endfor %}{{ '\\n]\\n```' }}"
)

NOTATIONS: dict[str, str] = {
    "fenced list behind a word": chat(_FENCED),
    "name as the key": chat(
        each('{"' + NAME + '": ' + ARGS + "}", ", ", "<|tools_prefix|>[", "]<|tools_suffix|>")
    ),
    "objects on lines of one section": chat(
        each('{"name": "' + NAME + '", "arguments": ' + ARGS + "}", "\n", "<tool_calls>\n",
             "\n</tool_calls>"), think=("<think>\n", "\n</think>\n\n"),
    ),
    "arguments before the name": chat(
        each('<tool_call>{"arguments": ' + ARGS + ', "name": "' + NAME + '"}</tool_call>')
    ),
    "a function inside, with an id": chat(
        each('{"id": "' + ID + '", "type": "function", "function": {"name": "' + NAME
             + '", "arguments": ' + ARGS + "}}", ", ", "<calls>[", "]</calls>")
    ),
    "name before a fence, in two sections": chat(
        each("<tool_call>" + NAME + "{{ '\\n```json\\n' }}" + ARGS + "{{ '\\n```' }}</tool_call>",
             "\n", "<tool_calls>\n", "\n</tool_calls>")
    ),
    "id before the name": chat(
        each("<|tool_call:begin|>" + ID + "<|tool_call:name|>" + NAME + "<|tool_call:args|>" + ARGS
             + "<|tool_call:end|>", "", "<|tool_calls|>", "<|calls|>")
    ),
    "arrows": chat(each(">>>" + NAME + "{{ '\\n' }}" + ARGS)),
    "a name on a line of its own": chat(each(NAME + "{{ '\\n' }}" + ARGS)),
    "a role between two calls": chat(
        each("<|recipient|>" + NAME + "{{ '\\n' }}<|content|>" + ARGS, "\n<|from|>assistant\n")
    ),
    "a bare list": chat(
        each('{"name": "' + NAME + '", "arguments": ' + ARGS + "}", ", ", "[", "]")
    ),
    "a bare list of python calls": chat(each(_PYTHON, ", ", "[", "]")),
    "python calls on lines": chat(
        each(_PYTHON, "\n", "<function_calls>\n", "\n</function_calls>"),
        think=("[THINK]", "[/THINK]"),
    ),
    "typed tags between words": chat(
        each('<|open|>call tool="' + NAME + '" index="{{ loop.index }}"<|sep|>' + _TYPED
             + "<|close|>call<|sep|>", "", "<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
        think=("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
        text=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
        end="<|close|>message<|sep|><|im_end|>", ask="<|open|>think<|sep|>",
    ),
    "tags in tags": _NESTED + chat(
        each('<invoke name="' + NAME + '">{% for k, v in c.function.arguments.items() %}'
             "{{ tags(k, v) }}{% endfor %}</invoke>", "\n", "<tool_call>\n", "\n</tool_call>"),
        think=("<mm:think>", "</mm:think>"),
    ),
    "keys and values on lines": chat(
        each("<tool_call>" + NAME + "{{ '\\n' }}" + _keyed("<arg_key>", "</arg_key>\n<arg_value>",
             "</arg_value>\n") + "</tool_call>", "\n"), think=("<think>", "</think>\n"),
    ),
    "a section behind a role": chat(
        '<|sep|>{{ "\\n\\n" }}function call<|role|>{{ "\\n" }}{% set c = m.tool_calls[0] %}'
        '{"name": "' + NAME + '", "arguments": ' + ARGS + "}", end="<|sep|>\n\n",
    ),
    "values without tags of their own": chat(
        each('<function name="' + NAME + '">'
             + _keyed('<param name="', '"><![CDATA[', "]]></param>") + "</function>")
    ),
}  # fmt: skip
"""By what is odd about them."""
