"""The base of everything that a client may send: unknown fields are refused, null is absent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class StrictObject(BaseModel):
    """An object whose fields are all known, in their own types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if type(value) is not dict or all(v is not None for v in value.values()):
            return value
        return {k: v for k, v in value.items() if v is not None}
