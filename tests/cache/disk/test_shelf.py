"""Which piece stands on which: compared with a plain definition on random trees."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_pieces import MODEL, record, sequence

from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.joinable import doubles
from everwarm.cache.disk.shelf import Shelf
from everwarm.tokens import tokens_of


@dataclass(frozen=True)
class Sample:
    """A piece with its whole path, which the shelf never sees."""

    path: tuple[int, ...]
    start: int
    kind: str
    nbytes: int

    def stored(self, n: int) -> Stored:
        r = record(tokens_of(self.path), self.start, len(self.path), kind=self.kind)
        return Stored(f"{n:032x}", r, self.nbytes)


samples = st.builds(
    lambda path, start, kind, nbytes: Sample(tuple(path), min(start, len(path)), kind, nbytes),
    st.lists(st.integers(0, 1), min_size=1, max_size=7),
    st.integers(0, 6),
    st.sampled_from(["segment", "segment", "checkpoint"]),
    st.integers(1, 100),
).filter(lambda s: s.kind == "checkpoint" or s.start < len(s.path))


def usable(held: list[Sample]) -> set[Sample]:
    """The plain definition: grow from the root until nothing changes."""
    good: set[Sample] = set()
    while True:
        more = {s for s in held if s not in good and _has_support(s, good)}
        if not more:
            return good
        good |= more


def _has_support(s: Sample, good: set[Sample]) -> bool:
    def holds(other: Sample, at: int) -> bool:
        return other.start < at <= len(other.path) and other.path[:at] == s.path[:at]

    if s.kind == "checkpoint" and any(g.kind == "segment" and holds(g, len(s.path)) for g in good):
        return True
    return s.start == 0 or any(holds(g, s.start) for g in good)


def ids_of(shelf: Shelf) -> set[str]:
    return {s.file_id for s in shelf.pieces(MODEL)}


@settings(max_examples=400, deadline=None)
@given(st.lists(samples, unique=True, max_size=14), st.data())
def test_a_piece_is_usable_exactly_when_its_whole_path_is_here(
    held: list[Sample], data: st.DataObject
) -> None:
    shelf = Shelf()
    for n, s in enumerate(held):
        assert shelf.add(s.stored(n))
    for n in data.draw(st.permutations(range(len(held)))):
        here = [s for i, s in enumerate(held) if f"{i:032x}" in shelf]
        # A checkpoint that the shelf stands on another way is not counted as a support of rows.
        assert ids_of(shelf) <= {f"{held.index(s):032x}" for s in usable(here)}
        only_rows = [s for s in here if s.kind == "segment"]
        assert ids_of(shelf) >= {f"{held.index(s):032x}" for s in usable(only_rows)}
        assert shelf.nbytes == sum(s.nbytes for s in here)
        shelf.drop(f"{n:032x}")
    assert len(shelf) == shelf.nbytes == shelf.n_adrift == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(samples, unique=True, max_size=14), st.integers(1, 600), st.randoms())
def test_what_is_evicted_is_enough_and_leaves_nothing_adrift(
    held: list[Sample], wanted: int, rng: random.Random
) -> None:
    shelf = Shelf()
    for n, s in enumerate(sorted(held, key=lambda s: (s.start, s.kind == "checkpoint"))):
        shelf.add(s.stored(n))
    before, whole = ids_of(shelf), shelf.nbytes
    pinned = shelf.pin(rng.sample(sorted(before), min(1, len(before))), True)
    adrift = shelf.n_adrift
    going = shelf.to_evict(wanted, clock=1)
    if going is None:
        return
    assert shelf.nbytes == whole
    lost = before & set(going)
    for file_id in going:
        shelf.drop(file_id)
    assert whole - shelf.nbytes >= wanted
    assert ids_of(shelf) >= before - lost and shelf.n_adrift <= adrift
    assert all(x in shelf for x in pinned)


@given(st.lists(samples, unique=True, max_size=14))
def test_any_set_of_pieces_can_be_deleted_lowest_first(held: list[Sample]) -> None:
    shelf = Shelf()
    for n, s in enumerate(held):
        shelf.add(s.stored(n))
    assert sorted(shelf.deletable(shelf.ids())) == sorted(shelf.ids())


def test_what_carries_the_next_piece_is_not_evicted_for_it() -> None:
    shelf = Shelf()
    root, leaf = Sample((1, 2), 0, "segment", 10), Sample((3, 4), 0, "segment", 10)
    shelf.add(root.stored(0))
    shelf.add(leaf.stored(1))
    assert shelf.to_evict(5, 0, keep=f"{0:032x}") == [f"{1:032x}"]
    assert shelf.to_evict(15, 0, keep=f"{0:032x}") is None


def test_a_piece_whose_id_is_not_that_of_its_tokens_is_refused() -> None:
    shelf = Shelf()
    good = Sample((1, 2), 0, "segment", 10).stored(0)
    other = record(tokens_of((1, 3)), 0, 2)
    assert shelf.add(good)
    assert not shelf.add(Stored("1" * 32, replace(other, tokens=tokens_of((1, 2))), 10))


def branched(n: int) -> list[Stored]:
    """Conversations, each with a branch that leaves its only file at a place of its own."""
    out = []
    for k in range(n):
        a, b = sequence(600, k), sequence(100, -1 - k)
        at = 100 + k % 500
        out.append(Stored(f"{2 * k:032x}", record(a, 0, 600), 100))
        out.append(Stored(f"{2 * k + 1:032x}", record(a[:at] + b, at, at + 100), 100))
    return out


@pytest.mark.parametrize("n", [100, 200, 400])
def test_a_start_hashes_each_piece_a_fixed_number_of_times(n: int) -> None:
    shelf = Shelf()
    assert not shelf.add_all(branched(n)) and shelf.n_adrift == 0
    assert shelf.n_hashed <= 3 * n
    assert not doubles(shelf.rows())


@settings(max_examples=300, deadline=None)
@given(st.lists(samples, unique=True, max_size=14))
def test_pieces_stand_the_same_whether_they_come_alone_or_all_at_once(held: list[Sample]) -> None:
    together, alone = Shelf(), Shelf()
    stored = [s.stored(n) for n, s in enumerate(held)]
    assert together.add_all(stored) == []
    for s in stored:
        alone.add(s)
    assert ids_of(together) == ids_of(alone) and together.n_adrift == alone.n_adrift


def test_what_the_index_remembers_of_a_branch_saves_looking_inside_of_others() -> None:
    first, second = Shelf(), Shelf()
    assert not first.add_all(branched(100))
    remembered = [first.get(x) for x in first.ids()]
    assert not second.add_all(remembered) and second.n_adrift == 0
    assert second.n_hashed == 100


@settings(max_examples=300, deadline=None)
@given(st.lists(samples, unique=True, max_size=14), st.randoms())
def test_a_wrong_memory_of_a_branch_changes_nothing(held: list[Sample], rng: random.Random) -> None:
    stored = [s.stored(n) for n, s in enumerate(held)]
    ends = [None, *(s.record.position for s in stored), *(s.record.parent for s in stored)]
    misled, alone = Shelf(), Shelf()
    misled.add_all([replace(s, within=rng.choice(ends)) for s in stored])
    for s in stored:
        alone.add(s)
    assert ids_of(misled) == ids_of(alone)


@settings(max_examples=100, deadline=None)
@given(st.lists(samples, unique=True, max_size=14), st.integers(0, 13))
def test_a_piece_that_is_refused_takes_nothing_with_it_that_stands_elsewhere(
    held: list[Sample], bad: int
) -> None:
    stored = [s.stored(n) for n, s in enumerate(held)]
    wrong = [
        replace(s, record=replace(s.record, tokens=tokens_of(9 for _ in s.record.tokens)))
        if n == bad and s.record.kind == "segment"
        else s
        for n, s in enumerate(stored)
    ]
    together, alone = Shelf(), Shelf()
    refused = together.add_all(wrong)
    for s in wrong:
        if s.file_id not in refused:
            alone.add(s)
    assert refused in ([], [f"{bad:032x}"])
    assert ids_of(together) == ids_of(alone)


@settings(max_examples=300, deadline=None)
@given(st.lists(samples.filter(lambda s: s.kind == "segment"), unique=True, max_size=14))
def test_a_double_is_held_whole_by_a_longer_segment_on_its_path(held: list[Sample]) -> None:
    shelf = Shelf()
    shelf.add_all([s.stored(n) for n, s in enumerate(held)])
    good = {n: s for n, s in enumerate(held) if f"{n:032x}" in ids_of(shelf)}

    def holds(long: Sample, s: Sample) -> bool:
        here = long.path[: len(s.path)] == s.path and long.start <= s.start
        return here and len(long.path) - long.start > len(s.path) - s.start

    plain = {n for n, s in good.items() if any(holds(o, s) for o in good.values())}
    found = {int(x, 16) for x in doubles(shelf.rows())}
    assert found <= plain
    beside = {n for n in plain if any(holds(o, good[n]) and o.start == good[n].start
                                      for o in good.values())}  # fmt: skip
    assert found >= beside
