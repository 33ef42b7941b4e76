"""The class of each field of each format, as the models that read the bodies define it.

`docs/wire.md` is made from this, and a test checks it against the request types of the SDKs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from everwarm.wire.fields import Hint, Noted, Refused
from everwarm.wire.formats import BODIES

Class = Literal["honoured", "refused", "noted"]
_TAGS: Final = ("type", "role")
"""Fields that tell the kind of an object."""


@dataclass(frozen=True, slots=True)
class ObjectFields:
    """The fields of one kind of object. `same_as`: the path that shows them already.

    `kind`, `about`: of the object as a whole, where its fields are not read one by one.
    """

    path: str
    fields: tuple[FieldClass, ...] = ()
    kind: Class = "honoured"
    about: str = ""
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class FieldClass:
    """One field of an object. `about`: what a person should know about it, if anything."""

    name: str
    kind: Class
    about: str = ""


def class_of(field: FieldInfo) -> tuple[Class, str]:
    """The class of a model's field, and what a person should know about it."""
    for mark in field.metadata:
        match mark:
            case Noted(why):
                return "noted", why
            case Refused(instead, passes):
                also = f" {', '.join(map(str, passes))} may stand." if passes else ""
                return "refused", instead + also
            case Hint():
                return "honoured", "a hint: an unknown value is noted"
    return "honoured", field.description or ""


def names_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model as clients spell them."""
    return {f.alias or name: f for name, f in model.model_fields.items()}


def objects_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models in a field's type, each with `[]` where it stands in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
        return
    brackets = "[]" if get_origin(annotation) is list else ""
    for inner in get_args(annotation):
        yield from ((brackets + where, m) for where, m in objects_in(inner))


def tags_of(model: type[BaseModel]) -> tuple[str, tuple[str, ...]]:
    """The field that tells objects of this model from others, and its values."""
    for name in _TAGS:
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return name, get_args(field.annotation)
    return "", ()


def objects_of(model: type[BaseModel]) -> Iterator[ObjectFields]:
    """The body of a format, and every object that it may hold."""
    yield from _walk(model, "", {})


def _walk(
    model: type[BaseModel], path: str, seen: dict[type[BaseModel], str]
) -> Iterator[ObjectFields]:
    whole: tuple[Class, str] = getattr(model, "AS_A_WHOLE", ("honoured", ""))
    kind, about = whole
    if kind != "honoured":
        yield ObjectFields(path, kind=kind, about=about)
        return
    names = names_of(model)
    yield ObjectFields(path, tuple(FieldClass(n, *class_of(f)) for n, f in names.items()))
    for name, field in names.items():
        if class_of(field)[0] != "honoured":
            continue
        for here, found in _places(f"{path}.{name}" if path else name, field.annotation):
            if found in seen:
                yield ObjectFields(here, same_as=seen[found])
                continue
            seen[found] = here
            yield from _walk(found, here, seen)


def _places(path: str, annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """The paths of a field's objects: where it may hold several kinds, with their tags."""
    inner = list(objects_in(annotation))
    if len(inner) < 2:
        return [(path + brackets, m) for brackets, m in inner]
    return [(f"{path}[{', '.join(tags_of(m)[1]) or 'others'}]", m) for _, m in inner]


def page() -> str:
    """The classes of all fields of all formats, in Markdown."""
    return "\n".join(f"## `POST {path}`\n\n{_markdown(model)}" for path, model in BODIES.items())


def _markdown(model: type[BaseModel]) -> str:
    lines: list[str] = []
    for o in objects_of(model):
        lines.append(f"**{f'`{o.path}`' if o.path else 'The body'}**")
        if o.same_as:
            lines[-1] += f": as `{o.same_as}`."
        elif o.kind != "honoured":
            lines[-1] += f": {o.kind}; {o.about}."
        else:
            lines += ["", *_by_class(o.fields)]
        lines.append("")
    return "\n".join(lines)


def _by_class(fields: Iterable[FieldClass]) -> Iterator[str]:
    """A line for each class and remark, with the fields that share them."""
    groups: dict[tuple[Class, str], list[str]] = {}
    for f in fields:
        groups.setdefault((f.kind, f.about), []).append(f"`{f.name}`")
    for kind in get_args(Class):
        for (own, about), names in groups.items():
            if own == kind:
                yield f"- {kind}: {', '.join(names)}{f' ({about})' if about else ''}"
