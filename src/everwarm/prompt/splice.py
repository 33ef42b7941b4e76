"""What follows a remembered reply, for any chat template.

The conversation is rendered with a sentinel in place of the reply: in its text, or in a call's
arguments. What follows the reply begins with the first end of a turn behind the sentinel. No
template is known by name here; `proof.py` proves each when its model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.messages import Message, Text, ToolCall
from everwarm.prompt.dialects.scan import shared_length
from everwarm.prompt.quote import Quotes, too_deep
from everwarm.prompt.template_input import Dicts, Habits, in_parts, shaped, shaped_tools

SENTINEL = "XQZJVKEVERWARMSENTINELKVJZQX"
LONG = 32
"""With more messages before a reply, the template is shown a shortened history, where proved."""
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>", "<|end|>",
              "<|return|>", "<|call|>", "</s>", "<|endoftext|>", "<|end_of_text|>")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """What a conversation is rendered with, besides its messages.

    `now`: the time that the template may ask for; a fixed one where the template is only probed.
    """

    tools: Dicts | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    now: datetime = datetime(2001, 2, 3)


class Splicer:
    """Renders with one template. Texts are quoted (`quote.py`), so only it can end a turn.

    `probe.py` and `proof.py` set the following when the model is loaded; nothing changes later:

    - `habits`: what the template accepts. `ends`: what may end a turn. `opens`: control tokens
      around users' turns.
    - `short`: a shortened history gives the same text.
    - `tools_once`, `system_once`: it moves tools, or the system prompt, behind old replies.
    """

    def __init__(self, codec: Codec, quotes: Quotes | None = None) -> None:
        self.codec = codec
        self.quotes = quotes or Quotes(())
        self.habits = Habits()
        self.short = False
        self.tools_once = False
        self.system_once = False
        ends = {codec.decode([i]) for i in codec.eos_ids}
        self.opens: Set[str] = frozenset()
        self.ends = sorted(ends | {t for t in _TURN_ENDS if t in codec.special_texts})

    def render(self, messages: Sequence[Message], frame: Frame, *, scaffold: bool = True) -> str:
        """The template's text, quoted. Raises RequestError where it refuses."""
        quotes = self.quotes
        try:
            tools = shaped_tools(frame.tools, self.habits)
        except RecursionError:
            raise too_deep("A tool's parameters are", "tools") from None
        dicts = quotes.messages(shaped(messages, self.habits))
        return self.codec.render(
            [in_parts(d) for d in dicts] if self.habits.text_parts else dicts,
            quotes.tools(tools) if tools else tools,
            scaffold=scaffold,
            args=quotes.args(frame.args),
            now=frame.now,
        )

    def behind(
        self, messages: Sequence[Message], k: int, frame: Frame, *, short: bool | None = None
    ) -> str | None:
        """The text from the end of reply k's turn on, or None where that is not certain.

        A template that writes tools or system prompt anew before each user message is not shown
        them again.
        """
        if self.tools_once:
            frame = replace(frame, tools=None)
        if self.system_once:
            n = next((i for i, m in enumerate(messages) if m.role != "system"), 0)
            messages, k = messages[n:], k - n
        if short if short is not None else self.short and k > LONG:
            messages, k = _shortened(messages, k)
        for marked in self._marked(messages[k]):
            history = [*messages[:k], marked]
            try:
                text = self.render([*history, *messages[k + 1 :]], frame)
                if text.count(SENTINEL) != 1:
                    continue
                tail = self._tail(text, messages, k)
                if tail is None and marked.tool_calls:
                    tail = self._behind_calls(text, self.render(history, frame, scaffold=False))
            except RequestError:
                continue
            if tail is not None:
                return tail
        return None

    def _behind_calls(self, text: str, alone: str) -> str | None:
        """What follows a reply with calls in a template that writes no end of turn behind them.

        … sentinel "}]          `alone`, the history up to the reply: what closes its calls
        … sentinel "}] <|turn|> `text`, the whole history: both share what ends the reply
        """
        behind, closing = text.partition(SENTINEL)[2], alone.partition(SENTINEL)[2]
        shared = shared_length(behind, closing)
        opened = [i for o in self.opens if (i := behind.find(o, 0, shared)) >= 0]
        if opened:
            return behind[min(opened) :]
        return behind[shared:] if SENTINEL in alone and shared == len(closing) else None

    def _marked(self, reply: Message) -> Iterator[Message]:
        """The reply with the sentinel in place of its words, in each form to be tried.

        Calls stay, since templates may look up what a tool message answers.
        """
        calls, text = reply.tool_calls, Text(SENTINEL)
        if calls:
            kept = calls if self.habits.parallel_calls else calls[:1]
            arguments = json.dumps({"value": SENTINEL})
            yield Message("assistant", (*kept[:-1], replace(kept[-1], arguments=arguments)))
            yield Message("assistant", (text, *kept))
        else:
            yield Message("assistant", (text,))

    def _tail(self, text: str, messages: Sequence[Message], k: int) -> str | None:
        at = text.index(SENTINEL) + len(SENTINEL)
        end = self.turn_end(text, at)
        between = self.quotes.unquoted(text[at:end])
        if end is not None and not between.strip():
            return text[end:]
        if not messages[k].tool_calls:
            return text[at:]  # the template writes no end of turn: the reply ends with the sentinel
        follows = messages[k + 1].text.strip() if k + 1 < len(messages) else ""
        certain = end is not None and not (follows and follows in between)
        return text[end:] if certain else None

    def turn_end(self, text: str, at: int = 0) -> int | None:
        """Where a turn ends in this text from `at` on; None where no end is written."""
        return min((i for e in self.ends if e and (i := text.find(e, at)) >= 0), default=None)


def _shortened(messages: Sequence[Message], k: int) -> tuple[list[Message], int]:
    """The history without what lies between its first user message and reply k."""
    first = next((i for i, m in enumerate(messages) if m.role == "user"), k)
    head = list(messages[: min(first + 1, k)])
    return [*head, *messages[k:]], len(head)


def call(name: str, call_id: str, **arguments: object) -> ToolCall:
    """A call with these arguments."""
    return ToolCall(call_id, name, json.dumps(arguments))
