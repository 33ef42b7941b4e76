"""Bounds on what a chat template may do: a damaged or foreign one must not take the server.

A template is a program: it can loop for ever, double a text until memory is full, or ask for one of
10^12 characters. Here each turn of a loop, each call of a macro and each operation that can make
something larger than what it is given is checked: against a time limit, and against a size before
anything is made. It is no other process, so that a render costs what it did.

Not here: what templates may reach, which is jinja's sandbox.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

from everwarm.errors import EngineError

_WIDE: Final = re.compile(r"%[^a-zA-Z%]*?(?:\d{7,}|\*)")
_WIDE_FIELD: Final = re.compile(r"\{[^{}]*(?:\d{7,}|\{)")
_MOST_BITS: Final = 2**16
_MOST_WIDTH: Final = 2**20
_GROWING: Final = frozenset(
    ("join", "replace", "ljust", "rjust", "center", "zfill", "expandtabs", "format", "format_map",
     "translate", "append", "extend", "insert", "indent", "wordwrap", "batch", "slice")
)  # fmt: skip
_SMALL: Final = 4096
"""Texts up to this size are not counted: the time limit bounds how many there can be."""
_TICK: Final = "tick"


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What one rendering may take. `size`: characters of a text, or elements of a list."""

    seconds: float = 10.0
    size: int = 2**26
    total: int = 2**32


class Meter:
    """What one rendering has taken. Live: the thread that renders."""

    def __init__(self, limits: RenderLimits) -> None:
        self.limits = limits
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        self._deadline = time.monotonic() + self.limits.seconds
        self._made = 0

    def tick(self) -> str:
        """Raise EngineError where time is over."""
        if time.monotonic() > self._deadline:
            raise EngineError(
                f"The model's chat template did not end within {self.limits.seconds:g} seconds. "
                "Replace it by the one that its makers publish."
            )
        return ""

    def make(self, size: int) -> None:
        """Raise EngineError where something of this size is too large."""
        self._made += size
        if size > self.limits.size or self._made > self.limits.total:
            raise EngineError(
                f"The model's chat template makes more than {self.limits.size:,} characters. "
                "Replace it by the one that its makers publish."
            )
        self.tick()


class Metered:
    """The part of an environment that keeps templates within bounds; put it before a sandbox."""

    code_generator_class: type[CodeGenerator]
    intercepted_binops = frozenset(("+", "*", "**", "%"))
    binop_table: dict[str, Callable[[Any, Any], Any]]

    def __init__(self, limits: RenderLimits, **options: Any) -> None:
        self.meter = Meter(limits)
        super().__init__(**options)
        self.code_generator_class = _CodeGenerator
        for name in sorted(_GROWING & set(self.filters)):  # type: ignore[attr-defined]
            self.filters[name] = _filter(self.filters[name], name, self.meter)  # type: ignore[attr-defined]
        del self.globals["lipsum"]  # type: ignore[attr-defined]

    def tick(self) -> str:
        """One turn of a loop or one call of a macro."""
        return self.meter.tick()

    def concat(self, parts: Iterable[str]) -> str:
        """What a template, a macro or a block has written, as one text."""
        texts = list(parts)
        self._make(sum(map(len, texts)))
        return "".join(texts)

    def joined(self, parts: Iterable[Any]) -> str:
        """`a ~ b`."""
        return self.concat([part if type(part) is str else str(part) for part in parts])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*`, `**` and `%`."""
        if operator == "+" and type(left) is str and type(right) is str:
            self._make(len(left) + len(right))
            return left + right
        self._make(_combined(operator, left, right))
        return self.binop_table[operator](left, right)

    def _make(self, size: int) -> None:
        if size > _SMALL:
            self.meter.make(size)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call of anything: methods that grow what they are called on are checked first."""
        name = getattr(__obj, "__name__", "")
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox has its own `str.format`
        owner = getattr(method, "__self__", None)
        if name in _GROWING and isinstance(owner, str | list):
            args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
            __self.meter.make(_grown(name, owner, (*args, *kwargs.values())))
        return super().call(__context, __obj, *args, **kwargs)  # type: ignore[misc]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = super()._parse(source, name, filename)  # type: ignore[misc]
        for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            assert isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock)
            tick = nodes.Call(nodes.EnvironmentAttribute(_TICK), [], [], None, None)
            statement = nodes.ExprStmt(tick, lineno=node.lineno)
            node.body.insert(0, statement)
        return tree


class _CodeGenerator(CodeGenerator):
    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        """Our own call goes past the sandbox, which would ask whether it is safe each time."""
        if isinstance(node.node, nodes.EnvironmentAttribute) and node.node.name == _TICK:
            self.write(f"environment.{_TICK}()")
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """`a ~ b`, which is no operator that a sandbox can intercept."""
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


def _filter(function: Callable[..., Any], name: str, meter: Meter) -> Callable[..., Any]:
    """A filter that is checked before it runs."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
        n = 1 if hasattr(function, "jinja_pass_arg") else 0
        meter.make(_grown(name, args[n], (*args[n + 1 :], *kwargs.values())))
        return function(*args, **kwargs)

    return checked


def _len(value: object) -> int:
    return len(value) if isinstance(value, Sized) else 32


def _combined(operator: str, left: Any, right: Any) -> int:
    """The size of what an operator makes; the largest number for what nobody needs."""
    numbers = isinstance(left, int) and isinstance(right, int)
    if numbers and operator in ("*", "**"):
        times = max(1, right) if operator == "**" else 1
        bits = left.bit_length() * times + right.bit_length()
        return sys.maxsize if bits > _MOST_BITS else 0
    if operator == "+":
        return _len(left) + _len(right) if isinstance(left, Sized) else 0
    if operator == "*":
        text, times = (right, left) if isinstance(left, int) else (left, right)
        return _len(text) * max(0, times) if isinstance(times, int) else 0
    if operator == "%" and isinstance(left, str):
        values = right if isinstance(right, tuple) else (right,)
        return sys.maxsize if _WIDE.search(left) else len(left) + sum(map(_len, values))
    return 0


def _grown(name: str, owner: Any, args: Sequence[Any]) -> int:
    """The size of what a method or filter makes of `owner`, or more."""
    wide = [a for a in args if isinstance(a, int) and a > _MOST_WIDTH]
    if wide and name not in ("format", "append", "insert"):
        return sys.maxsize
    n, given = _len(owner), sum(map(_len, args))
    match name:
        case "join":
            parts, between = (args[0], owner) if isinstance(owner, str) else (owner, "")
            texts = [*args, between]
            most = max((len(t) for t in texts if isinstance(t, str)), default=0)
            return sum(map(_len, parts)) + most * _len(parts)
        case "replace":
            old, new = (*map(str, args[:2]), "", "")[:2]
            return n + (str(owner).count(old) if old else n + 1) * len(new)
        case "format" | "format_map":
            text = str(owner)
            wide_text = _WIDE.search(text) or _WIDE_FIELD.search(text)
            return sys.maxsize if wide_text else n + given
        case "translate":
            table = args[0].values() if args and isinstance(args[0], Mapping) else ()
            return n * max(map(_len, table), default=1)
        case "indent" | "expandtabs":
            width = max((a if isinstance(a, int) else _len(a) for a in args), default=8)
            return n + (str(owner).count("\n") + str(owner).count("\t") + 1) * width
        case "wordwrap":
            return n * (1 + given)
        case "append" | "insert":
            return n + 1
        case _:
            return n + given + sum(a for a in args if isinstance(a, int))
