"""Chat templates: compiled once, run in a sandbox, with the time given from outside.

The same environment as transformers', except: the clock is the caller's, so that a conversation's
date can stay what it was; `from_json` exists, which some published templates use; and a template
that appends to its own lists may do so, on copies of what it is given.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment

from everwarm.errors import RequestError
from everwarm.text.template_bounds import Metered, RenderLimits

_WRITES = re.compile(r"\.(append|extend|insert|pop|remove|clear|update|setdefault|sort|reverse)\(")
_NOT_ASCII = re.compile("[^\\x00-\\x7f\ud800-\udfff]")  # halves of surrogates stand for quoted text
_OF_DICT = frozenset(dir(dict))


class _Generation(Extension):
    """`{% generation %}`: marks what is trained on; here it only holds its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way of declaring tags

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Give the body in place of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


class _Namespace(jinja2.utils.Namespace):
    """Refuses underscored names, through which a template could reach Python's insides."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attrs = dict(*args[1:], **kwargs)
        for name in attrs:
            _check_name(name)
        jinja2.utils.Namespace.__init__(args[0], attrs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > 64:
        raise ValueError("an indent of more than 64 characters")
    text = json.dumps(
        x, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return _NOT_ASCII.sub(lambda m: json.dumps(m[0])[1:-1], text) if ensure_ascii else text


class _DictsFirst:
    """`message.role` of a dict without asking for an attribute first, which most of a run would be.

    The same as jinja's own rule, since no name of `dict` itself is looked up here.
    """

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What the template writes as `obj.attribute`."""
        if type(obj) is dict and attribute not in _OF_DICT:
            found = obj.get(attribute, self)
            return self.undefined(obj=obj, name=attribute) if found is self else found
        return super().getattr(obj, attribute)  # type: ignore[misc]


class _Sandbox(_DictsFirst, Metered, ImmutableSandboxedEnvironment):
    pass


class _WritableSandbox(_DictsFirst, Metered, SandboxedEnvironment):
    pass


_SYNTAX: dict[str, Any] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "extensions": [_Generation, loopcontrols],
}


# What a template can raise: by its own words, or by what it does with messages.
_REFUSALS = (
    jinja2.TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip


def constants(source: str) -> frozenset[str]:
    """All texts that a template writes or compares with."""
    tree = _Sandbox(RenderLimits(), **_SYNTAX).parse(source)
    written = {n.data for n in tree.find_all(jinja2.nodes.TemplateData)}
    named = {n.value for n in tree.find_all(jinja2.nodes.Const) if isinstance(n.value, str)}
    return frozenset(written | named)


class ChatTemplate:
    """One template's source, ready to run. Not thread-safe: the caller holds a lock."""

    def __init__(
        self, source: str, specials: Mapping[str, Any], limits: RenderLimits | None = None
    ) -> None:
        self._specials = dict(specials)
        self._copies = bool(_WRITES.search(source))
        kind = _WritableSandbox if self._copies else _Sandbox
        env = kind(limits or RenderLimits(), **_SYNTAX)
        self._meter = env.meter
        env.filters.update(tojson=_tojson, from_json=json.loads)
        env.globals.update(
            raise_exception=_raise, strftime_now=self._strftime, dict=_dict, namespace=_Namespace
        )
        self._now = datetime.now()
        self._template = env.from_string(source)

    def _strftime(self, form: str) -> str:
        return self._now.strftime(form)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        scaffold: bool,
        args: Mapping[str, Any],
        now: datetime,
    ) -> str:
        """Run the template. Raises RequestError with its own words where it refuses.

        EngineError: it takes too long, or makes too much.
        """
        self._now = now
        self._meter.begin()
        chat: Any = copy.deepcopy(list(messages)) if self._copies else messages
        try:
            return self._template.render(
                **self._specials
                | dict(args)
                | {"messages": chat, "tools": tools, "add_generation_prompt": scaffold}
            )
        except _REFUSALS as e:
            raise refused(e) from e


def refused(error: Exception) -> RequestError:
    """What a client is told when a template cannot render its messages."""
    return RequestError(
        f"The model's chat template refuses these messages: {error}", param="messages"
    )
