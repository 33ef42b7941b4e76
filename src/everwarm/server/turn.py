"""One turn, from the request that asks for it to the record of what it cost.

It is told what happens, gives the events that its client hears, and keeps what a recorder wants of
it. Not here: who makes it happen (`turns.py`), and who writes it down (`chat/`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from everwarm.errors import Cancelled, EngineDied, EverwarmError
from everwarm.events import (
    Event,
    Finish,
    Finished,
    Miss,
    Progress,
    Started,
    TurnRecord,
    beyond_new,
)
from everwarm.job import Ended, Failed, Leased, Output, Prefilled, Token, Waits
from everwarm.messages import Message, MessageId
from everwarm.prompt.parse import ReplyParser
from everwarm.replies import reply_id
from everwarm.tokens import Prompt, Tokens, tokens_of


class Turn:
    """A turn on its way, told what happens in this order:

        begin  rendered  made  take(output)*  explained  finished
                                              left | failed, at any point

    Live: event loop only. Whoever makes it may cancel it before it begins. `tokens` is all that
    was read and written. `record` is None until the turn is over. `arrived`, on the clock of
    `perf_counter`: when its request came; None: when it begins.
    """

    def __init__(self, id: str, *, arrived: float | None = None, parse_s: float = 0.0) -> None:
        self.id = id
        self.is_cancelled = self.is_over = False
        self.completion = 0
        self._waits = ""
        self.prompt: Prompt | None = None
        self.tokens: Tokens[int] = tokens_of()
        self.record: TurnRecord | None = None
        self._arrived, self._began, self._made = arrived, 0.0, math.inf
        self._done = self._total = self._n_begun = self._n_reasoned = 0
        self._parser: ReplyParser | None = None
        self._draft = TurnRecord(id=id, model="", at=0.0, finish="cancelled", parse_s=parse_s)

    # --- what happens to it ---

    def begin(self, model: str, ignored: tuple[str, ...]) -> None:
        """The request is taken up."""
        self._began = time.perf_counter()
        if self._arrived is None:
            self._arrived = self._began
        self._set(model=model, at=time.time(), ignored=ignored)

    def rendered(self) -> None:
        """The request's texts are tokens, and its grammar is compiled."""
        self._set(render_s=time.perf_counter() - self._began)

    def made(
        self, prompt: Prompt, parser: ReplyParser, begun: Tokens[int] | None = None
    ) -> Started:
        """The prompt stands: what it holds is known before anything is read.

        `begun`: the reply's tokens that are there already; `parser` has read them.
        """
        self.prompt, self.tokens, self._parser = prompt, prompt.tokens[:], parser
        self._made = time.perf_counter()
        self.tokens += begun or tokens_of()
        self._n_begun, self._n_reasoned = parser.n_tokens, parser.n_reasoning
        self._set(
            prompt_tokens=len(self.tokens),
            new_tokens=prompt.new_tokens,
            sticky_reminders=prompt.reminded,
            tools_from="conversation" if prompt.kept_tools else "request",
        )
        return Started(len(self.tokens), self._draft.ignored)

    def take(self, output: Output) -> Sequence[Event]:
        """The engine says something of the turn's job. Raises the error of a job that failed."""
        assert self._parser is not None, "a turn has a prompt before it has a job"
        self._waits = ""
        match output:
            case Waits(why):
                self._waits = why
                return [Progress(self._done, self._draft.prompt_tokens, 0, self._waits)]
            case Leased(cached):
                self._leased(output)
                return [Progress(cached, self._draft.prompt_tokens, cached)]
            case Prefilled(done, total):
                self._done, self._total = done, total
                return [Progress(done, total, self._draft.cached_tokens)]
            case Token(token):
                if self._draft.ttft_s is None:
                    self._set(ttft_s=self._since_arrival())
                self.tokens.append(token)
                self.completion += 1
                return self._parser.feed(output)
            case Ended():
                events = self._parser.finish()
                self._ended(output, self._parser)
                return events
            case Failed(error):
                raise error

    def explained(self, miss: Miss | None) -> None:
        """It is known why more was read than was new."""
        self._set(miss=miss)

    def finished(self) -> Finished:
        """All is done and kept. The turn's last event."""
        stop = self._parser.stop_text if self._parser else None
        return Finished(self._draft.finish, self.close(), self.reply, stop)

    def left(self) -> None:
        """The client went away: what is not read of the prompt by now is not this turn's.

        What the engine reads of the step under way is kept, and not counted.
        """
        self._was_read_so_far()
        self._set(finish="cancelled")
        self.close()

    def failed(self, error: EverwarmError) -> None:
        """The turn cannot go on."""
        finish: Finish = "cancelled" if isinstance(error, Cancelled) else "error"
        if isinstance(error, EngineDied):
            finish = "engine_died"
            self._was_read_so_far()
        self._set(finish=finish, error=error.message)
        self.close()

    def close(self) -> TurnRecord:
        """The record, which is complete from now on."""
        if self.record is None:
            read, parser = self._draft, self._parser
            self.record = replace(
                read,
                completion_tokens=parser.n_tokens - self._n_begun if parser else 0,
                reasoning_tokens=parser.n_reasoning - self._n_reasoned if parser else 0,
                again=beyond_new(read.prefilled_tokens, read.new_tokens),
                total_s=self._since_arrival(),
            )
        return self.record

    # --- what is known of it ---

    @property
    def so_far(self) -> TurnRecord:
        """The record as far as it is known."""
        return self._draft

    @property
    def is_stopped(self) -> bool:
        """Whether a stop text ended the reply: only the parser knows what is text of the answer."""
        return self._parser is not None and self._parser.stopped

    @property
    def thread(self) -> MessageId | None:
        """The conversation that the prompt continues."""
        return self.prompt.thread if self.prompt else None

    @property
    def reply(self) -> Message:
        """The reply so far, as far as it was told."""
        return self._parser.message if self._parser else Message("assistant", ())

    @property
    def reply_tokens(self) -> list[int]:
        """The reply's tokens to remember: with a stop text, those that end before it.

        None of a raw prompt's reply, which belongs to no conversation.
        """
        is_raw = self.prompt is None or not self.prompt.messages
        return [] if is_raw or self._parser is None else self._parser.ids

    @property
    def reply_id(self) -> MessageId | None:
        """The id under which the reply is remembered; None where there is none to remember."""
        if self.prompt is None or not self.reply_tokens:
            return None
        return reply_id(self.prompt.head, self.reply)

    def progress(self) -> dict[str, Any]:
        """How far it is, for people who watch the server."""
        return {
            "id": self.id,
            "is_cancelled": self.is_cancelled,
            "done": self._done,
            "total": self._total,
            "completion": self.completion,
            "waits": self._waits,
        }

    # --- within ---

    def _leased(self, output: Leased) -> None:
        self._set(
            cached_tokens=output.cached_tokens,
            prefilled_tokens=self._draft.prompt_tokens - output.cached_tokens,
            unseen_tokens=output.unseen_tokens,
            cached_from=output.cached_from,
            wait_s=max(output.wait_s, time.perf_counter() - self._made - output.restore_s),
            restore_s=output.restore_s,
        )

    def _ended(self, output: Ended, parser: ReplyParser) -> None:
        finish: Finish = "stop" if parser.stopped else output.reason
        if finish == "stop" and parser.has_calls:
            finish = "tool_calls"
        self._was_read(output.prefilled_tokens)
        self._set(
            finish=finish,
            prefill_s=output.prefill_s,
            decode_s=output.decode_s,
            commit_s=output.commit_s,
            thinking_cut=output.thinking_cut,
        )
        self.is_over = True

    def _was_read(self, n: int) -> None:
        self._set(prefilled_tokens=n, unseen_tokens=min(n, self._draft.unseen_tokens))

    def _was_read_so_far(self) -> None:
        """Count what is read of the prompt by now, where that is not all of it."""
        if self._draft.ttft_s is None:
            self._was_read(max(self._done - self._draft.cached_tokens, 0))

    def _since_arrival(self) -> float:
        return time.perf_counter() - (self._arrived or 0.0)

    def _set(self, **changes: Any) -> None:
        self._draft = replace(self._draft, **changes)
