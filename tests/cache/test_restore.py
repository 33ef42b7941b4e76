"""The restore plan and the tree, on states that are nothing but literal token ids."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from everwarm.cache import tree
from everwarm.cache.admission import NoRoom
from everwarm.cache.cache import Cache, Lease
from everwarm.errors import RequestError
from everwarm.tokens import Mark, Tokens, common_length, tokens_of


@dataclass
class Rows:
    """A resting piece: literal tokens."""

    tokens: list[int]

    @property
    def nbytes(self) -> int:
        return 10 * len(self.tokens)


@dataclass
class Literal:
    """A state that holds what it read, and counts what it copied. `other` stands for layers that
    cannot be cut: it is right only where a checkpoint was put back."""

    is_cuttable: bool = True
    rows: list[int] = field(default_factory=list)
    other: list[int] = field(default_factory=list)
    copied: int = 0

    @property
    def length(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        return 10 * len(self.rows)

    def read(self, tokens: Tokens[int]) -> None:
        self.rows += tokens
        self.other += tokens

    can_undo = False

    @property
    def checkpoint_nbytes(self) -> int:
        return 0 if self.is_cuttable else 10 * len(self.other)

    def rows_nbytes(self, n: int) -> int:
        return 10 * n

    def settle(self) -> None:
        pass

    def release(self, start: int, end: int) -> Rows:
        return self.cut(start, end)

    def cut(self, start: int, end: int) -> Rows:
        self.copied += end - start
        return Rows(self.rows[start:end])

    def checkpoint(self) -> Rows | None:
        return None if self.is_cuttable else Rows(list(self.other))

    def rewind(self, at: int, checkpoint: Rows | None) -> None:
        del self.rows[at:]
        self.put_back(checkpoint)

    def extend(self, piece: Rows, start: int, end: int, piece_start: int) -> None:
        assert len(self.rows) == start
        self.rows += piece.tokens[start - piece_start : end - piece_start]

    def put_back(self, checkpoint: Rows | None) -> None:
        if self.is_cuttable:
            self.other = list(self.rows)
        elif checkpoint is not None:
            self.other = list(checkpoint.tokens)

    def fork(self, at: int, checkpoint: Rows | None) -> Literal:
        other = Literal(self.is_cuttable, self.rows[:at], copied=at)
        other.put_back(checkpoint if checkpoint is not None else Rows(list(self.other)))
        return other

    def recover(self, at: int, checkpoint: Rows | None) -> bool:
        if not self.is_cuttable and checkpoint is None:
            return False
        self.rewind(at, checkpoint)
        return True

    def reserve(self) -> None:
        pass


def make(cuttable: bool, budget: int = 1 << 30) -> Cache:
    return Cache(lambda: Literal(cuttable), budget=budget)


def open_(cache: Cache, tokens: Tokens[int], marks: tuple[Mark, ...] = ()) -> Lease:
    lease = cache.lease(tokens, marks)
    assert isinstance(lease, Lease)
    state = lease.sequence.live
    assert isinstance(state, Literal)
    assert state.rows == state.other == list(tokens[: lease.start])
    return lease


def read(cache: Cache, tokens: Tokens[int], marks: tuple[Mark, ...] = ()) -> Lease:
    """Answer a prompt: read the rest, checkpoint at marks, commit."""
    lease = open_(cache, tokens, marks)
    for to in sorted({m.at for m in marks if m.at > lease.start} | {len(tokens)}):
        lease.sequence.prefill(tokens[lease.sequence.length : to])
        if to < len(tokens):
            cache.checkpoint(lease, "user")
    cache.commit(lease)
    return lease


def seq(*parts: tuple[int, int]) -> Tokens[int]:
    return tokens_of(k * 1000 + i for k, n in parts for i in range(n))


@pytest.mark.parametrize("cuttable", [True, False])
def test_extension_moves_the_state_and_copies_nothing(cuttable: bool) -> None:
    cache = make(cuttable)
    first = seq((1, 100))
    state = read(cache, first).sequence.live
    again = read(cache, first + seq((2, 20)))
    assert again.sequence.live is state
    assert again.start == 100 and again.cached_from == "live" and again.unseen == 20
    assert state.copied == 0  # type: ignore[attr-defined]


def test_branch_costs_what_differs_and_the_other_stays() -> None:
    cache = make(True)
    a, b = seq((1, 100), (2, 20)), seq((1, 100), (3, 20))
    state = read(cache, a).sequence.live
    assert read(cache, b).start == 100
    assert state.copied == 20  # type: ignore[attr-defined]
    back = read(cache, a + seq((4, 5)))
    assert back.start == 120 and back.unseen == 5


def test_checkpoints_decide_where_other_layers_are_involved() -> None:
    cache = make(False)
    a = seq((1, 100), (2, 20))
    read(cache, a, (Mark(60, "user"),))
    assert read(cache, seq((1, 90), (3, 20))).start == 60
    assert read(cache, a + seq((4, 5))).start == 120


def test_repeated_request_reads_one_token() -> None:
    cache = make(True)
    read(cache, seq((1, 100)))
    again = read(cache, seq((1, 100)))
    assert again.start == 99 and again.unseen == 0


def test_busy_state_is_forked_not_read_again() -> None:
    cache = make(True)
    busy = open_(cache, seq((1, 100)))
    busy.sequence.prefill(seq((1, 100)))
    other = read(cache, seq((1, 100), (2, 5)))
    assert other.cached_from == "fork" and other.start == 100
    cache.commit(busy)


def test_waits_for_what_a_busy_state_is_about_to_hold() -> None:
    cache = make(True)
    busy = open_(cache, seq((1, 500)))
    assert cache.lease(seq((1, 400), (2, 5))) == "others"
    cache.commit(busy)


def test_namespaces_share_nothing() -> None:
    cache = make(True)
    read(cache, seq((1, 100)))
    other = cache.lease(seq((1, 100)), (), "somebody else")
    assert isinstance(other, Lease) and other.start == 0 and other.unseen == 100


def test_eviction_keeps_the_budget_and_what_was_seen() -> None:
    cache = make(True, budget=3000)
    for k in range(1, 20):
        read(cache, seq((k, 100)))
        assert cache.nbytes <= 3000
    gone = read(cache, seq((1, 100)))
    assert gone.start == 0 and gone.unseen == 0


@pytest.mark.parametrize("n", [0, 1, 7, 4096, 131_071])
def test_common_length_finds_the_first_difference(n: int) -> None:
    a = tokens_of(range(131_072))
    b = a[:n] + tokens_of([-1]) + a[n + 1 :]
    assert common_length(a, b) == n
    assert [s.upto for s in tree.match(_tree_of(a), b)] == ([n] if n else [])


def _tree_of(tokens: Tokens[int]) -> tree.Node:
    root = tree.new_root()
    root.children[tokens[0]] = tree.Node(root, tokens, len(tokens))
    return root


def test_a_second_state_waits_until_both_fit() -> None:
    cache = Cache(lambda: Literal(True), budget=3000, bytes_at=lambda rows: 10 * rows)
    busy = cache.lease(seq((1, 100)), rows=200)
    assert isinstance(busy, Lease)
    assert cache.lease(seq((2, 100)), rows=150) == NoRoom(1500, 1000)
    beside = cache.lease(seq((3, 50)), rows=100)
    assert isinstance(beside, Lease)
    cache.abandon(busy)
    cache.abandon(beside)
    assert isinstance(cache.lease(seq((2, 100)), rows=150), Lease)


def test_a_state_that_can_never_fit_is_refused_with_the_numbers() -> None:
    cache = Cache(lambda: Literal(True), budget=3000, bytes_at=lambda rows: 10 * rows)
    assert isinstance(cache.lease(seq((1, 100)), rows=300), Lease)
    alone = Cache(lambda: Literal(True), budget=3000, bytes_at=lambda rows: 10 * rows)
    with pytest.raises(RequestError, match=r"100 tokens.*memory_budget"):
        alone.lease(seq((1, 100)), rows=301)
