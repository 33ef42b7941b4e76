"""The three classes of a client's fields, and the base of all objects that a client may send.

- *Honoured*: the field does what its format says. Every plain field of a `WireObject` is honoured.
- *Refused*: the field would change what the client gets, and this server cannot do it. Such a field
  is annotated with `Refused`; a value that asks for nothing (`false`, an empty list) passes.
- *Noted*: the answer is right without the field. These are fields annotated with `Noted`, fields
  that no class has, and unknown values of a `Hint`: a client's update must not break it. They are
  dropped, and their paths go with the request (`ignored_paths`).

A path has no positions: `messages[].name` stands for every message. It holds names only, never a
value, and a name that does not look like one is `?`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Final, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

MOST: Final = 32
"""At most so many paths are listed for one object; `MORE` stands for all others."""
MORE: Final = "..."
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_STRICT: Final = ConfigDict(strict=True)


@dataclass(frozen=True, slots=True)
class Noted:
    """Marks a field that is accepted and changes nothing. `why`: a clause for the documentation."""

    why: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {"description": f"Changes nothing: {self.why}."}


@dataclass(frozen=True, slots=True)
class Hint:
    """Marks a field whose unknown values are noted and read as its default."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Marks a field that is refused. `instead`: a sentence that says what to do.

    A value that is false, zero or empty asks for nothing and passes, as do the values in `passes`.
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
    """An object of a client's body. Null is the same as absent; known fields are typed."""

    model_config = ConfigDict(extra="ignore", strict=True)
    _ignored: ClassVar[tuple[str, ...]] = ()
    _read: ClassVar[frozenset[str]] = frozenset()
    _hints: ClassVar[Mapping[str, TypeAdapter[Any]]] = {}
    _nested: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fields = {f.alias or name: f for name, f in cls.model_fields.items()}
        cls._read = frozenset(
            n for n, f in fields.items() if not any(isinstance(m, Noted) for m in f.metadata)
        )
        cls._nested = {
            name: f.alias or name
            for name, f in cls.model_fields.items()
            if _holds_objects(f.annotation)
        }
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
        ignored = [
            h for h, known in cls._hints.items() if h in value and not _fits(known, value[h])
        ]
        if not value.keys() <= cls._read:
            unread = (k for k in value if k not in cls._read)
            ignored += islice(map(safe_name, unread), MOST + 1)
        if ignored:
            kept = cls._read.difference(ignored)
            value = {k: v for k, v in value.items() if k in kept}
        made = handler(value)
        if cls._nested:
            ignored += _inner(made, cls._nested)
        if ignored:
            made.__dict__["_ignored"] = bounded_paths(
                ignored
            )  # a private attribute costs each object
        return made


def ignored_paths(made: WireObject) -> tuple[str, ...]:
    """The paths of everything that was noted in an object and in what it holds, each once."""
    return made._ignored


def safe_name(name: str) -> str:
    """The client's name of a field, or `?` where it does not look like one."""
    return name if _PLAIN_NAME.fullmatch(name) else "?"


def bounded_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Each path once, and not too many of them."""
    unique = dict.fromkeys(paths)
    named = [p for p in unique if p != MORE]
    is_cut = MORE in unique or len(named) > MOST
    return (*named[:MOST], *((MORE,) if is_cut else ()))


def _fits(known: TypeAdapter[Any], value: object) -> bool:
    try:
        known.validate_python(value)
    except ValidationError:
        return False
    return True


def _inner(made: WireObject, fields: Mapping[str, str]) -> Iterator[str]:
    """The paths of what was noted in the objects that these fields hold."""
    for name, own in fields.items():
        value = getattr(made, name)
        if isinstance(value, WireObject):
            yield from _below(own, value._ignored)
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            inner = (v._ignored for v in value if isinstance(v, WireObject))
            yield from _below(f"{own}[]", dict.fromkeys(p for paths in inner for p in paths))


def _holds_objects(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_holds_objects(a) for a in get_args(annotation))


def _below(field: str, paths: Iterable[str]) -> Iterator[str]:
    return (p if p == MORE else f"{field}.{p}" for p in paths)
