"""Requests of our own in the shapes that real agents send, November 2026.

The agents are opencode, openclaw, claude-code, codex and pi.
"""

from __future__ import annotations

from typing import Any

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"path": {"type": "string"}},
    "required": ["path"],
    "additionalProperties": False,
}
ARGUMENTS = '{ "path" : "README.md" }'


def chat_tool(**more: Any) -> dict[str, Any]:
    function = {"name": "read", "description": "Reads.", "parameters": SCHEMA, **more}
    return {"type": "function", "function": function}


def chat_call(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "read", "arguments": ARGUMENTS}}


def chat_messages(
    system: str, content: str | None, result: dict[str, Any], call_id: str = "call1"
) -> list[dict[str, Any]]:
    answer = {"content": content, "reasoning_content": "Hm.\n"}
    return [
        {"role": system, "content": "You are an agent."},
        {"role": "user", "content": [{"type": "text", "text": "Read it."}]},
        {"role": "assistant", **answer, "tool_calls": [chat_call(call_id), chat_call("call2")]},
        {**result, "tool_call_id": call_id},
        {"role": "tool", "content": "two", "tool_call_id": "call2"},
        {"role": "assistant", "content": "Done.\n", "reasoning_content": "So."},
        {"role": "user", "content": "Thanks."},
    ]


TOOL = {"role": "tool", "content": "one"}
STREAM = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
OPENCODE = STREAM | {
    "max_tokens": 8192,
    "tools": [chat_tool()],
    "tool_choice": "auto",
    "messages": chat_messages("system", "", TOOL),
}
OPENCODE_TITLE = STREAM | {
    "max_tokens": 8192,
    "reasoning_effort": "low",
    "messages": [{"role": "system", "content": "Give a title."}, {"role": "user", "content": "x"}],
}
OPENCLAW = STREAM | {
    "max_completion_tokens": 8192,
    "tools": [chat_tool()],
    "tool_choice": "auto",
    "messages": [
        *chat_messages("system", None, TOOL),
        {"role": "user", "content": "<<<BEGIN>>> nothing runs <<<END>>>"},
    ],
}
PI = STREAM | {
    "store": False,
    "max_completion_tokens": 8192,
    "reasoning_effort": "medium",
    "tools": [chat_tool(strict=False)],
    "messages": chat_messages("developer", None, TOOL),
}
PI_COMPACTION = {k: v for k, v in PI.items() if k != "tools"} | {"reasoning_effort": "high"}

CACHED = {"cache_control": {"type": "ephemeral"}}
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
SAID = {"type": "text", "text": "I read."}


def use(id: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "Read", "input": {"path": "a"}, **more}


def result(id: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"tool_use_id": id, "type": "tool_result", "content": content, **more}


CLAUDE_CODE = {
    "model": "m",
    "max_tokens": 32000,
    "stream": True,
    "metadata": {"user_id": '{"session_id": "s"}'},
    "thinking": {"type": "adaptive", "display": "omitted"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "safeguards": [{"type": "dangerous_tool_use", "classifier_context": {"v": 1}}],
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cc_entrypoint=cli;"},
        {"type": "text", "text": "You are an agent.", **CACHED},
        {"type": "text", "text": "\nBe careful.", **CACHED},
    ],
    "tools": [
        {"name": "Placeholder", "description": "Keeps loading active.",
         "input_schema": {"type": "object", "properties": {}}, "defer_loading": True},
        {"name": "Read", "description": "Reads.", "input_schema": SCHEMA},
        {"name": "WebFetch", "description": "Fetches.", "input_schema": SCHEMA,
         "defer_loading": True},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "<system-reminder>x"}, SAID]},
        {"role": "system", "content": "# Environment"},
        {"role": "assistant", "content": [THINKING, SAID, use("toolu1"), use("toolu2")]},
        {"role": "user", "content": [result("toolu2", "two"),
                                     result("toolu1", "gone", is_error=True), SAID]},
        {"role": "assistant", "content": [THINKING, use("toolu3", **CACHED)]},
        {"role": "user", "content": [result("toolu3", [
            {"type": "tool_reference", "tool_name": "WebFetch"}], **CACHED)]},
        {"role": "system", "content": [{"type": "text", "text": "Plan mode is on.", **CACHED}]},
        {"role": "assistant", "content": [THINKING, {"type": "text", "text": "Done."}]},
        {"role": "user", "content": "Thanks."},
    ],
}  # fmt: skip

FUNCTION = {
    "type": "function",
    "name": "run",
    "description": "Runs.",
    "strict": False,
    "parameters": SCHEMA,
}


def part(kind: str, text: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": kind, "text": text, **more}]


CODEX = {
    "model": "m",
    "stream": True,
    "store": False,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "high", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0000",
    "client_metadata": {"session_id": "0000", "x-codex-turn-metadata": "{}"},
    "tools": [
        FUNCTION,
        {"type": "namespace", "name": "agents", "description": "Agents.",
         "tools": [{**FUNCTION, "name": "spawn"}, {**FUNCTION, "name": "close"}]},
        {"type": "web_search", "external_web_access": True},
    ],
    "input": [
        {"type": "message", "id": "msg_1", "role": "developer",
         "content": part("input_text", "Permissions.")},
        {"type": "message", "id": "msg_2", "role": "user", "content": part("input_text", "Go.")},
        {"type": "reasoning", "id": "rs_1", "summary": part("summary_text", "Hm."),
         "content": part("reasoning_text", "Hm."), "encrypted_content": "xyz"},
        {"type": "message", "status": "completed", "id": "msg_3", "role": "assistant",
         "content": part("output_text", "I run.", annotations=[])},
        {"type": "function_call", "status": "completed", "id": "fc_1", "name": "run",
         "arguments": ARGUMENTS, "call_id": "call1"},
        {"type": "function_call_output", "id": "fco_1", "call_id": "call1", "output": "one"},
        {"type": "message", "role": "user", "content": part("input_text", "Thanks.")},
    ],
}  # fmt: skip
CODEX_COMPACTION = CODEX | {"tools": [], "parallel_tool_calls": False}
