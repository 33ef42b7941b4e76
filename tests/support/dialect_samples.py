"""Each dialect in small: a chat template of our own with its habits, and a reply as it is written.

The templates show how a family writes, not what its published template says around it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

_TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
_LAST = (
    "{% set ns = namespace(last=-1, n=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
)


def _template(
    calls: str,
    *,
    think: tuple[str, str] = ("", ""),
    text: tuple[str, str] = ("", ""),
    result: str = "<|im_start|>tool\n{{ m.content }}<|im_end|>\n",
    ask: str = "",
) -> str:
    """ChatML around a family's own notation; reasoning stays behind the last user message only."""
    thought = (
        "{% if m.reasoning_content and loop.index0 > ns.last %}"
        + think[0] + "{{ m.reasoning_content }}" + think[1] + "{% endif %}"
    ) if think[0] else ""  # fmt: skip
    said = "{% if m.content %}" + text[0] + "{{ m.content | trim }}" + text[1] + "{% endif %}"
    return (
        _TOOLS + _LAST + "{% for m in messages %}{% if m.role == 'tool' %}" + result
        + "{% elif m.role == 'assistant' %}<|im_start|>assistant\n" + thought + said
        + "{% if m.tool_calls %}" + calls + "{% endif %}<|im_end|>\n"
        + "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        + "{% if add_generation_prompt %}<|im_start|>assistant\n" + ask + "{% endif %}"
    )  # fmt: skip


def _each(call: str, between: str = "") -> str:
    return (
        "{% for c in m.tool_calls %}{% if not loop.first %}{{ " + json.dumps(between) + " }}"
        "{% endif %}" + call
        + "{% endfor %}"
    )  # fmt: skip


_NAME, _ARGS = "{{ c.function.name }}", "{{ c.function.arguments | tojson }}"


def _tags(open_: str, middle: str, close: str) -> str:
    return (
        "{% for k, v in c.function.arguments.items() %}" + open_ + "{{ k }}" + middle
        + "{{ v if v is string else v | tojson }}" + close + "{% endfor %}"
    )  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """`reply`: reasoning "hm", the text "I look." and calls of `look`, as far as there are any.

    `dialect`: what corrects what is derived; `derived` where nothing does.

    `n_calls`, `thinks`, `says`: what is in it. `carried`: the ids that it gives its calls.
    `markers`: the vocabulary's control tokens.
    """

    dialect: str
    template: str
    reply: str
    markers: tuple[str, ...] = ()
    n_calls: int = 2
    thinks: bool = True
    says: bool = True
    parser: str | None = None
    ends: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()

    @property
    def opened(self) -> bool:
        """Whether the scaffold opens the reasoning."""
        return self.template.removesuffix("{% endif %}").rstrip().endswith("<think>")


VALUES: dict[str, object] = {"at": 'C:\\é "here" 🙂\n  {', "b": {"n": [1, None, True]}}
"""The arguments of all calls."""
ARGS = json.dumps(VALUES, ensure_ascii=False)
AT, B = str(VALUES["at"]), json.dumps(VALUES["b"])
_PYTHON = repr(AT)
_THINK = ("<think>", "</think>")
_OBJECT = '{"name": "look", "arguments": ' + ARGS + "}"


def _harmony() -> str:
    return (
        "<|start|>system<|message|>Be good.<|end|>"
        "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
        "{% set ns = namespace(final=-1, name='') %}{% for m in messages %}"
        "{% if m.role == 'assistant' and not m.tool_calls %}{% set ns.final = loop.index0 %}"
        "{% endif %}{% endfor %}{% for m in messages %}"
        "{% if m.role == 'assistant' and m.tool_calls %}{% set c = m.tool_calls[0].function %}"
        "{% if m.content and m.thinking %}{{ raise_exception('not both') }}{% endif %}"
        "{% if m.thinking and loop.index0 > ns.final %}"
        "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
        "<|start|>assistant to=functions.{{ c.name }}<|channel|>commentary json<|message|>"
        "{{ c.arguments | tojson }}<|call|>{% set ns.name = c.name %}"
        "{% elif m.role == 'assistant' %}"
        "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
        "{% elif m.role == 'tool' %}<|start|>functions.{{ ns.name }} to=assistant"
        "<|channel|>commentary<|message|>{{ m.content | tojson }}<|end|>"
        "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    )


SAMPLES: dict[str, Sample] = {
    "harmony": Sample(
        "harmony",
        _harmony(),
        "<|channel|>analysis<|message|>hm<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.look <|constrain|>json<|message|>"
        + ARGS,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>",
         "<|call|>"),
        n_calls=1,
        ends=("<|return|>",),
    ),
    "harmony_recipient_first": Sample(
        "harmony",
        _harmony(),
        " to=functions.look<|channel|>commentary json<|message|>" + ARGS,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>",
         "<|call|>"),
        n_calls=1,
        thinks=False,
        says=False,
        ends=("<|return|>",),
    ),
    "deepseek_v3": Sample(
        "derived",
        _template(
            "<｜tool▁calls▁begin｜>"
            + _each(f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{_NAME}\n```json\n{_ARGS}\n```"
                    "<｜tool▁call▁end｜>", "\n")
            + "<｜tool▁calls▁end｜>",
            think=_THINK,
            ask="<think>\n",
        ),
        "<think>\nhm</think>\n\nI look.<｜tool▁calls▁begin｜>"
        + "\n".join(["<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n" + ARGS
                     + "\n```<｜tool▁call▁end｜>"] * 2)
        + "<｜tool▁calls▁end｜>",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
         "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", *_THINK),
    ),
    "deepseek_v31": Sample(
        "derived",
        _template(
            "<｜tool▁calls▁begin｜>"
            + _each(f"<｜tool▁call▁begin｜>{_NAME}<｜tool▁sep｜>{_ARGS}<｜tool▁call▁end｜>")
            + "<｜tool▁calls▁end｜>",
            think=_THINK,
            ask="<think>",
        ),
        "<think>hm</think>I look.<｜tool▁calls▁begin｜>"
        + ("<｜tool▁call▁begin｜>look<｜tool▁sep｜>" + ARGS + "<｜tool▁call▁end｜>") * 2
        + "<｜tool▁calls▁end｜>",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
         "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", *_THINK),
    ),
    "deepseek_v32": Sample(
        "derived",
        _template(
            "\n\n<｜DSML｜function_calls>\n"
            + _each(
                '<｜DSML｜invoke name="{{ c.function.name }}">\n'
                "{% for k, v in c.function.arguments.items() %}"
                '<｜DSML｜parameter name="{{ k }}" string="{{ "true" if v is string else "false" }}'
                '">{{ v if v is string else v | tojson }}</｜DSML｜parameter>\n{% endfor %}'
                "</｜DSML｜invoke>\n"
            )
            + "</｜DSML｜function_calls>",
            think=_THINK,
            ask="<think>",
        ),
        "<think>hm</think>I look.\n\n<｜DSML｜function_calls>\n"
        + (
            '<｜DSML｜invoke name="look">\n'
            f'<｜DSML｜parameter name="at" string="true">{AT}</｜DSML｜parameter>\n'
            f'<｜DSML｜parameter name="b" string="false">{B}</｜DSML｜parameter>\n'
            "</｜DSML｜invoke>\n"
        ) * 2
        + "</｜DSML｜function_calls>",
        ("｜DSML｜", *_THINK),
    ),
    "kimi_k2": Sample(
        "derived",
        _template(
            "<|tool_calls_section_begin|>"
            + _each(f"<|tool_call_begin|>{{{{ c.id }}}}<|tool_call_argument_begin|>{_ARGS}"
                    "<|tool_call_end|>")
            + "<|tool_calls_section_end|>",
            think=_THINK,
            result="<|im_start|>tool\n## Return of {{ m.tool_call_id }}\n{{ m.content }}"
            "<|im_end|>\n",
        ),
        "<think>hm</think>I look.<|tool_calls_section_begin|>"
        + "".join(f"<|tool_call_begin|>functions.look:{n}<|tool_call_argument_begin|>{ARGS}"
                  "<|tool_call_end|>" for n in (3, 4))
        + "<|tool_calls_section_end|>",
        ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>",
         "<|tool_call_argument_begin|>", "<|tool_call_end|>", *_THINK),
        carried=("functions.look:3", "functions.look:4"),
    ),
    "mistral_list": Sample(
        "derived",
        _template("[TOOL_CALLS][" + _each('{"name": "' + _NAME + '", "arguments": ' + _ARGS
                                          + ', "id": "{{ c.id }}"}', ", ") + "]"),
        f"[TOOL_CALLS][{_OBJECT}, {_OBJECT}]",
        ("[TOOL_CALLS]",),
        thinks=False,
        says=False,
    ),
    "magistral": Sample(
        "derived",
        _template(_each(f"[TOOL_CALLS]{_NAME}[ARGS]{_ARGS}"), think=("[THINK]", "[/THINK]")),
        f"[THINK]hm[/THINK]I look.[TOOL_CALLS]look[ARGS]{ARGS}[TOOL_CALLS]look[ARGS]{ARGS}",
        ("[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"),
    ),
    "mistral_id": Sample(
        "derived",
        _template(
            _each("{% if c.id | length != 9 %}{{ raise_exception('nine letters') }}{% endif %}"
                  f"[TOOL_CALLS]{_NAME}[CALL_ID]{{{{ c.id }}}}[ARGS]{_ARGS}"),
            result="<|im_start|>tool\n{{ m.tool_call_id }} {{ m.content }}<|im_end|>\n",
        ),
        "I look." + "".join(f"[TOOL_CALLS]look[CALL_ID]{i}[ARGS]{ARGS}"
                            for i in ("Ab3dEf6hI", "9b3dEf6hI")),
        ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        thinks=False,
        carried=("Ab3dEf6hI", "9b3dEf6hI"),
    ),
    "cohere": Sample(
        "derived",
        _template(
            "<|START_ACTION|>[{{ '\\n    ' }}"
            + _each('{"tool_call_id": "{{ loop.index0 }}", "tool_name": "' + _NAME
                    + '", "parameters": ' + _ARGS + "}", ",\n    ")
            + "{{ '\\n' }}]<|END_ACTION|>",
            think=("<|START_THINKING|>", "<|END_THINKING|>"),
            text=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ),
        "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>I look.<|END_RESPONSE|>"
        "<|START_ACTION|>[\n    "
        + ",\n    ".join(f'{{"tool_call_id": "{n}", "tool_name": "look", "parameters": '
                         + ARGS + "}" for n in (0, 1))
        + "\n]<|END_ACTION|>",
        ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>",
         "<|START_ACTION|>", "<|END_ACTION|>"),
    ),
    "phi_4": Sample(
        "derived",
        _template("<|tool_call|>{{ m.tool_calls | map(attribute='function') | list | tojson }}"
                  "<|/tool_call|>"),
        f"I look.<|tool_call|>[{_OBJECT}, {_OBJECT}]<|/tool_call|>",
        ("<|tool_call|>", "<|/tool_call|>"),
        thinks=False,
    ),
    "granite_3": Sample(
        "derived",
        _template(
            "<|tool_call|>{{ m.tool_calls | map(attribute='function') | list | tojson }}",
            think=_THINK,
            text=("<response>", "</response>"),
        ),
        f"<think>hm</think><response>I look.</response><|tool_call|>[{_OBJECT}, {_OBJECT}]",
        ("<|tool_call|>",),
    ),
    "llama_3": Sample(
        "llama_3",
        _template(
            "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call') }}{% endif %}"
            + _each('{"name": "' + _NAME + '", "parameters": ' + _ARGS + "}")
            + "{# <|start_header_id|> #}"
        ),
        '{"name": "look", "parameters": ' + ARGS + "}",
        ("<|python_tag|>", "<|start_header_id|>", "<|eot_id|>", "<|eom_id|>"),
        n_calls=1,
        thinks=False,
        says=False,
    ),
    "seed_oss": Sample(
        "derived",
        _template(
            _each("<seed:tool_call>\n<function=" + _NAME + ">\n"
                  + _tags("<parameter=", ">", "</parameter>\n")
                  + "</function>\n</seed:tool_call>"),
            think=("<seed:think>", "</seed:think>"),
        ),
        "<seed:think>hm</seed:think>I look."
        + (f"<seed:tool_call>\n<function=look>\n<parameter=at>{AT}</parameter>\n"
           f"<parameter=b>{B}</parameter>\n</function>\n</seed:tool_call>") * 2,
        ("<seed:think>", "</seed:think>", "<seed:tool_call>", "</seed:tool_call>"),
    ),
    "qwen3_coder": Sample(
        "qwen3_coder",
        _template(
            _each("<tool_call>\n<function=" + _NAME + ">\n"
                  + _tags("<parameter=", ">\n", "\n</parameter>\n")
                  + "</function>\n</tool_call>", "\n"),
            think=("<think>\n", "\n</think>\n\n"),
            ask="<think>\n",
        ),
        "<think>\nhm\n</think>\n\nI look.\n\n"
        + "\n".join([f"<tool_call>\n<function=look>\n<parameter=at>\n{AT}\n</parameter>\n"
                     f"<parameter=b>\n{B}\n</parameter>\n</function>\n</tool_call>"] * 2),
        ("<tool_call>", "</tool_call>", *_THINK),
    ),
    "glm_4": Sample(
        "derived",
        _template(
            _each("<tool_call>" + _NAME
                  + _tags("<arg_key>", "</arg_key><arg_value>", "</arg_value>") + "</tool_call>"),
            think=_THINK,
            ask="<think>",
        ),
        "<think>hm</think>I look."
        + (f"<tool_call>look<arg_key>at</arg_key><arg_value>{AT}</arg_value>"
           f"<arg_key>b</arg_key><arg_value>{B}</arg_value></tool_call>") * 2,
        ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
         *_THINK),
    ),
    "minimax_m2": Sample(
        "derived",
        _template(
            "<minimax:tool_call>\n"
            + _each('<invoke name="{{ c.function.name }}">\n'
                    + _tags('<parameter name="', '">', "</parameter>\n") + "</invoke>\n")
            + "</minimax:tool_call>",
            think=("<think>\n", "\n</think>\n\n"),
            ask="<think>\n",
        ),
        "<think>\nhm\n</think>\n\nI look.\n<minimax:tool_call>\n"
        + (f'<invoke name="look">\n<parameter name="at">{AT}</parameter>\n'
           f'<parameter name="b">{B}</parameter>\n</invoke>\n') * 2
        + "</minimax:tool_call>",
        ("<minimax:tool_call>", "</minimax:tool_call>", *_THINK),
    ),
    "json_tools": Sample(
        "derived",
        _template(
            _each('<tool_call>\n{"name": "' + _NAME + '", "arguments": ' + _ARGS
                  + "}\n</tool_call>", "\n"),
            think=("<think>\n", "\n</think>\n\n"),
        ),
        f"<think>\nhm\n</think>\n\nI look.\n<tool_call>\n{_OBJECT}\n</tool_call>\n"
        f"<tool_call>\n{_OBJECT}\n</tool_call>",
        ("<tool_call>", "</tool_call>", *_THINK),
    ),
    "gemma_4": Sample(
        "derived",
        _template(
            _each("<|tool_call>call:" + _NAME + "{{ '{' }}"
                  '{% for k, v in c.function.arguments.items() %}{{ k }}:{% if v is string %}<|"|>'
                  '{{ v }}<|"|>{% else %}{{ v | tojson }}{% endif %}'
                  "{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}<tool_call|>"),
            think=("<|channel>thought\n", "<channel|>"),
        ),
        "<|channel>thought\nhm<channel|>I look."
        + ("<|tool_call>call:look{at:" + f'<|"|>{AT}<|"|>' + ",b:{n:[1,null,true]}}<tool_call|>")
        * 2,
        ("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"),
        parser="gemma4",
    ),
    "function_gemma": Sample(
        "derived",
        _template(
            _each("<start_function_call>call:" + _NAME + "{{ '{' }}"
                  "{% for k, v in c.function.arguments.items() %}{{ k }}:{% if v is string %}"
                  "<escape>{{ v }}<escape>{% else %}{{ v | tojson }}{% endif %}"
                  "{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}<end_function_call>"),
        ),
        "I look."
        + (f"<start_function_call>call:look{{at:<escape>{AT}<escape>,b:{{n:[1,null,true]}}}}"
           "<end_function_call>") * 2,
        ("<start_function_call>", "<end_function_call>", "<escape>"),
        thinks=False,
        parser="function_gemma",
    ),
    "lfm_2": Sample(
        "derived",
        _template(
            "<|tool_call_start|>["
            + _each(_NAME + "({% for k, v in c.function.arguments.items() %}{{ k }}="
                    "{{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %})", ", ")
            + "]<|tool_call_end|>",
            think=_THINK,
        ),
        "<think>hm</think>I look.<|tool_call_start|>["
        + ", ".join(["look(at=" + _PYTHON + ', b={"n": [1, null, true]})'] * 2)
        + "]<|tool_call_end|>",
        ("<|tool_call_start|>", "<|tool_call_end|>", *_THINK),
        parser="pythonic",
    ),
    "longcat": Sample(
        "derived",
        _template(
            _each("<longcat_tool_call>" + _NAME + "\n"
                  + _tags("<longcat_arg_key>", "</longcat_arg_key>\n<longcat_arg_value>",
                          "</longcat_arg_value>\n") + "</longcat_tool_call>", "\n"),
            think=("<longcat_think>\n", "\n</longcat_think>\n"),
        ),
        "<longcat_think>\nhm\n</longcat_think>\nI look."
        + "\n".join([
            f"<longcat_tool_call>look\n<longcat_arg_key>at</longcat_arg_key>\n"
            f"<longcat_arg_value>{AT}</longcat_arg_value>\n<longcat_arg_key>b</longcat_arg_key>\n"
            f"<longcat_arg_value>{B}</longcat_arg_value>\n</longcat_tool_call>"] * 2),
        ("<longcat_tool_call>", "</longcat_tool_call>", "<longcat_think>", "</longcat_think>"),
        parser="longcat",
    ),
    "minicpm_5": Sample(
        "derived",
        _template(
            _each('<function name="' + _NAME + '">'
                  + _tags('<param name="', '"><![CDATA[', "]]></param>") + "</function>"),
        ),
        "I look."
        + (f'<function name="look"><param name="at"><![CDATA[{AT}]]></param>'
           f'<param name="b"><![CDATA[{B}]]></param></function>') * 2,
        ("</function>",),
        thinks=False,
        parser="minicpm5",
    ),
}  # fmt: skip
