"""A terminal chat against a running server. On a pipe it reads its lines from stdin."""

from __future__ import annotations

import sys
from contextlib import closing

from rich.console import Console

from everwarm.client import ChatClient, ChatReply, Delta
from everwarm.errors import EverwarmError

HELP = "/new starts over, /regenerate asks again, /exit leaves, Ctrl-C stops a reply."


class Chat:
    """One conversation with one server. Live: its messages grow with every turn."""

    def __init__(
        self,
        client: ChatClient,
        *,
        model: str,
        system: str | None = None,
        out: Console | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self._head = [{"role": "system", "content": system}] if system else []
        self._out = out or Console(highlight=False, soft_wrap=True)
        self.messages = list(self._head)

    def run(self) -> None:
        """Read lines and answer them until /exit, the end of input, or Ctrl-C at the prompt."""
        interactive = sys.stdin.isatty()
        if interactive:
            import readline  # noqa: F401 - gives input() its line editing

            self._out.print(f"{self._model}. {HELP}", style="dim")
        while (line := _read_line(interactive)) is not None and self.take(line):
            pass

    def take(self, line: str) -> bool:
        """Do what one line says. False: the chat is over."""
        match line.strip():
            case "":
                pass
            case "/exit":
                return False
            case "/new":
                self.messages = list(self._head)
                self._out.print("A new conversation.", style="dim")
            case "/regenerate":
                self._regenerate()
            case text if text.startswith("/"):
                self._out.print(HELP, style="dim")
            case text:
                self.messages.append({"role": "user", "content": text})
                self._answer()
        return True

    def _regenerate(self) -> None:
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        if self.messages and self.messages[-1]["role"] == "user":
            self._answer()
        else:
            self._out.print("There is no reply to ask for again.", style="dim")

    def _answer(self) -> None:
        """Ask for the next reply and keep what arrived of it, also if it was stopped."""
        said: list[str] = []
        reply: ChatReply | None = None
        try:
            with closing(self._client.chat(self.messages, model=self._model)) as events:
                for event in events:
                    if isinstance(event, ChatReply):
                        reply = event
                    else:
                        self._print(event, said)
        except KeyboardInterrupt:
            self._out.print("\nstopped", style="dim")
        except EverwarmError as error:
            self._out.print(f"\n{error.message}", style="red", markup=False)
        if said:
            self.messages.append({"role": "assistant", "content": "".join(said)})
        elif reply is None and self.messages[-1]["role"] == "user":
            self.messages.pop()  # nothing was answered, so nothing was said
        if reply is not None:
            self._out.print(f"\n{cost(reply)}", style="dim")

    def _print(self, delta: Delta, said: list[str]) -> None:
        if delta.kind == "text":
            said.append(delta.text)
        style = "dim" if delta.kind == "reasoning" else None
        self._out.print(delta.text, end="", style=style, markup=False)


def cost(reply: ChatReply) -> str:
    """What a turn cost, in one line."""
    parts = [f"{reply.cached_tokens:,} cached", f"{reply.prefilled_tokens:,} read"]
    if reply.ttft_s is not None:
        parts.insert(0, f"{reply.ttft_s:.2f} s to first token")
    if reply.decode_tps is not None:
        parts.append(f"{reply.decode_tps:.0f} tok/s")
    return " · ".join(parts)


def _read_line(interactive: bool) -> str | None:
    """The next line, or None at the end of input."""
    try:
        return input("> ") if interactive else input()
    except (EOFError, KeyboardInterrupt):
        return None
