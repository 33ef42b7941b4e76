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

_CHAT = "{% if m.role == 'assistant' and not m.tool_calls %}"
# Mistral's: nothing opens a reply, the system prompt stands before the last question.
NO_SCAFFOLD_MOVES_SYSTEM = (
    "{% set led = messages[0].role == 'system' %}{% for m in messages %}"
    "{% if m.role == 'user' %}<|user|>{% if loop.last and led %}{{ messages[0].content }} "
    "{% endif %}{{ m.content }}<|tools|>{% elif m.role == 'tool' %}<|observation|>{{ m.content }}"
    "<|tools|>{% elif m.role == 'assistant' %}{{ m.content }}" + _CALLS + "<|im_end|>"
    "{% endif %}{% endfor %}"
)
# Phi's: another end where no reply is asked for; tools, calls and results are dropped.
OTHER_END_WITHOUT_SCAFFOLD = (
    "{% for m in messages if m.role in ('system', 'user', 'assistant') %}<|{{ m.role }}|>\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
# RWKV's: no control token at all.
NO_CONTROL_TOKENS = (
    "{% for m in messages if m.role in ('system', 'user', 'assistant') %}"
    "{{ m.role | title }}: {{ m.content | trim }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
# Command R+'s: it cannot do without tools, nor without descriptions; an instruction comes last;
# nothing ends a turn behind calls.
DESCRIBED_TOOLS = (
    "<|system|>{% for t in tools %}{% for name, p in t.function.parameters.properties | items %}"
    "{{ name + ' (' + p.type + '): ' + p.description }}{% endfor %}{% endfor %}<|im_end|>"
    "{% for m in messages %}" + _CHAT + "<|assistant|>{{ m.content }}<|im_end|>"
    "{% elif m.role == 'assistant' %}<|assistant|>{{ m.content }}" + _CALLS +
    "{% else %}<|{{ 'user' if m.role == 'user' else 'system' }}|>{{ m.content }}<|im_end|>"
    "{% endif %}{% endfor %}<|system|>Now write.<|im_end|>"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)  # fmt: skip
# Gemma 2's: no system prompt, no results; strict turns.
TURNS_ALONE = (
    "{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('only users and replies') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles alternate') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Tools are refused in words.
NO_TOOLS = "{% if tools %}{{ raise_exception('this model has no tools') }}{% endif %}" + TURNS_ALONE
# Kimi K3's: an answer has a closing of its own, and many tokens open a reply.
CLOSES_TEXTS = (
    _TOOLS + "{% for m in messages %}<|{{ 'observation' if m.role == 'tool' else m.role }}|>"
    "{{ m.content }}" + _CALLS + "{% if m.role == 'assistant' %}<|close|>text{% endif %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>channel one, effort high, "
    "format plain: {% endif %}"
)
# Those of models that see: a message is a list of parts, and a bare text is dropped.
TEXT_PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# DeepSeek V3's: arguments are JSON text, since it adds them to texts.
SPELLED_ARGUMENTS = (
    _TOOLS + "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '<tool_call>' + c.function.name + ' ' + "
    "c.function.arguments + '</tool_call>' }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Another writes an object as Python does.
PRINTED_ARGUMENTS = SPELLED_ARGUMENTS.replace("'<tool_call>' + c", "'<tool_call>' ~ c").replace(
    " + c.function.arguments + ", " ~ c.function.arguments ~ "
)

HABITS = {
    "spelled_arguments": SPELLED_ARGUMENTS,
    "printed_arguments": PRINTED_ARGUMENTS,
    "text_parts": TEXT_PARTS,
    "no_scaffold_moves_system": NO_SCAFFOLD_MOVES_SYSTEM,
    "other_end_without_scaffold": OTHER_END_WITHOUT_SCAFFOLD,
    "no_control_tokens": NO_CONTROL_TOKENS,
    "described_tools": DESCRIBED_TOOLS,
    "turns_alone": TURNS_ALONE,
    "no_tools": NO_TOOLS,
    "closes_texts": CLOSES_TEXTS,
}
# What follows a reply depends on it, for one kind of reply only.
_AFTER = (
    _TOOLS + "{% set ns = namespace(said='') %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ ns.said }}{% set ns.said = '' %}{{ m.content }}" + _CALLS + "<|im_end|>\n"
    "{% if m.role == 'assistant' %}«»{% endif %}{% endfor %}" + _ASK
)  # fmt: skip
_CALL_WORDS = "{% set ns.said = m.content ~ (m.tool_calls[-1].function.arguments | tojson) %}"
REPEATS = {
    "texts": _AFTER.replace("«»", "{% set ns.said = m.content %}"),
    "calls": _AFTER.replace(
        "«»", "{% if (m.tool_calls or []) | length == 1 %}" + _CALL_WORDS + "{% endif %}"
    ),
    "parallel_calls": _AFTER.replace(
        "«»", "{% if (m.tool_calls or []) | length > 1 %}" + _CALL_WORDS + "{% endif %}"
    ),
    "results": _AFTER.replace(
        "«»",
        "{% if messages | selectattr('role', 'equalto', 'tool') | list %}"
        "{% set ns.said = m.content %}{% endif %}",
    ),
    "reasoning": _AFTER.replace("«»", "{% set ns.said = m.reasoning_content or '' %}"),
}
PROVED = {
    "drops_reasoning": DROPS_REASONING,
    "no_end_of_turn": NO_END_OF_TURN,
    "strict": STRICT,
    "counts_calls": COUNTS_CALLS,
    "one_call_and_date": ONE_CALL_AND_DATE,
}
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|system|>", "<|user|>",
           "<|assistant|>", "<|observation|>", "<|tools|>", "<|close|>"]  # fmt: skip
