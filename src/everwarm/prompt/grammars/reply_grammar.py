"""What a reply must be, as a grammar over the model's tokens, from what a request asks for.

Written literally as the dialect's own template writes it; control tokens stand in it by their ids.
Not here: how a grammar is compiled and held (`engine/compiled_grammar.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.job import Grammar
from everwarm.prompt.dialects.dialect import CallSyntax, Dialect
from everwarm.prompt.grammars.literal_arguments import LiteralArguments
from everwarm.prompt.grammars.rules import ANY_TEXT, GrammarRules, words
from everwarm.prompt.grammars.schemas import why_not
from everwarm.prompt.grammars.tag_arguments import TagArguments
from everwarm.request import Request, Tool

_BLANKS = r"/[ \t\r\n]{0,8}/"
_SLOTS = {"id": "/[A-Za-z0-9]{9}/", "n": "/(0|[1-9][0-9]{0,2})/"}
_INDENTED = {"whitespace_pattern": r"( |\n[ \t]{0,20})"}
"""An answer may be indented, as many models like it; blanks without an end are not allowed."""
_NOTHING: Mapping[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class GrammarPart:
    """A part of a grammar that a request's field decides: what it is called, and alone."""

    param: str
    text: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A grammar, and the parts by which a fault of it is named."""

    grammar: Grammar
    parts: tuple[GrammarPart, ...]


def wanted(
    codec: Codec, dialect: Dialect, request: Request, *, may_call: bool, thinks: bool
) -> Wanted | None:
    """The grammar of a reply; None where nothing has to be held.

    `may_call`: calls are not forbidden. `thinks`: the reply may begin with reasoning of its own.
    Raises RequestError where this model's dialect cannot be held to what is asked.
    """
    tools = _callable(request) if may_call else ()
    must = request.tool_choice == "required"
    if must and not tools:
        raise RequestError(
            "tool_choice asks for a call, and there is no such tool.", param="tool_choice"
        )
    if not _holds(dialect, request, tools):
        return None
    writer = _GrammarWriter(codec, dialect)
    answers: list[str] = []
    parts: list[GrammarPart] = []
    if tools and dialect.calls:
        parts = [GrammarPart("tools", writer.arguments_alone(t)) for t in tools]
        answers.append(writer.calls(tools, parallel=request.parallel_calls))
    if must and not answers:
        raise RequestError(
            "tool_choice asks for a call, and this model has no notation for calls. Leave the "
            "choice to it (auto): it answers in text.",
            param="tool_choice",
        )
    if not must and request.shape is not None:
        parts.append(GrammarPart(request.shape.param, writer.schema_alone(request.shape.schema)))
        answers.append(writer.answer(request.shape.schema))
    elif not must:
        answers = [writer.free(answers[0])]
    return Wanted(writer.grammar(" | ".join(answers), thinks=thinks), tuple(parts))


def check_schemas(dialect: Dialect, request: Request) -> None:
    """Raise RequestError where a schema that a reply is held to cannot be made a grammar.

    Cheap, for before the prompt is made: `wanted` expects it to be done.
    """
    tools = _callable(request)
    if dialect.calls and _holds(dialect, request, tools):
        _check_schemas("tools", [t.parameters for t in tools])
    if request.shape is not None:
        _check_schemas(request.shape.param, [request.shape.schema])


def _callable(request: Request) -> tuple[Tool, ...]:
    """The tools that a reply may call."""
    if request.tool_choice == "none":
        return ()
    tools = (*request.tools, *request.deferred)
    if request.named_tool is None:
        return tools
    return tuple(t for t in tools if t.name == request.named_tool)


def _holds(dialect: Dialect, request: Request, tools: tuple[Tool, ...]) -> bool:
    """Whether a reply has to be held to anything."""
    one = not request.parallel_calls and any(c.apart is not None for c in dialect.calls)
    holds_calls = bool(tools and dialect.calls) and (one or any(t.strict for t in tools))
    return request.tool_choice == "required" or holds_calls or request.shape is not None


def _check_schemas(param: str, schemas: Iterable[Mapping[str, Any] | None]) -> None:
    why = why_not(s for s in schemas if s is not None)
    if why is not None:
        raise RequestError(f"{param} cannot be honoured: {why}.", param=param)


class _GrammarWriter:
    """Writes one grammar. Live: for as long as that takes."""

    def __init__(self, codec: Codec, dialect: Dialect) -> None:
        self._codec, self._dialect = codec, dialect
        self._rules = GrammarRules(codec)
        self._literal = self._rules.literal

    def grammar(self, answer: str, *, thinks: bool) -> Grammar:
        """The whole: a reply that begins with the answer, and one that goes on behind reasoning."""
        think, glue = self._dialect.reasoning, self._literal(self._dialect.glue)
        reply = "start: answer"
        if thinks and think:
            reply = f"start: {self._literal(think[0])} | answer"
        behind = f"start: {_BLANKS} {glue} answer" if think else reply
        whole = f"answer: {answer}"
        return Grammar(self._rules.grammar(reply, whole), self._rules.grammar(behind, whole))

    def answer(self, schema: Mapping[str, Any]) -> str:
        """An answer that is JSON."""
        opens, closes = self._dialect.text
        body = self._rules.json(schema, lenient=False, spacing=_INDENTED)
        return f"{self._literal(opens)} {body} {self._literal(closes)}".strip()

    def free(self, calls: str) -> str:
        """Any text, and calls behind it as they have to be."""
        syntax, (opens, closes) = self._syntax(), self._dialect.text
        if syntax.bare or not self._rules.begins_with_token(syntax.open):
            raise RequestError(
                "Where calls may come or not, this model's cannot be held to a schema or to one at "
                "a time: no token of their own marks them. Use tool_choice, or leave strict and "
                "parallel_tool_calls out.",
                param="tools",
            )
        text = self._rules.rule("free", ANY_TEXT)
        if self._dialect.glue:
            return f"{self._literal(opens)} {text} | {calls}"
        said = f"({self._literal(opens)} {text} {self._literal(closes)})?" if opens else f"{text}?"
        return f"{said} ({calls})?"

    def calls(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        """One call of these tools or, where they may be parallel, more."""
        s = self._syntax()
        call = self._rules.rule("call", " | ".join(self._call(s, t) for t in tools))
        more = parallel and s.between is not None
        inner = f"{call} ({self._literal(s.between or '')} {call})*" if more else call
        # What ends the turn is no part of the reply: the grammar's own end stands for it.
        ends = set(self._codec.encode(s.close)) <= self._codec.eos_ids if s.close else True
        close = "" if ends else self._literal(s.close)
        body = [self._literal(s.open + s.head), inner, self._literal(s.tail), close]
        section = self._rules.rule("section", " ".join(b for b in body if b))
        if parallel and s.between is None and s.apart is not None:
            apart = self._literal(s.apart) if s.apart.strip() else _BLANKS
            return f"{section} ({apart} {section})*"
        return section

    def arguments_alone(self, tool: Tool) -> str:
        """A grammar of nothing but this tool's arguments."""
        other = _GrammarWriter(self._codec, self._dialect)
        body = other._arguments(other._syntax(), tool)
        return other._rules.grammar(f"start: {body}")

    def schema_alone(self, schema: Mapping[str, Any]) -> str:
        """A grammar of nothing but this schema."""
        rules = GrammarRules(self._codec)
        return rules.grammar(f"start: {rules.json(schema, lenient=False, spacing=_INDENTED)}")

    def _syntax(self) -> CallSyntax:
        syntax = self._dialect.calls[0]
        if syntax.own:
            raise RequestError(
                f"This model writes calls in a notation of its own ({self._dialect.name}), for "
                "which there is no grammar: calls can be left to it, or forbidden.",
                param="tool_choice",
            )
        return syntax

    def _call(self, s: CallSyntax, tool: Tool) -> str:
        out = []
        for kind, text in s.parts:
            match kind:
                case "text":
                    out.append(self._literal(text))
                case "name":
                    quoted = json.dumps(tool.name, ensure_ascii=False)[1:-1]
                    out.append(words(quoted if s.object else tool.name))
                case "arguments":
                    out.append(self._arguments(s, tool))
                case _:
                    out.append(self._rules.rule(kind, _SLOTS[kind]))
        return " ".join(o for o in out if o)

    def _arguments(self, s: CallSyntax, tool: Tool) -> str:
        schema = tool.parameters or _NOTHING
        if s.tags is None and s.literals is None:
            return self._rules.json({"type": "object", **schema}, lenient=not tool.strict)
        if tool.strict:
            raise RequestError(
                "This model writes arguments in its own way, not as JSON, and cannot be held to a "
                "schema in all its parts; leave strict out.",
                param="tools",
            )
        if s.literals:
            return LiteralArguments(s.literals, self._rules).all(schema)
        assert s.tags is not None
        return TagArguments(s.tags, self._rules, schema).all()
