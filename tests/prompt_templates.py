"""Small chat templates of our own, each with a habit that published ones have."""

from __future__ import annotations

_TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
_CALLS = (
    "{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}"
)
_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"

# Reasoning stays only behind the last user message; tool results are user turns.
DROPS_REASONING = (
    _TOOLS + "{% set ns = namespace(last=-1) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user\n{% endif %}"
    "<tool_response>{{ m.content }}</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% else %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content | trim }}" + _CALLS + "<|im_end|>\n{% endif %}{% endfor %}" + _ASK
)
# No token ends a turn: the next role's token does.
NO_END_OF_TURN = (
    "{% if tools %}<|system|>{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' %}"
    "{% if messages[loop.index0 - 1].role != 'tool' %}<|observation|>{% endif %}"
    "<tool_response>{{ m.content }}</tool_response>"
    "{% elif m.role == 'assistant' %}<|assistant|></think>{{ m.content | trim }}" + _CALLS +
    "{% else %}<|{{ m.role }}|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)  # fmt: skip
# Only a first system message; roles alternate; call ids have nine letters; tools stand before the
# last user message.
STRICT = (
    "{% set ns = namespace(n=0) %}{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}"
    "{% endif %}{% if m.role != 'tool' and m.role != 'system' and not m.tool_calls %}"
    "{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('roles alternate') }}"
    "{% endif %}{% set ns.n = ns.n + 1 %}{% endif %}"
    "{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids have nine letters') }}{% endif %}{% endfor %}{% endfor %}"
    "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages %}{% if m == users[-1] and tools %}<|tools|>{{ tools | tojson }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}" + _CALLS +
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # fmt: skip
# Numbers all calls of the conversation; moves every system message to the top.
COUNTS_CALLS = (
    _TOOLS + "{% set ns = namespace(n=0) %}<|im_start|>system\n"
    "{% for m in messages if m.role == 'system' %}{{ m.content }} {% endfor %}<|im_end|>\n"
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}"
    "{% if m.role == 'tool' %}{% set ns.n = ns.n + 1 %} {{ ns.n }}{% endif %}\n"
    "{{ m.content | trim }}" + _CALLS + "<|im_end|>\n{% endfor %}" + _ASK
)
# One call at a time, and the date on top.
ONE_CALL_AND_DATE = (
    "<|im_start|>system\nToday is {{ strftime_now('%Y-%m-%d') }}.<|im_end|>\n"
    "{% for m in messages %}{% if (m.tool_calls or []) | length > 1 %}"
    "{{ raise_exception('one call at a time') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content | trim }}" + _CALLS + "<|im_end|>\n{% endfor %}" + _ASK
)
# What follows a reply depends on it: nothing can be spliced.
REPEATS_REPLIES = (
    "{% set ns = namespace(last='') %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if ns.last %}(after {{ ns.last }}) {% endif %}{{ m.content | trim }}" + _CALLS +
    "<|im_end|>\n{% if m.role == 'assistant' %}{% set ns.last = m.content | trim %}{% endif %}"
    "{% endfor %}" + _ASK
)  # fmt: skip

PROVED = {
    "drops_reasoning": DROPS_REASONING,
    "no_end_of_turn": NO_END_OF_TURN,
    "strict": STRICT,
    "counts_calls": COUNTS_CALLS,
    "one_call_and_date": ONE_CALL_AND_DATE,
}
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|system|>", "<|user|>",
           "<|assistant|>", "<|observation|>", "<|tools|>"]  # fmt: skip
