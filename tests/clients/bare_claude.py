"""Claude Code in its terminal interface, with an address and a key: what a person types and sees.

Tools with and without a question, two calls at once, a search of the web, a reply stopped with
Escape, plan mode, and the session continued in a new process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents import agent, call
from proxy import Dictation
from terminal import Terminal, terminal

THOUGHT = "<think>Let me think.</think>"
LONG = "word " * 4000
PROPOSED = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"


def seed(home: Path, project: Path, key: str) -> None:
    """What a person has answered before: the first start's questions, the key, the folder."""
    known = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [key], "rejected": []},
        "projects": {str(project): {"hasTrustDialogAccepted": True}},
    }
    (home / ".claude.json").write_text(json.dumps(known))


@dataclass(slots=True)
class ClaudeSession:
    """A person at the terminal. Changes as it goes; owned by the main thread."""

    project: Path
    env: Mapping[str, str]
    said: Dictation

    def go(self) -> None:
        with self._started() as shown:
            self._say(shown, "Look around.", self._looks(), "All is done.")
            self._say(shown, "And what is in it?", self._reads(), "Two words.")
            self._say(shown, "Look it up.", self._searches(), "It is not known.")
            self._stop(shown, "Tell me all about it.")
            self._say(shown, "Tell me all about it.", [f"{THOUGHT}That was all."], "That was all.")
            self._plan(shown)
            self._say(shown, "Plan it.", [f"{THOUGHT}There is no need."], "There is no need.")
        with self._started("--continue") as shown:
            self._say(shown, "What was it like?", [f"{THOUGHT}It is deep."], "It is deep.")
        assert (self.project / "made.txt").read_text() == "one\ntwo\n"

    @contextmanager
    def _started(self, *arguments: str) -> Iterator[Terminal]:
        with terminal(["claude", *arguments], self.project, self.env) as shown:
            shown.wait(lambda s: "shortcuts" in s or "shift+tab" in s, "ready")
            yield shown
            shown.type("/exit")
            shown.wait(lambda _: shown.ended(), "ended")

    def _say(self, shown: Terminal, text: str, replies: list[str], expected: str) -> None:
        """Type it, say yes to whatever is asked, and wait for the reply."""
        self.said.replies = [*replies]
        shown.type(text)

        def answered(screen: str) -> bool:
            asked = screen.rstrip()[-400:]
            if "Esc to cancel" in asked:
                if PROPOSED + " No" in asked:  # where nothing checks what a tool does
                    shown.press("Down")
                shown.press("Enter")
                time.sleep(3)  # or the next question is answered unread
            return expected in screen and not self.said.replies

        shown.wait(answered, f"answered with {expected!r}")

    def _plan(self, shown: Terminal) -> None:
        """One mode after the other, until it is plan mode."""

        def planning(screen: str) -> bool:
            if "plan mode on" in screen:
                return True
            shown.press("BTab")
            time.sleep(3)
            return False

        shown.wait(planning, "in plan mode")

    def _stop(self, shown: Terminal, text: str) -> None:
        self.said.replies = [f"{THOUGHT}{LONG}"]
        shown.type(text)
        shown.wait(lambda _: not self.said.replies and self.said.words > 50, "writing")
        with self._interrupted(shown):
            shown.press("Escape")

    @contextmanager
    def _interrupted(self, shown: Terminal) -> Iterator[None]:
        before = shown.screen().count("Interrupted")
        yield
        shown.wait(lambda s: s.count("Interrupted") > before, "interrupted")

    def _looks(self) -> list[str]:
        shell = agent("claude").shell
        assert shell is not None
        both = shell("echo one > made.txt") + shell("echo two >> made.txt")
        return [
            f"{THOUGHT}I look.{shell('ls')}",
            f"{THOUGHT}{shell('cat lake.txt')}",
            f"{THOUGHT}\n\nBoth. {both}",
            f"{THOUGHT}All is done.",
        ]

    def _reads(self) -> list[str]:
        read = call("Read", file_path=str(self.project / "made.txt"))
        return [f"{THOUGHT}{read}", f"{THOUGHT}Two words."]

    def _searches(self) -> list[str]:
        """It asks for the search in a request of its own, with a tool that Anthropic would run."""
        search = call("WebSearch", query="the lake")
        return [f"{THOUGHT}{search}", "Nothing was found.", f"{THOUGHT}It is not known."]
