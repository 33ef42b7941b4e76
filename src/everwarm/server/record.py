"""A turn's record in the making, and what else a turn leaves behind."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from everwarm.config import Settings
from everwarm.events import SCAFFOLD, Finish, Miss, TurnRecord, beyond_new
from everwarm.job import Ended, Leased
from everwarm.messages import Message, MessageId
from everwarm.prompt.parse import ReplyParser
from everwarm.tokens import Prompt, Tokens, tokens_of


@dataclass(slots=True)
class Trace:
    """What a turn leaves behind, for who wants to find it again. Filled while it runs.

    `tokens`: all that was read and written; `messages`: what the prompt was made of; `thread`,
    `reply`: as in `replies.Kept`.
    """

    tokens: Tokens[int] = field(default_factory=tokens_of)
    messages: tuple[Message, ...] = ()
    thread: MessageId | None = None
    reply: MessageId | None = None
    record: TurnRecord | None = None


def without_words(record: TurnRecord) -> TurnRecord:
    """A miss may show what another conversation said instead."""
    return replace(record, miss=replace(record.miss, before="")) if record.miss else record


def log_line(record: TurnRecord) -> str:
    """A record in one line, without any text of the conversation."""
    shown = {k: v for k, v in asdict(record).items() if v is not None}
    if record.miss:
        shown["miss"] = f"{record.miss.part}: {record.miss.cause}"
    shown["ignored"] = ",".join(record.ignored)
    return " ".join(f"{k}={_short(v)}" for k, v in shown.items())


def _short(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text else text


def near_scaffold(prompt: Prompt, record: TurnRecord) -> Miss | None:
    """Where all messages were warm, and only what opens the reply was read once more.

    Layers that cannot be cut go back to a checkpoint, and none is worth its bytes so near the end.
    """
    last = max((m.at for m in prompt.marks if m.kind != "prompt"), default=0)
    end = min((m.at for m in prompt.marks if m.kind == "prompt" and m.at >= last), default=None)
    if end is None or record.cached_tokens < end:
        return None
    cause = f"{record.prefilled_tokens} tokens to the nearest checkpoint: what opens the reply"
    return Miss(at=record.cached_tokens, part=SCAFFOLD, cause=cause)


def lost(record: TurnRecord, settings: Settings, known: int | None) -> Miss:
    """A miss where the text is what it was, up to `known` tokens of what was read before."""
    at, part = record.cached_tokens, "cache"
    if known is not None and known <= record.cached_tokens:
        part = "branch"
        cause = "what was said before stands behind other messages now, where it was never read"
    elif not settings.cache:
        cause = "the cache is off (--no-cache)"
    elif record.cached_tokens:
        cause = "nothing nearer can be restored: it was let go, or lies between two checkpoints"
    else:
        cause = "it was let go for other conversations, or the server was started since"
    return Miss(at=at, part=part, cause=cause)


class RecordBuilder:
    """A TurnRecord in the making."""

    def __init__(
        self, turn_id: str, model: str, arrived: float, parse_s: float, trace: Trace
    ) -> None:
        self._arrived, self.trace = arrived, trace
        self.record = TurnRecord(
            id=turn_id, model=model, at=time.time(), finish="cancelled", parse_s=parse_s
        )
        self.miss: Future[Miss | None] | None = None

    def set(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)

    def made(self, prompt: Prompt) -> None:
        """The prompt stands: what it holds is known before anything is read."""
        trace = self.trace
        trace.tokens, trace.thread = prompt.tokens[:], prompt.thread
        trace.messages = prompt.messages
        self.set(
            prompt_tokens=len(prompt.tokens),
            new_tokens=prompt.new_tokens,
            sticky_reminders=prompt.reminded,
            tools_from="conversation" if prompt.kept_tools else "request",
        )

    def leased(self, out: Leased) -> None:
        self.set(
            cached_tokens=out.cached_tokens,
            prefilled_tokens=self.record.prompt_tokens - out.cached_tokens,
            unseen_tokens=out.unseen_tokens,
            cached_from=out.cached_from,
            wait_s=out.wait_s,
            restore_s=out.restore_s,
        )

    def left(self, done: int) -> None:
        """The client went away with `done` tokens of the prompt read: the rest is not this turn's.

        What the engine reads of the step under way is kept, and not counted.
        """
        if self.record.ttft_s is None:
            self._was_read(max(done - self.record.cached_tokens, 0))

    def _was_read(self, n: int) -> None:
        self.set(prefilled_tokens=n, unseen_tokens=min(n, self.record.unseen_tokens))

    def first_token(self) -> None:
        if self.record.ttft_s is None:
            self.set(ttft_s=time.perf_counter() - self._arrived)

    def ended(self, out: Ended, parser: ReplyParser) -> None:
        finish: Finish = out.reason
        if parser.stopped:
            finish = "stop"
        if finish == "stop" and parser.has_calls:
            finish = "tool_calls"
        self._was_read(out.prefilled_tokens)
        self.set(
            finish=finish,
            prefill_s=out.prefill_s,
            decode_s=out.decode_s,
            commit_s=out.commit_s,
            thinking_cut=out.thinking_cut,
        )

    def finish(self, reason: Finish, error: str | None = None) -> None:
        again = beyond_new(self.record.prefilled_tokens, self.record.new_tokens)
        total_s = time.perf_counter() - self._arrived
        self.set(again=again, finish=reason, error=error, total_s=total_s)
