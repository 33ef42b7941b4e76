"""Structured output and forced calls through the SDKs: a model that says noise, held by grammar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel, ConfigDict
from serving import TEMPLATE, Server, save_talker, serving

THINKS = TEMPLATE.replace(
    "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"
)
ASK: list[Any] = [{"role": "user", "content": "Lake or sea?"}]


class Water(BaseModel):
    """What it is."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["lake", "sea"]
    cold: bool


SCHEMA = Water.model_json_schema()
UNKNOWN = {"type": "object", "not": {"required": ["kind"]}}


@pytest.fixture(scope="module", params=["answers at once", "thinks first"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[Server]:
    template = THINKS if request.param == "thinks first" else TEMPLATE
    model = save_talker(tmp_path_factory.mktemp("models"), smollm2, template=template)
    with serving(model, "--thinking-budget", "8", "--forced-replies") as running:
        yield running


@pytest.fixture
def oai(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.root + "/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.root, api_key="none", max_retries=0) as made:
        yield made


def test_a_chat_completion_is_parsed_to_the_model_that_was_asked_for(oai: openai.OpenAI) -> None:
    for seed in range(3):
        parsed = oai.chat.completions.parse(
            model="default", messages=ASK, response_format=Water, max_tokens=900, seed=seed
        )
        choice = parsed.choices[0]
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, Water)


def test_a_stream_of_json_is_the_same(oai: openai.OpenAI) -> None:
    with oai.chat.completions.stream(
        model="default", messages=ASK, response_format=Water, max_tokens=900
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Water)


def test_any_json_object_may_be_asked_for_and_may_be_cut(oai: openai.OpenAI) -> None:
    whole = oai.chat.completions.create(
        model="default", messages=ASK, response_format={"type": "json_object"}, max_tokens=40
    )
    said = (whole.choices[0].message.content or "").lstrip()
    if whole.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(said), dict)
    else:
        assert whole.choices[0].finish_reason == "length" and said[:1] in ("{", "")


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "Water"}}], ids=str
)
@pytest.mark.parametrize("parallel", [True, False])
def test_a_call_that_is_asked_for_is_made(oai: openai.OpenAI, choice: Any, parallel: bool) -> None:
    tools: Any = [
        openai.pydantic_function_tool(Water),
        {"type": "function", "function": {"name": "other", "parameters": SCHEMA}},
    ]
    answer = oai.chat.completions.create(
        model="default", messages=ASK, tools=tools, tool_choice=choice, max_tokens=1500,
        parallel_tool_calls=parallel,
    )  # fmt: skip
    said = answer.choices[0]
    assert said.finish_reason in ("tool_calls", "length")
    if said.finish_reason == "tool_calls":  # a call that max_tokens cut short may be text
        assert not said.message.content
    calls = said.message.tool_calls or []
    assert calls and (parallel or len(calls) == 1)
    for call in calls[:-1] if said.finish_reason == "length" else calls:
        assert call.type == "function"
        Water.model_validate_json(call.function.arguments)
        assert choice == "required" or call.function.name == "Water"


def test_a_strict_tool_that_may_be_called_is_accepted(oai: openai.OpenAI) -> None:
    said = oai.chat.completions.create(
        model="default", messages=ASK, tools=[openai.pydantic_function_tool(Water)], max_tokens=30
    )
    assert said.choices[0].finish_reason in ("length", "stop", "tool_calls")


def test_responses_are_held_too(oai: openai.OpenAI) -> None:
    parsed = oai.responses.parse(
        model="default", input="Lake or sea?", text_format=Water, max_output_tokens=900
    )
    assert isinstance(parsed.output_parsed, Water)
    tool: Any = {"type": "function", "name": "water", "parameters": SCHEMA, "strict": True}
    called = oai.responses.create(
        model="default", input="Lake?", tools=[tool], max_output_tokens=900,
        tool_choice={"type": "function", "name": "water"}, parallel_tool_calls=False,
    )  # fmt: skip
    (call,) = [item for item in called.output if item.type == "function_call"]
    Water.model_validate_json(call.arguments)
    assert called.tool_choice.name == "water"  # type: ignore[union-attr]
    assert not called.parallel_tool_calls


def test_claudes_messages_are_held_too(claude: anthropic.Anthropic) -> None:
    shape: Any = {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}
    message = claude.messages.create(
        model="default", max_tokens=900, messages=ASK, output_config=shape
    )
    text = "".join(b.text for b in message.content if b.type == "text")
    Water.model_validate_json(text)
    tool: Any = {"name": "water", "input_schema": SCHEMA}
    for choice in ({"type": "any"}, {"type": "tool", "name": "water"}):
        called = claude.messages.create(
            model="default", max_tokens=900, messages=ASK, tools=[tool],
            tool_choice={**choice, "disable_parallel_tool_use": True},  # type: ignore[arg-type]
        )  # fmt: skip
        (use,) = [b for b in called.content if b.type == "tool_use"]
        Water.model_validate(use.input)
        assert called.stop_reason == "tool_use"


CANNOT = {
    "unknown": (UNKNOWN, '"not"'),
    "a reference to itself": ({"$ref": "#"}, "itself"),
    "a reference to itself, required": (
        {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/a"}},
            "required": ["x"],
            "$defs": {"a": {"$ref": "#/$defs/a"}},
        },
        "itself",
    ),
    "a value of 5 MB": ({"enum": ["x" * 5_000_000]}, "characters"),
    "a pattern of 1 MB": ({"type": "string", "pattern": "a" * 1_000_000}, "characters"),
}


@pytest.mark.parametrize(("schema", "why"), CANNOT.values(), ids=CANNOT)
def test_a_schema_that_cannot_be_held_is_refused_in_each_formats_shape(
    oai: openai.OpenAI, claude: anthropic.Anthropic, schema: dict[str, Any], why: str
) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as chat:
        oai.chat.completions.create(model="default", messages=ASK, response_format=form)
    assert chat.value.param == "response_format.json_schema.schema" and why in str(chat.value)
    flat: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as response:
        oai.responses.create(model="default", input="Hi", text=flat)
    assert response.value.param == "text.format.schema"
    own: Any = {"format": {"type": "json_schema", "schema": schema}}
    with pytest.raises(anthropic.BadRequestError, match=r"output_config\.format\.schema"):
        claude.messages.create(model="default", max_tokens=9, messages=ASK, output_config=own)


def test_a_tool_that_is_not_there_cannot_be_asked_for(
    oai: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    choice: Any = {"type": "function", "function": {"name": "nobody"}}
    tools: Any = [openai.pydantic_function_tool(Water)]
    with pytest.raises(openai.BadRequestError) as refused:
        oai.chat.completions.create(model="default", messages=ASK, tools=tools, tool_choice=choice)
    assert refused.value.param == "tool_choice"
    with pytest.raises(anthropic.BadRequestError, match="tool_choice"):
        claude.messages.create(
            model="default", max_tokens=9, messages=ASK, tool_choice={"type": "any"}
        )


def test_a_dictated_reply_is_said_as_it_stands(oai: openai.OpenAI) -> None:
    said = oai.chat.completions.create(
        model="default", messages=ASK, response_format={"type": "json_object"},
        extra_body={"everwarm": {"reply": "</think>not JSON"}},
    )  # fmt: skip
    assert (said.choices[0].message.content or "").endswith("not JSON")


def test_reasoning_comes_before_json_and_stays_free(oai: openai.OpenAI, server: Server) -> None:
    said = oai.chat.completions.create(
        model="default", messages=ASK, response_format={"type": "json_object"}, max_tokens=30,
        temperature=0,
    )  # fmt: skip
    thought = getattr(said.choices[0].message, "reasoning_content", None)
    if server.turn()["thinking_cut"]:
        assert thought and not thought.lstrip().startswith("{")
    assert (said.choices[0].message.content or "").lstrip()[:1] in ("{", "")
