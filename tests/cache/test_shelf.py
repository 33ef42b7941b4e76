"""Which piece stands on which: compared with a plain definition on random trees."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import MODEL, record

from everwarm.cache.index import Stored
from everwarm.cache.shelf import Shelf
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
    return {s.file_id for s in shelf.usable(MODEL)}


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
        shelf.remove(f"{n:032x}")
    assert len(shelf) == shelf.nbytes == shelf.n_adrift == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(samples, unique=True, max_size=14), st.integers(1, 600), st.randoms())
def test_what_is_let_go_is_enough_and_leaves_nothing_adrift(
    held: list[Sample], wanted: int, rng: random.Random
) -> None:
    shelf = Shelf()
    for n, s in enumerate(sorted(held, key=lambda s: (s.start, s.kind == "checkpoint"))):
        shelf.add(s.stored(n))
    before, whole = ids_of(shelf), shelf.nbytes
    pinned = shelf.pin(rng.sample(sorted(before), min(1, len(before))), True)
    adrift = shelf.n_adrift
    going = shelf.to_free(wanted, clock=1)
    if going is None:
        return
    assert shelf.nbytes == whole
    lost = before & set(going)
    for file_id in going:
        shelf.remove(file_id)
    assert whole - shelf.nbytes >= wanted
    assert ids_of(shelf) >= before - lost and shelf.n_adrift <= adrift
    assert all(x in shelf for x in pinned)


@given(st.lists(samples, unique=True, max_size=14))
def test_any_set_of_pieces_can_be_deleted_lowest_first(held: list[Sample]) -> None:
    shelf = Shelf()
    for n, s in enumerate(held):
        shelf.add(s.stored(n))
    assert sorted(shelf.free_to_go(shelf.ids())) == sorted(shelf.ids())


def test_what_carries_the_next_piece_is_not_let_go_for_it() -> None:
    shelf = Shelf()
    root, leaf = Sample((1, 2), 0, "segment", 10), Sample((3, 4), 0, "segment", 10)
    shelf.add(root.stored(0))
    shelf.add(leaf.stored(1))
    assert shelf.to_free(5, 0, keep=f"{0:032x}") == [f"{1:032x}"]
    assert shelf.to_free(15, 0, keep=f"{0:032x}") is None


def test_a_piece_whose_id_is_not_that_of_its_tokens_is_refused() -> None:
    shelf = Shelf()
    good = Sample((1, 2), 0, "segment", 10).stored(0)
    other = record(tokens_of((1, 3)), 0, 2)
    assert shelf.add(good)
    assert not shelf.add(Stored("1" * 32, replace(other, tokens=tokens_of((1, 2))), 10))
