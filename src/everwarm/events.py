"""What happens while a request is answered. A reply is the fold of its events.

The order of a turn's events:

    Started  Progress*  (TextDelta | ReasoningDelta | CallStart CallDelta* CallEnd)*  Finished

or an exception at any point. Streamed and unstreamed answers are made of the same events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from everwarm.messages import Message

Finish = Literal["stop", "length", "tool_calls", "cancelled", "error", "engine_died"]
"""`engine_died`: its process ended while the turn ran, which is no fault of the request."""
SCAFFOLD: Final = "scaffold"
"""A miss's part: what a template writes between the last message and the reply."""
CachedFrom = Literal["nothing", "live", "rewind", "fork", "pieces", "disk"]
"""Where cached tokens came from: the conversation's own live state, moved (`live`); a live state
cut back (`rewind`); a copy of part of one (`fork`); pieces resting in memory (`pieces`); files
(`disk`)."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of the reply with its log-probability and the likeliest alternatives."""

    token: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The request is taken up, and nothing is read yet. `ignored`: as in `TurnRecord`."""

    prompt_tokens: int
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` prompt tokens are read, or were in the cache.

    `waits`: what the turn waits for, for people; "" where it does not.
    """

    done: int
    total: int
    cached: int
    waits: str = ""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer. `text` may be empty where only log-probabilities arrive."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins; its name is known. `index` counts the reply's calls from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of a call's JSON arguments; empty where they arrive only at its end: still alive."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is complete: all its `CallDelta`s joined are its arguments, as JSON text."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """Why a turn read more than what was new in it.

    The prompt differs from what this model read last in the conversation at token `at`, in `part`
    ("tools", "system", "message 7 (user)"): there stood `before`, now `after` (texts from a little
    in front of the difference on). Both are empty where nothing differs and the cache lost it, and
    `before` where it is another conversation's.
    `cause` says it in words. `by_text` tokens were lost by the difference, `by_cache` by eviction
    or by the distance to a position that can be restored.
    """

    at: int
    part: str
    cause: str
    before: str = ""
    after: str = ""
    by_text: int = 0
    by_cache: int = 0

    @property
    def is_scaffold(self) -> bool:
        """Nothing was lost: a checkpoint stands in front of what opens a reply, and not behind."""
        return self.part == SCAFFOLD


def beyond_new(prefilled_tokens: int, new_tokens: int) -> int:
    """A turn's `TurnRecord.again`, in tokens."""
    return max(0, prefilled_tokens - max(1, new_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """What one answered request cost. Recorded once; all counts shown anywhere come from here.

    - `new_tokens`: what the client added to the conversation, counted from messages. A conversation
      is its chain from the root, tools and system prompt included: under another one all is new,
      replies that were given elsewhere among it.
    - `unseen_tokens`: positions that this model has never read, counted from the tree.
    - `prefilled_tokens`: what was really read before the first new token (at least 1).
    - `cached_tokens` = `prompt_tokens` - `prefilled_tokens`, unless the client left while its
      prompt was read: then `prefilled_tokens` and `unseen_tokens` count what was read by then.
    - `again`: tokens read beyond what was new, `prefilled_tokens` - `new_tokens` and never below 0;
      of a turn with nothing new the one token that must be read is not among them. Added up turn by
      turn: what one turn reads less than is new makes up for nothing in another.

    `sticky_reminders`: so many messages of the prompt keep a reminder that the client took out.
    `tools_from`: `conversation` where the request brought no tools but continues a conversation
    that has some: they are shown to the model, and calls are made impossible. `miss`: where more
    was read than was new, and where a conversation that goes on is a new one to this server.
    `thinking_cut`: the thinking budget was spent and closed the reasoning; its end marker is among
    `reasoning_tokens`. `ignored`: paths of fields that the client sent and that were not used,
    since the answer is the same without them.

    Phases are in seconds, on a monotonic clock, and follow each other: `parse_s` body to request,
    `render_s` request to tokens, `wait_s` until the engine took it up, `restore_s` match and
    restore, `prefill_s`, `decode_s` (first token to last), `commit_s`. `ttft_s` runs from the
    request's arrival to its first token.
    """

    id: str
    model: str
    at: float
    finish: Finish
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefilled_tokens: int = 0
    new_tokens: int = 0
    unseen_tokens: int = 0
    again: int = 0
    sticky_reminders: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    thinking_cut: bool = False
    cached_from: CachedFrom = "nothing"
    tools_from: Literal["request", "conversation"] = "request"
    miss: Miss | None = None
    ignored: tuple[str, ...] = ()
    parse_s: float = 0.0
    render_s: float = 0.0
    wait_s: float = 0.0
    restore_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    commit_s: float = 0.0
    ttft_s: float | None = None
    total_s: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a turn. `reason` is honest: `length` only where the reply was cut.

    `reply`: what the turn's other events add up to. `stop`: the stop text that ended the reply,
    where one did.
    """

    reason: Finish
    record: TurnRecord
    reply: Message
    stop: str | None = None


Event = Started | Progress | TextDelta | ReasoningDelta | CallStart | CallDelta | CallEnd | Finished
