"""Replay recorded sessions through the real cache: what would a policy keep, at what cost?

The tree, the leases and `plan` are those that serve; only the model is missing. Its state is
`Counted`: literal token ids, which know when they are wrong. Nothing here knows time: what is
counted is tokens, and equal inputs give equal counts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from everwarm.cache.cache import Cache, Lease
from everwarm.cache.policy import CachePolicy, CheckpointInfo, Rule, coverage
from everwarm.cache.tree import match
from everwarm.errors import RequestError
from everwarm.lab.traces import TracedSession, TracedTurn
from everwarm.tokens import MarkKind, Tokens, tokens_of

UNLIMITED: Final = 1 << 60
NEAR_FULL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the imagined model weighs. `token` bytes a token in layers that can be cut,
    `checkpoint` bytes in the others; `budget` for all that is kept."""

    token: int = 20_480
    checkpoint: int = 63_000_000
    budget: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class Variant:
    """A policy on trial. `is_cuttable`: for a model that needs no checkpoints at all."""

    name: str
    policy: CachePolicy
    is_cuttable: bool = False


def oldest_first(held: Sequence[CheckpointInfo]) -> int | None:
    """Drop the shallowest checkpoint, whatever it is for."""
    return 0


def least_used(held: Sequence[CheckpointInfo]) -> int | None:
    """Drop the checkpoint that was not used for longest; of those never used, the shallowest."""
    return min(range(len(held) - 1), key=lambda i: held[i].used)


def _ends(n: int, rule: Rule, *marks: MarkKind) -> CachePolicy:
    """Where prompts (with that mark) and replies end, and nowhere else."""
    return CachePolicy(n, rule, None, None, frozenset(marks), at_branches=False)


PRODUCT: Final = "16, by coverage (everwarm)"
VARIANTS: Final = (
    Variant("every layer can be cut", CachePolicy(), is_cuttable=True),
    Variant("1, the last end", _ends(1, oldest_first)),
    Variant("2, the last two ends", _ends(2, oldest_first, "prompt")),
    Variant("16 ends, by coverage", _ends(16, coverage, "prompt")),
    Variant("4, by coverage", CachePolicy(4)),
    Variant("8, by coverage", CachePolicy(8)),
    Variant(PRODUCT, CachePolicy()),
    Variant("32, by coverage", CachePolicy(32)),
    Variant("any number", CachePolicy(UNLIMITED, max_in_head=UNLIMITED)),
    Variant("16, no branch points", CachePolicy(at_branches=False)),
    Variant("16, no grid in the system prompt", CachePolicy(system_grid=None)),
    Variant("16, no grid", CachePolicy(system_grid=None, grid=None)),
    Variant("16, least used first", CachePolicy(rule=least_used)),
    Variant("16, oldest first", CachePolicy(rule=oldest_first)),
    Variant("32, oldest first", CachePolicy(32, oldest_first)),
)
"""The product, the ideal, and what takes one thing away from the product at a time."""


@dataclass(slots=True)
class Score:
    """What a policy did over all requests. Live: filled by `replay`.

    `near_full`: requests that read more than half of their prompt, first ones of a line left out.
    `lost_half`: those of them that the cache is to blame for: more than half had been read before.
    `refused`: requests whose state never fits the budget. They count as if all had been read.
    """

    policy: str
    refused: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    unseen_tokens: int = 0
    near_full: int = 0
    lost_half: int = 0
    checkpoints_taken: int = 0
    checkpoints_most: int = 0
    cache_bytes_most: int = 0

    @property
    def prefilled_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def hit(self) -> float:
        """Share of prompt tokens that were not read."""
        return self.cached_tokens / max(1, self.prompt_tokens)

    @property
    def reprocess(self) -> float:
        """Tokens read for each token that had to be."""
        return self.prefilled_tokens / max(1, self.unseen_tokens)

    def as_dict(self) -> dict[str, Any]:
        """All counts, with the ratios that people ask for."""
        return asdict(self) | {
            "prefilled_tokens": self.prefilled_tokens,
            "hit": round(self.hit, 5),
            "near_full_share": round(self.near_full / max(1, self.requests), 5),
            "reprocess_ratio": round(self.reprocess, 4),
        }


@dataclass(frozen=True, slots=True)
class SimulatedRows:
    """Rows of layers that can be cut: literal tokens."""

    tokens: Tokens[int]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Digest:
    """What the other layers hold: a number that depends on everything read."""

    value: int
    nbytes: int


class Counted:
    """A state that holds what it read, and weighs what a model's would. Live."""

    can_undo = False

    def __init__(self, sizes: Sizes, is_cuttable: bool) -> None:
        self.is_cuttable = is_cuttable
        self._sizes = sizes
        self._rows: Tokens[int] = tokens_of()
        self._digest = 0

    @property
    def length(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        fixed = 0 if self.is_cuttable else self._sizes.checkpoint
        return len(self._rows) * self._sizes.token + fixed

    def read(self, tokens: Tokens[int]) -> None:
        """Read on."""
        self._rows += tokens
        self._digest = zlib.crc32(tokens, self._digest)

    def holds(self, tokens: Tokens[int]) -> bool:
        """Whether this is the state of a model that has read exactly these tokens."""
        return self._rows == tokens and self._digest == zlib.crc32(tokens)

    @property
    def checkpoint_nbytes(self) -> int:
        return 0 if self.is_cuttable else self._sizes.checkpoint

    def rows_nbytes(self, n: int) -> int:
        return n * self._sizes.token

    def settle(self) -> None:
        pass

    def hold(self) -> None:
        pass

    def undo(self) -> None:
        raise AssertionError("nothing is read ahead here")

    def release(self, start: int, end: int) -> SimulatedRows:
        return self.cut(start, end)

    def cut(self, start: int, end: int) -> SimulatedRows:
        return SimulatedRows(self._rows[start:end], (end - start) * self._sizes.token)

    def checkpoint(self) -> Digest | None:
        return None if self.is_cuttable else Digest(self._digest, self._sizes.checkpoint)

    def rewind(self, at: int, checkpoint: Digest | None) -> None:
        del self._rows[at:]
        self.put_back(checkpoint)

    def extend(self, piece: SimulatedRows, start: int, end: int, piece_start: int) -> None:
        self._rows += piece.tokens[start - piece_start : end - piece_start]

    def put_back(self, checkpoint: Digest | None) -> None:
        if self.is_cuttable:
            self._digest = zlib.crc32(self._rows)
        elif checkpoint is not None:
            self._digest = checkpoint.value

    def fork(self, at: int, checkpoint: Digest | None) -> Counted:
        other = Counted(self._sizes, self.is_cuttable)
        other._rows = self._rows[:at]
        other._digest = self._digest
        other.put_back(checkpoint)
        return other

    def recover(self, at: int, checkpoint: Digest | None) -> bool:
        if not self.is_cuttable and checkpoint is None:
            return False
        self.rewind(at, checkpoint)
        return True

    def reserve(self) -> None:
        pass

    def reserve_to(self, rows: int) -> None:
        pass


def replay(variant: Variant, sessions: Iterable[TracedSession], sizes: Sizes, score: Score) -> None:
    """Answer all requests of these sessions in one cache, taking turns between sessions."""
    cache = Cache(
        lambda: Counted(sizes, variant.is_cuttable),
        budget=sizes.budget,
        bytes_at=lambda rows: rows * sizes.token + (not variant.is_cuttable) * sizes.checkpoint,
        policy=variant.policy,
    )
    waiting = [(s.name, iter(s.turns)) for s in sessions]
    while waiting:
        for name, turns in [*waiting]:
            turn = next(turns, None)
            if turn is None:
                waiting.remove((name, turns))
                continue
            _answer(cache, turn, name, score)


def _answer(cache: Cache, turn: TracedTurn, namespace: str, score: Score) -> None:
    rows = len(turn.tokens) + len(turn.reply)
    try:
        lease = cache.lease(turn.tokens, turn.marks, namespace, rows=rows)
    except RequestError:
        score.refused += 1
        steps = match(cache.memory.root(namespace), turn.tokens)
        _count(score, turn, 0, len(turn.tokens) - (steps[-1].upto if steps else 0))
        return
    assert isinstance(lease, Lease), "nothing is busy, so nothing is worth waiting for"
    sequence, live = lease.sequence, lease.sequence.live
    assert isinstance(live, Counted)
    assert live.holds(turn.tokens[: lease.start]), "a state came back that is not its prompt's"
    _count(score, turn, lease.start, lease.unseen)
    end = len(turn.tokens) - 1
    for to, kind in cache.stops(lease, end).items():
        sequence.prefill(turn.tokens[live.length : to])
        cache.checkpoint(lease, kind)
        score.checkpoints_taken += not live.is_cuttable
        score.checkpoints_most = max(score.checkpoints_most, _held(lease))
    sequence.prefill(turn.tokens[live.length :])
    sequence.prefill(turn.reply)
    cache.commit(lease)
    score.checkpoints_taken += not live.is_cuttable
    score.checkpoints_most = max(score.checkpoints_most, _held(lease))
    score.cache_bytes_most = max(score.cache_bytes_most, cache.nbytes)


def _held(lease: Lease) -> int:
    return sum(n.checkpoint is not None for n in lease.holder.node.path())


def _count(score: Score, turn: TracedTurn, start: int, unseen: int) -> None:
    n = len(turn.tokens)
    score.requests += 1
    score.prompt_tokens += n
    score.cached_tokens += start
    score.unseen_tokens += max(1, unseen)
    reads_most = n - start > NEAR_FULL * n and not turn.is_first
    score.near_full += reads_most
    score.lost_half += reads_most and unseen < NEAR_FULL * n
