"""What a turn leaves behind, while it is being made."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from everwarm.events import Finish, Miss, TurnRecord
from everwarm.job import Ended, Leased
from everwarm.messages import MessageId
from everwarm.prompt.parse import ReplyParser
from everwarm.tokens import Tokens, tokens_of


@dataclass(slots=True)
class Trace:
    """What a turn leaves behind, for who wants to find it again. Filled while it runs.

    `tokens`: all that was read and written; `thread`, `reply`: as in `replies.Kept`.
    """

    tokens: Tokens[int] = field(default_factory=tokens_of)
    thread: MessageId | None = None
    reply: MessageId | None = None
    record: TurnRecord | None = None


class Draft:
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

    def leased(self, out: Leased) -> None:
        self.set(
            cached_tokens=out.cached_tokens,
            prefilled_tokens=self.record.prompt_tokens - out.cached_tokens,
            unseen_tokens=out.unseen_tokens,
            cached_from=out.cached_from,
            wait_s=out.wait_s,
            restore_s=out.restore_s,
        )

    def first_token(self) -> None:
        if self.record.ttft_s is None:
            self.set(ttft_s=time.perf_counter() - self._arrived)

    def ended(self, out: Ended, parser: ReplyParser) -> None:
        finish: Finish = out.reason
        if parser.stopped:
            finish = "stop"
        if finish == "stop" and parser.has_calls:
            finish = "tool_calls"
        self.set(
            finish=finish,
            prefilled_tokens=out.prefilled_tokens,
            prefill_s=out.prefill_s,
            decode_s=out.decode_s,
            commit_s=out.commit_s,
            thinking_cut=out.thinking_cut,
        )

    def finish(self, reason: Finish, error: str | None = None) -> None:
        self.set(finish=reason, error=error, total_s=time.perf_counter() - self._arrived)
