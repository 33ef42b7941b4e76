"""What goes to the chat template, and everwarm's own field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from everwarm.errors import RequestError
from everwarm.request import Request
from everwarm.wire.openai_chat import parse


def read(**fields: Any) -> Request:
    body = {"messages": [{"role": "user", "content": "x"}]} | fields
    return parse(json.dumps(body).encode()).request


@pytest.mark.parametrize("name", ["preserve_thinking", "clear_thinking"])
def test_known_template_arguments_reach_the_template(name: str) -> None:
    assert read(chat_template_kwargs={name: True}).template_args == {name: True}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chat_template_kwargs": {"add_bos": True}}, "chat_template_kwargs.add_bos"),
        (
            {"chat_template_kwargs": {"clear_thinking": "yes"}},
            "chat_template_kwargs.clear_thinking",
        ),
        ({"everwarm": {"histories": "template"}}, "everwarm.histories"),
        ({"everwarm": {"history": "none"}}, "everwarm.history"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        read(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, None),
        ({"everwarm": {"history": "template"}}, "template"),
        ({"everwarm": {"history": "verbatim"}}, "verbatim"),
        ({"chat_template_kwargs": {"clear_thinking": True}}, "template"),
        ({"chat_template_kwargs": {"truncate_history_thinking": True}}, "template"),
        ({"chat_template_kwargs": {"preserve_thinking": False}}, "template"),
        ({"chat_template_kwargs": {"preserve_thinking": True}}, None),
        (
            {"everwarm": {"history": "verbatim"}, "chat_template_kwargs": {"clear_thinking": True}},
            "verbatim",
        ),
    ],
)
def test_who_asks_for_reasoning_to_be_dropped_gets_the_template(
    fields: dict[str, Any], mode: str | None
) -> None:
    assert read(**fields).history == mode
