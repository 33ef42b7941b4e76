"""The three classes of a client's fields, and the base of all objects that a client may send.

- *Honoured*: the field does what its format says. Every plain field of a `WireObject` is.
- *Refused*: it would change what the client gets, and this server cannot do it. Such a field is
  annotated with `Refused`; a value that asks for nothing (`false`, an empty list) passes.
- *Noted*: the answer is right without it. These are fields annotated with `Noted`, fields that no
  class knows, and values of a `Hint` that are not known here: a client's update must not end a
  day's work. They are dropped, and their paths go with the request (`ignored_in`).

A path has no positions: `messages[].name` stands for all of them. It holds names only, never a
value, and a name that does not look like one is `?`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

MOST: Final = 32
"""So many paths are listed of one object; `MORE` stands for all others."""
MORE: Final = "..."
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_STRICT: Final = ConfigDict(strict=True)


@dataclass(frozen=True, slots=True)
class Noted:
    """Marks a field that is accepted and changes nothing. `why`: half a sentence for the docs."""

    why: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"description": f"Changes nothing: {self.why}."}


@dataclass(frozen=True, slots=True)
class Hint:
    """Marks a field whose unknown values are noted, and taken for its default."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Marks a field that is refused. `instead`: a sentence that says what to do.

    What is false, zero or empty asks for nothing and passes, as do `passes`.
    """

    instead: str
    passes: tuple[object, ...] = ()

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"description": f"Not supported. {self.instead}"}

    def _check(self, value: object) -> object:
        if value and value not in self.passes:
            raise ValueError(f"is not supported. {self.instead.removesuffix('.')}")
        return value


class WireObject(BaseModel):
    """An object of a client's body. Null is the same as absent; known fields have their types."""

    model_config = ConfigDict(extra="ignore", strict=True)
    _ignored: tuple[str, ...] = PrivateAttr(default=())
    _read: ClassVar[frozenset[str]] = frozenset()
    _hints: ClassVar[Mapping[str, TypeAdapter[Any]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fields = {f.alias or name: f for name, f in cls.model_fields.items()}
        cls._read = frozenset(
            n for n, f in fields.items() if not any(isinstance(m, Noted) for m in f.metadata)
        )
        cls._hints = {
            name: TypeAdapter(f.annotation, config=_STRICT)
            for name, f in fields.items()
            if f.annotation and any(isinstance(m, Hint) for m in f.metadata)
        }

    @model_validator(mode="wrap")
    @classmethod
    def _without_ignored(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if type(value) is not dict:
            return handler(value)
        if None in value.values():
            value = {k: v for k, v in value.items() if v is not None}
        unknown = [
            h for h, known in cls._hints.items() if h in value and not _fits(known, value[h])
        ]
        ignored = [*unknown, *islice((spelled(k) for k in value if k not in cls._read), MOST + 1)]
        if ignored:
            dropped = {*unknown, *(value.keys() - cls._read)}
            value = {k: v for k, v in value.items() if k not in dropped}
        made = handler(value)
        ignored += _inner(made)
        if ignored:
            made._ignored = bounded(ignored)
        return made


def ignored_in(made: WireObject) -> tuple[str, ...]:
    """The paths of all that was noted in an object and in what it holds, each once."""
    return made._ignored


def spelled(name: str) -> str:
    """A client's name of a field as it may be told."""
    return name if _PLAIN_NAME.fullmatch(name) else "?"


def bounded(paths: Iterable[str]) -> tuple[str, ...]:
    """Each path once, and not too many of them."""
    once = dict.fromkeys(paths)
    shown = [p for p in once if p != MORE]
    cut = MORE in once or len(shown) > MOST
    return (*shown[:MOST], *((MORE,) if cut else ()))


def _fits(known: TypeAdapter[Any], value: object) -> bool:
    try:
        known.validate_python(value)
    except ValidationError:
        return False
    return True


def _inner(made: WireObject) -> Iterator[str]:
    """What was noted in the fields of an object."""
    for name, field in type(made).model_fields.items():
        value, own = getattr(made, name), field.alias or name
        if isinstance(value, WireObject):
            yield from _below(own, value._ignored)
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            inner = (v._ignored for v in value if isinstance(v, WireObject))
            yield from _below(f"{own}[]", dict.fromkeys(p for paths in inner for p in paths))


def _below(field: str, paths: Iterable[str]) -> Iterator[str]:
    return (p if p == MORE else f"{field}.{p}" for p in paths)
