"""The base of everwarm's own objects in bodies: unknown fields are refused, null is absent."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class StrictObject(BaseModel):
    """An object without unknown fields. Its values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True)
    _names: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._names = frozenset(f.alias or name for name, f in cls.model_fields.items())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if type(value) is not dict:
            return value
        if any(v is None for v in value.values()):
            value = {k: v for k, v in value.items() if v is not None}
        if len(value) > len(cls._names) and cls.model_config["extra"] == "forbid":
            return cls._with_one_unknown(value)
        return value

    @classmethod
    def _with_one_unknown(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Leave only the first unknown field, by which the object is refused: pydantic would
        collect a fault for each."""
        unknown = next(k for k in value if k not in cls._names)
        return {k: v for k, v in value.items() if k in cls._names} | {unknown: value[unknown]}


class EmptyBody(StrictObject):
    """A POST whose path says everything."""
