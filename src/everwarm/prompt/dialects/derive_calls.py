"""How a template writes tool calls, derived from what surrounds marked names and arguments.

    one call     before NAME … ARGUMENTS behind
    two calls    before NAME … ARGUMENTS apart NAME … ARGUMENTS behind

What ends both `before` and `apart` belongs to a call, as does what begins both `apart` and
`behind`; the rest stands around a section, or between two calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everwarm.prompt.dialects.derive_arguments import (
    Spelling,
    holds,
    literals_of,
    span_of,
    tags_of,
)
from everwarm.prompt.dialects.derive_markers import TemplateMarkers
from everwarm.prompt.dialects.dialect import CallSyntax, Dialect
from everwarm.prompt.dialects.renderings import KEYS, NAMES, VALUES, Calls, Renderings

_JSON = json.JSONDecoder(strict=False)
_DIGITS = re.compile(r"\d+")
_LONGEST = 64
_ONE: Calls = ((NAMES[0], {KEYS[0]: VALUES[0]}),)
_TWO: Calls = (*_ONE, (NAMES[1], {KEYS[0]: VALUES[1]}))
_PAIR: Calls = ((NAMES[0], {KEYS[0]: VALUES[0], KEYS[1]: VALUES[1]}),)


@dataclass(frozen=True, slots=True)
class _Shown:
    """One call in a text: from `start` to `end`, written as `call` with slots."""

    start: int
    end: int
    call: str


@dataclass(frozen=True, slots=True)
class CallFinder:
    """Finds the syntax of calls. Texts are those behind a user's.

    `bases`: beginnings of replies without calls. `peel` removes markers of reasoning and answers
    from a beginning. `end`: what follows an answer. `stops`: tokens that end a turn.
    """

    renderings: Renderings
    edges: TemplateMarkers
    bases: Sequence[str]
    peel: Callable[[str], str]
    end: str
    stops: Sequence[str]
    dialect: Dialect

    def reply_of(self, text: str) -> str:
        """A text without what stands before the reply and what ends its turn."""
        base = self.bases[0]
        at = len(self.edges.shared_start(text, base))
        return self._without_end(text[at:])

    def candidates(self) -> Iterator[tuple[CallSyntax, str]]:
        """Possible syntaxes, the likeliest first, each with what ends a turn behind calls."""
        one, two = self.renderings.called(_ONE), self.renderings.called(_TWO)
        for spelling in self._spellings():
            single = self._find(one or "", _ONE[0], spelling, 0, 0)
            if single is None:
                continue
            several = self._pair(two or "", spelling)
            if several:
                made = self._of_two(two or "", *several, spelling)
                yield made, self._end_behind(made, (two or "")[several[1].end :])
            yield self._of_one(one or "", single, spelling), ""

    def _end_behind(self, syntax: CallSyntax, behind: str) -> str:
        """What follows the last call and is no part of its section."""
        at = behind.find(syntax.close) if syntax.close else 0
        rest = self._without_end(behind[at + len(syntax.close) :]) if at >= 0 else ""
        rest = rest if syntax.between is None else ""
        return rest.strip() if self.edges.markers(rest) and len(rest) <= _LONGEST else ""

    def _spellings(self) -> Iterator[Spelling]:
        """How arguments may be written."""
        yield Spelling()
        text = self.renderings.called(_PAIR) or ""
        typed = lambda value: self.renderings.called(((NAMES[0], {KEYS[0]: value}),))  # noqa: E731
        own, section = literals_of(text), self._before(text, max(0, text.find(NAMES[0])))
        found = Spelling(literals=own) if own else tags_of(text, self.edges, typed, section)
        if found:
            yield found

    def _pair(self, text: str, spelling: Spelling) -> tuple[_Shown, _Shown] | None:
        first = self._find(text, _TWO[0], spelling, 0, 0)
        second = self._find(text, _TWO[1], spelling, first.end, 1) if first else None
        return (first, second) if first and second else None

    # --- one call ---

    def _find(
        self,
        text: str,
        call: tuple[str, Mapping[str, Any]],
        spelling: Spelling,
        start: int,
        n: int,
    ) -> _Shown | None:
        """Where a call stands in a text, from `start` on."""
        name, arguments = call
        own_id = self.renderings.call_id(n, name)
        at = text.find(name, start)
        if at < 0:
            return None
        if spelling.is_json:
            found = self._object(text, start, name, arguments, own_id)
            if found:
                return found
        span = span_of(text, at + len(name), arguments, spelling)
        if span is None:
            return None
        mid = text[at + len(name) : span[0]]
        carries = self.renderings.spelling and own_id in text[max(0, at - 64) : span[0]]
        call_text = "«name»" + mid.replace(own_id, "«id»") + "«arguments»"
        if carries and own_id in text[:at] + text[at : span[0]]:
            return self._by_id(text, own_id, span, name, n)
        return _Shown(at, span[1], call_text)

    def _by_id(self, text: str, own_id: str, span: tuple[int, int], name: str, n: int) -> _Shown:
        """A call that is named by its id alone."""
        at = text.rfind(own_id, 0, span[0])
        lead, _, rest = own_id.partition(name)
        mid = rest.replace(str(n), "«n»") + text[at + len(own_id) : span[0]]
        return _Shown(at + len(lead), span[1], f"«name»{mid}«arguments»")

    def _object(
        self, text: str, start: int, name: str, arguments: Mapping[str, Any], own_id: str
    ) -> _Shown | None:
        """A call that is a JSON object with its name and arguments in it, maybe in a list."""
        at = start
        limit = text.find(name, start) if start else len(text)
        while (at := text.find("{", at)) >= 0 and at < max(limit, start) + 512:
            try:
                value, end = _JSON.raw_decode(text, at)
            except (ValueError, RecursionError):
                at += 1
                continue
            if holds(value, name) and holds(value, dict(arguments)) and name in text[at:end]:
                return self._spelled_object(text, at, end, name, arguments, own_id)
            at += 1
        return None

    def _spelled_object(
        self, text: str, at: int, end: int, name: str, arguments: Mapping[str, Any], own_id: str
    ) -> _Shown | None:
        shown = text[at:end]
        for i in (m.start() for m in re.finditer(r"\{", shown)):
            try:
                value, stop = _JSON.raw_decode(shown, i)
            except ValueError:
                continue
            if value == dict(arguments) and i:
                shown = shown[:i] + "«arguments»" + shown[stop:]
                break
        shown = shown.replace(f'"{name}"', '"«name»"')
        quoted = re.escape(own_id)
        shown = re.sub(rf',\s*"[^"]+":\s*"{quoted}"|"[^"]+":\s*"{quoted}"\s*,\s*', "", shown)
        found = CallSyntax(open="", call=shown, close="")
        return _Shown(at, end, shown) if found.object else None

    # --- what surrounds calls ---

    def _before(self, text: str, start: int) -> str:
        """What stands before the first call, behind what any reply begins with."""
        at = max(len(self.edges.shared_start(text[:start], b)) for b in self.bases)
        return self.peel(text[at:start])

    def _without_end(self, text: str) -> str:
        """A reply without what ends its turn."""
        text = self._before_stop(text)
        shared = self.edges.shared_end(text, self._before_stop(self.end))
        return text[: len(text) - len(shared)].rstrip() if shared.strip() else text.rstrip()

    def _before_stop(self, text: str) -> str:
        """A text up to the first token that ends a turn."""
        stops = [at for s in self.stops if (at := text.find(s)) >= 0]
        return text[: min(stops, default=len(text))]

    def _of_one(self, text: str, shown: _Shown, spelling: Spelling) -> CallSyntax:
        """A syntax by one call alone: no second may follow it."""
        before, behind = self._before(text, shown.start), self._without_end(text[shown.end :])
        return self._sectioned(before, shown.call, behind.rstrip(), None, spelling)

    def _of_two(self, text: str, first: _Shown, second: _Shown, spelling: Spelling) -> CallSyntax:
        own_ids = [self.renderings.call_id(n, NAMES[n]) for n in (0, 1)]
        before = self._before(text, first.start).replace(own_ids[0], "«id»")
        apart = text[first.end : second.start].replace(own_ids[1], "«id»")
        behind = text[second.end :]
        call = _counted(first.call, second.call)
        listed = before.rstrip().endswith("[") and re.fullmatch(r"\s*,\s*", apart)
        if listed and behind.lstrip().startswith("]"):
            return self._listed(before, apart, behind, call, spelling)
        if before and apart.endswith(before):
            between = apart[: len(apart) - len(before)]
            close = self.edges.shared_start(between, behind)
            rest = between[len(close) :] + close[len(close.rstrip()) :]
            return self._sectioned(before, call, close.rstrip(), rest, spelling)
        return self._shared(before, apart, behind, call, spelling)

    def _listed(
        self, before: str, apart: str, behind: str, call: str, spelling: Spelling
    ) -> CallSyntax:
        """Calls in a list."""
        lead = before.rstrip()[:-1]
        tail = behind[: behind.index("]") + 1]
        return self._made(
            spelling,
            open=lead.rstrip(),
            head=lead[len(lead.rstrip()) :] + before[len(before.rstrip()) - 1 :],
            call=call,
            between=apart,
            tail=tail,
            close=self._without_end(behind[len(tail) :]).strip(),
        )

    def _shared(
        self, before: str, apart: str, behind: str, call: str, spelling: Spelling
    ) -> CallSyntax:
        """Calls that share one section."""
        trail, _, lead = self.edges.parted(before, apart, behind, before)
        trail, lead = trail.rstrip(), lead.lstrip()
        between = apart[len(trail) : len(apart) - len(lead)]
        rest = self._without_end(behind[len(trail) :])
        opens = before[: len(before) - len(lead)] if lead else before
        return self._made(
            spelling,
            open=opens.strip(),
            head=opens[len(opens.rstrip()) :],
            call=lead + call + trail,
            between=between,
            tail=rest[: len(rest) - len(rest.lstrip())],
            close=rest.strip(),
        )

    def _sectioned(
        self, before: str, call: str, close: str, apart: str | None, spelling: Spelling
    ) -> CallSyntax:
        """Calls that have a section each. It opens with the first marker that only calls have."""
        taken = [*(self.dialect.reasoning or ()), *self.dialect.text, *self.dialect.ends]
        others = "".join((*self.bases, self.end))
        ends = [e for _, e in self.edges.markers(before)]
        opens = next(
            (o for e in ends if (o := before[:e]) not in others and o not in taken), before
        )
        if opens.count("<") > opens.count(">") and opens.startswith("<"):
            opens = before  # a tag that the name interrupts
        rest = before[len(opens) :]
        return self._made(
            spelling,
            open=opens.strip(),
            head=opens[len(opens.rstrip()) :] + rest[: len(rest) - len(rest.lstrip())],
            call=rest.lstrip() + call,
            apart=apart,
            tail=close[: len(close) - len(close.lstrip())],
            close=close.lstrip(),
        )

    def _made(self, spelling: Spelling, *, open: str, call: str, **around: Any) -> CallSyntax:
        own_id = "«id»" if "«id»" in call else ""
        if self.renderings.spelling:
            own_id = self.renderings.spelling.format(name="«name»", n="«n»")
        return CallSyntax(
            open=open,
            call=call,
            tags=spelling.tags,
            literals=spelling.literals,
            own_id=own_id,
            bare=not open,
            **around,
        )


def _counted(first: str, second: str) -> str:
    """A call's pattern, with a slot where two calls have different numbers."""
    if first == second or _DIGITS.sub("0", first) != _DIGITS.sub("0", second):
        return first
    out, at = "", 0
    for a, b in zip(_DIGITS.finditer(first), _DIGITS.finditer(second), strict=True):
        out += first[at : a.start()] + ("«n»" if a[0] != b[0] else a[0])
        at = a.end()
    return out + first[at:]
