"""A model's dialect, derived from how its own template writes small conversations.

    scaffold   …<|assistant|>                                      where a reply begins
    text       …<|assistant|>    TEXT                              what wraps an answer
    thought    …<|assistant|>    <think>THOUGHT</think> TEXT       what opens and closes reasoning
    calls      …<|assistant|>    <tool_call>{"name": "NAME", …     `derive_calls.py`

A derived dialect counts once it is proved (`read_back.py`): conversations as the template writes
them are read back. No template is known by name here; `families.py` has what templates never show.
"""

from __future__ import annotations

from dataclasses import replace

from everwarm.codec import Writing
from everwarm.prompt.dialects.derive_calls import CallFinder
from everwarm.prompt.dialects.derive_markers import TemplateMarkers
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.read_back import untyped, why_unproved
from everwarm.prompt.dialects.renderings import (
    KEYS,
    NAMES,
    TEXT,
    THOUGHT,
    USER,
    VALUES,
    Renderings,
    TooSlow,
)

_ONE = ((NAMES[0], {KEYS[0]: VALUES[0]}),)
_LONGEST_MARKER = 64
NO_CALLS = "The template writes no tool calls."
TOO_SLOW = "The template takes too long for its notation to be derived."


def derived(codec: Writing) -> Dialect:
    """The dialect that the template shows; `note` says why it has no calls, where it has none."""
    deriver = _Deriver(codec)
    try:
        deriver.derive()
    except TooSlow:
        deriver.found = replace(deriver.found, calls=(), origin="none", note=TOO_SLOW)
    return deriver.found


class _Deriver:
    """Derives one dialect. Live: for as long as that takes."""

    def __init__(self, codec: Writing) -> None:
        self._renderings = Renderings(codec)
        self._edges = TemplateMarkers(codec.special_texts)
        self._ends = [t for i in codec.eos_ids if (t := codec.decode([i]).strip())]
        self.found = Dialect("derived", origin="none", note=NO_CALLS)

    def derive(self) -> None:
        """Find what the template shows, part by part. Where time runs out, earlier parts stay."""
        shown = self._renderings
        has_calls = shown.find_shape()
        asked = shown.whole([{"role": "user", "content": USER}], tools=False) or USER
        plain = asked[max(0, asked.rfind(USER) - 80) :]
        said = shown.behind_user(shown.answer()) or ""
        self._find_reasoning(plain)
        header = self._header(said)
        self._find_text(said[len(header) :])
        if has_calls:
            self._find_calls(said)

    def _find_reasoning(self, plain: str) -> None:
        shown = self._renderings
        result = shown.results(_ONE)
        told = (
            (shown.answer(THOUGHT),),
            (shown.reply(_ONE, THOUGHT),),
            (shown.reply(_ONE, THOUGHT), *result),
            (shown.reply(_ONE, THOUGHT), *result, shown.answer()),
        )
        for messages in told:
            left, thought, right = (shown.behind_user(*messages) or "").partition(THOUGHT)
            if not thought:
                continue
            opens = self._edges.before(left, plain + right)
            closes = self._edges.behind(right.partition(TEXT)[0], opens) if opens else ""
            if closes and len(opens) <= _LONGEST_MARKER and closes not in self._ends:
                self.found = replace(self.found, reasoning=(opens, closes))
                return

    def _header(self, said: str) -> str:
        """What stands before a reply: what the scaffold and an answer begin with alike."""
        return self._edges.shared_start(self._scaffold(), said.partition(TEXT)[0])

    def _scaffold(self) -> str:
        """What the template writes where a reply is to begin, less what opens its reasoning."""
        text = self._renderings.behind_user(scaffold=True) or ""
        opens = self.found.reasoning[0] if self.found.reasoning else ""
        begun = text.rstrip()
        if self.found.reasoning and begun.endswith(self.found.reasoning[1]):
            begun = begun.removesuffix(self.found.reasoning[1]).rstrip()
        return begun.removesuffix(opens) if opens and begun.endswith(opens) else text

    def _find_text(self, said: str) -> None:
        """Find what wraps an answer, and what ends a turn without being a token that does."""
        left, text, right = said.partition(TEXT)
        if not text:
            return
        opens = self._peeled(left).strip()
        closes = self._edges.behind(right, opens) if self._edges.markers(opens) else ""
        if not self._edges.markers(opens) or closes in self._ends:
            opens = opens if self._edges.markers(opens) else ""
            closes = ""
        at = right.find(closes) + len(closes)
        end = self._before_end(right[at:])
        ends = (end.strip(),) if end.strip() and len(end) <= _LONGEST_MARKER else ()
        self.found = replace(self.found, text=(opens, closes), ends=ends)

    def _before_end(self, text: str) -> str:
        """A text up to the first token that ends a turn."""
        return text[: min((at for e in self._ends if (at := text.find(e)) >= 0), default=len(text))]

    def _peeled(self, text: str) -> str:
        """A reply's beginning without what wraps reasoning and answers."""
        wraps = [*(self.found.reasoning or ()), *self.found.text]
        text = text.lstrip()
        while found := next((w for w in wraps if w.strip() and text.startswith(w.strip())), ""):
            text = text[len(found.strip()) :].lstrip()
        return text

    def _find_calls(self, said: str) -> None:
        finder = CallFinder(
            self._renderings,
            self._edges,
            bases=(self._scaffold(), said.partition(TEXT)[0].removesuffix(self.found.text[0])),
            peel=self._peeled,
            end=said.partition(TEXT)[2].partition(self.found.text[1])[2]
            if self.found.text[1]
            else said.partition(TEXT)[2],
            stops=self._ends,
            dialect=self.found,
        )
        note = ""
        for syntax, end in finder.candidates():
            apart = (syntax.apart or "").strip()  # a role, say: of use before another call
            ends = tuple(dict.fromkeys(e for e in (*self.found.ends, end, apart) if e))
            dialect = replace(self.found, calls=(syntax,), ends=ends, origin="derived", note="")
            why = why_unproved(dialect, self._renderings, finder.reply_of)
            if not why:
                kinds = untyped(dialect, self._renderings, finder.reply_of)
                told = f"Not read back as it was: an argument of type {', '.join(kinds)}."
                self.found = replace(dialect, note=told if kinds else "")
                return
            note = note or f"Calls as the template writes them could not be read back: {why[:160]}."
        note = note or "How the template writes calls could not be derived."
        self.found = replace(self.found, note=note)
