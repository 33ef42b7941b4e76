"""Reads a reply in harmony, where each part is a message with a header.

    <|channel|>analysis<|message|> … <|end|> <|start|>assistant<|channel|>final<|message|> …
    `------- header ------------'  `body'            `------- header ---------------'

The prompt ends with `<|start|>assistant`, so a reply begins inside a header. What the analysis
channel holds is reasoning, the final and the commentary channels text; a message to `functions.X`
is a call of X, whatever its channel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from everwarm.prompt.dialects.json_reader import JsonReader, valid_arguments
from everwarm.prompt.dialects.scan import blank_end
from everwarm.prompt.partial_reply import PartialReply

_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_START = "<|start|>"
_LONGEST_HEADER = 512
_HEADER = re.compile(
    r"\s*(?:<\|start\|>)?\s*(?P<role>assistant)?\s*(?:to=(?P<to1>[^\s<]+))?\s*"
    r"(?:<\|channel\|>\s*(?P<channel>\w+)\s*(?:to=(?P<to2>[^\s<]+))?)?\s*"
    r"(?:<\|constrain\|>\s*)?(?:[\w.-]+)?\s*<\|message\|>"
)
_CUT = re.compile(
    r"\s*(?:<\|start\|>)?\s*(?:assistant)?\s*(?:to=[^\s<]*)?\s*"
    r"(?:<\|channel\|>\s*\w*\s*(?:to=[^\s<]*)?)?\s*(?:<\|constrain\|>)?\s*[\w.-]*\s*(?:<[|\w]*)?"
)
"""A header that is not complete."""


class HarmonyReader:
    """Reads one reply. Live: owned by one parser. `tools` as in `SectionReader`."""

    def __init__(self, draft: PartialReply, tools: Mapping[str, Mapping[str, Any]] | None) -> None:
        self.mode: Literal["text", "reasoning", "call"] = "text"
        self._draft, self._allowed = draft, bool(tools)
        self._in_header, self._trim = True, False
        self._header = self._name = ""
        self._json: JsonReader | None = None

    def step(self) -> bool:
        """Take one step in the draft's text. Whether there may be another."""
        if self._in_header:
            return self._read_header()
        if self.mode == "reasoning":
            return self._over(self._draft.think_until([*_ENDS, _START]))
        return self._in_call() if self.mode == "call" else self._in_text()

    def finish(self) -> None:
        """No text follows: tell what is held back. A header that was cut off is no text."""
        while self.step():
            pass
        if not self._draft.stopped and not self._in_header:
            self._draft.tell_rest(is_reasoning=self.mode == "reasoning")

    def _over(self, end: str | None) -> bool:
        """Behind a body, where one of its ends was found."""
        if end is None:
            return False
        self.mode, self._in_header = "text", True
        if end == _START:
            self._draft.text = _START + self._draft.text
            self._draft.taken -= len(_START)
        return True

    def _read_header(self) -> bool:
        draft = self._draft
        found = _HEADER.match(draft.text)
        if found and found.end() <= _LONGEST_HEADER:
            self._header = draft.take(found.end())
            self._begin(found)
            return True
        if not draft.text or (not draft.final and self._may_be_header()):
            return False
        if draft.final and self._may_be_header() and "<|" in draft.text:
            draft.take(len(draft.text))
            return False
        self.mode, self._in_header, self._header = "text", False, ""
        at = blank_end(draft.text, 0)
        if draft.text.startswith(_START, at):  # it begins no message, and ends none again
            draft.say(draft.take(at + len(_START)))
        return True

    def _may_be_header(self) -> bool:
        text = self._draft.text
        return len(text) <= _LONGEST_HEADER and _CUT.fullmatch(text) is not None

    def _begin(self, found: re.Match[str]) -> None:
        """Behind a header: find what the body is."""
        to = found["to1"] or found["to2"] or ""
        self._in_header = self._trim = False
        if to.startswith("functions.") and self._allowed:
            self.mode, self._json = "call", None
            self._name = to.removeprefix("functions.")
        elif to.startswith("functions."):
            self.mode = "text"
            self._draft.say(self._header)
        else:
            self.mode = "reasoning" if found["channel"] == "analysis" else "text"

    def _in_text(self) -> bool:
        if self._trim:  # behind a call
            self._draft.take(blank_end(self._draft.text, 0))
            self._trim = not self._draft.text
        return self._over(self._draft.say_until([*_ENDS, _START]))

    def _in_call(self) -> bool:
        """A call is told when it is complete; until then it may still be text."""
        draft = self._draft
        text, ends = draft.text, (*_ENDS, _START)
        if self._json is None:
            at = blank_end(text, 0)
            if at == len(text) and not draft.final:
                return False
            if not text.startswith("{", at):
                return self._no_call()
            self._json = JsonReader(at)
        self._json.advance(text, ends)
        if not self._json.closed:
            broken = draft.final or any(text.startswith(e, self._json.at) for e in ends)
            return self._no_call() if broken else False
        arguments = valid_arguments(text[: self._json.at])
        if arguments is None:
            return self._no_call()
        draft.take(self._json.at)
        self._trim, self.mode = True, "text"
        draft.tell_call(self._name, arguments)
        return True

    def _no_call(self) -> bool:
        """Arguments that are no JSON object: all of the message is text."""
        self._draft.say(self._header)
        self.mode = "text"
        return True
