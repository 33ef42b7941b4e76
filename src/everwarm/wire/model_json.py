"""A model as the lists of OpenAI and of Anthropic show it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from everwarm.job import ModelInfo


def openai_model(info: ModelInfo) -> dict[str, Any]:
    """OpenAI's four fields, and what people want to know about a local model."""
    return {
        "id": info.id,
        "object": "model",
        "created": info.created,
        "owned_by": "everwarm",
        "context_length": info.context_length,
        "max_model_len": info.context_length,
        "state": "loaded",
        "quantization": info.quantization,
        "capabilities": {"reasoning": info.has_reasoning, "tools": info.has_tools},
        "aliases": list(info.aliases),
        "everwarm": _everwarm(info),
    }


def openai_models(infos: list[ModelInfo]) -> dict[str, Any]:
    """OpenAI's list of models."""
    return {"object": "list", "data": [openai_model(i) for i in infos]}


def anthropic_model(info: ModelInfo) -> dict[str, Any]:
    """Anthropic's fields of a model."""
    created = datetime.fromtimestamp(info.created, UTC).isoformat().replace("+00:00", "Z")
    return {
        "type": "model",
        "id": info.id,
        "display_name": info.id.rsplit("/", 1)[-1],
        "created_at": created,
        "max_input_tokens": info.context_length,
        "max_tokens": info.context_length,
        "everwarm": _everwarm(info),
    }


def anthropic_models(infos: list[ModelInfo]) -> dict[str, Any]:
    """Anthropic's list of models, on one page."""
    data = [anthropic_model(i) for i in infos]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": False, "first_id": None, "last_id": None, **ends}


def _everwarm(info: ModelInfo) -> dict[str, Any]:
    """What was proved about the model's chat template."""
    return {
        "dialect": info.dialect,
        "proved": list(info.proved),
        "not_proved": dict(info.not_proved),
        "limits": list(info.limits),
    }
