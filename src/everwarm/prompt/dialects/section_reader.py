"""Reads a reply whose parts stand between markers: reasoning, calls, and text around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from everwarm.prompt.dialects.call_reader import CallReader, Parse
from everwarm.prompt.dialects.dialect import CallSyntax, Dialect
from everwarm.prompt.dialects.scan import begins, blank_end
from everwarm.prompt.partial_reply import MOST_BLANKS, PartialReply

_MOST_REREAD = 2**20
"""Characters that may be read again since they were no calls. Above that, no calls are looked for:
text full of beginnings of calls would be read once for each of them."""
Mode = Literal["text", "reasoning", "call"]


class SectionReader:
    """Reads one reply. Live: owned by one parser.

    `tools`: the parameters of each tool, by name; None: calls are not read, they are text.
    """

    def __init__(
        self,
        dialect: Dialect,
        draft: PartialReply,
        tools: Mapping[str, Mapping[str, Any]] | None,
        parse: Parse,
        *,
        opens_reasoning: bool,
    ) -> None:
        self.mode: Mode = "reasoning" if opens_reasoning else "text"
        self._dialect, self._draft, self._parse = dialect, draft, parse
        self._tools = tools or {}
        self._marked: dict[str, list[CallSyntax]] = {}
        self._bare: dict[str, list[CallSyntax]] = {}
        for c in dialect.calls if tools else ():
            (self._bare if c.bare else self._marked).setdefault(c.open, []).append(c)
        self._reader: CallReader | None = None
        self._opened = ""
        self._ended = ""
        self._n_reread = 0
        self._trim, self._refused, self._wrapped = False, False, False

    def step(self) -> bool:
        """Take one step in the draft's text. Whether there may be another."""
        if self.mode == "reasoning":
            return self._in_reasoning()
        return self._in_call() if self.mode == "call" else self._in_text()

    def finish(self) -> None:
        """No text follows: tell what is held back."""
        while self.step():
            pass
        if not self._draft.stopped:
            self._draft.tell_rest(is_reasoning=self.mode == "reasoning")

    def _in_text(self) -> bool:
        draft = self._draft
        if draft.stopped:
            return False
        if self._trim:
            draft.take(blank_end(draft.text, 0))
            self._trim = not draft.text
        if self._ended:
            return self._behind_end()
        if draft.fresh and not self._wrapped and (begun := self._at_beginning()) is not None:
            return begun
        if self._bare and draft.fresh and not self._refused:
            bare = self._in_bare()
            if bare is not None:
                return bare
        return self._to_marker()

    def _to_marker(self) -> bool:
        """Say the text up to the next marker, and go on behind it."""
        draft, think = self._draft, self._dialect.reasoning
        wrap = [self._dialect.text[1]] if self._wrapped else []
        end = self._dialect.ends
        marker = draft.say_until([*(think[:1] if think else ()), *wrap], [*self._marked, *end])
        if marker is None:
            return False
        if marker in self._marked:
            self._open(marker, self._marked[marker])
        elif marker in end:
            self._ended, draft.gap = draft.gap + marker, ""
        elif think and marker == think[0]:
            self.mode, self._wrapped, self._refused = "reasoning", False, False
        else:
            self._wrapped, self._trim = False, True
        return True

    def _behind_end(self) -> bool:
        """Behind what ends a turn: if text follows, that was no end but text."""
        draft = self._draft
        at = blank_end(draft.text, 0)
        if at > MOST_BLANKS:
            return self._was_no_end()
        if at == len(draft.text):
            draft.take(at if draft.final else 0)
            return False
        marker = max((m for m in self._marked if draft.text.startswith(m, at)), key=len, default="")
        if marker:
            draft.gap, self._ended = self._ended + draft.take(at), ""
            draft.take(len(marker))
            self._open(marker, self._marked[marker])
            return True
        if not draft.final and begins(draft.text, at, list(self._marked)):
            return False
        return self._was_no_end()

    def _was_no_end(self) -> bool:
        self._draft.say(self._ended)
        self._ended = ""
        return True

    def _at_beginning(self) -> bool | None:
        """Take what opens an answer, or a stray end of reasoning, at an answer's beginning.

        None: neither stands there. Else whether there may be another step.
        """
        draft, think, opens = self._draft, self._dialect.reasoning, self._dialect.text[0]
        stray = think[1] if think and draft.untold else ""
        at = blank_end(draft.text, 0)
        if at > MOST_BLANKS:
            return None
        found = next((m for m in (opens, stray) if m and draft.text.startswith(m, at)), "")
        if found:
            draft.take(at + len(found))
            self._wrapped, self._trim = found == opens, True
            return True
        waits = not draft.final and begins(draft.text, at, [opens, stray])
        return False if waits else None

    def _in_bare(self) -> bool | None:
        """At the beginning of an answer that may be a call without a marker; None: it is none."""
        draft = self._draft
        at = blank_end(draft.text, 0)
        if at > MOST_BLANKS:
            return None
        if at == len(draft.text) and not draft.final:
            return False
        for opens, syntaxes in self._bare.items():
            if draft.text.startswith(self._starts(opens), at):
                draft.gap = draft.take(at)
                draft.take(len(opens))
                self._open(opens, syntaxes)
                return True
        starts = [s for opens in self._bare for s in self._starts(opens)]
        return False if not draft.final and begins(draft.text, at, starts) else None

    def _starts(self, opens: str) -> tuple[str, ...]:
        """The beginnings of an answer that may be a call without a marker."""
        if opens:
            return (opens,)
        has_names = any(not s.object and not s.head for s in self._bare[opens])
        return ("{", "[", *(self._tools if has_names else ()))

    def _open(self, opened: str, syntaxes: list[CallSyntax]) -> None:
        self.mode, self._opened = "call", opened
        self._reader = CallReader(syntaxes, self._draft, self._tools, self._parse)

    def _in_reasoning(self) -> bool:
        think = self._dialect.reasoning
        end = self._draft.think_until([think[1]]) if think else None
        if end is None:
            return False
        self.mode, self._trim, self._refused = "text", True, False
        return True

    def _in_call(self) -> bool:
        draft, reader = self._draft, self._reader
        assert reader is not None
        end = reader.read(draft.text, final=draft.final)
        if end is None:
            return False
        self._n_reread += reader.n_read - end
        draft.take(end)
        self.mode = "text"
        if reader.n_calls:
            self._trim, self._refused, self._wrapped = True, False, False
        else:
            self._refused = True
            draft.say(draft.gap + self._opened)
        draft.gap = ""
        if self._n_reread > _MOST_REREAD:
            self._marked, self._bare = {}, {}
        return True
