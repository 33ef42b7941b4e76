"""What goes first when the budget is full."""

from __future__ import annotations

from everwarm.cache.cache import Cache, Lease
from everwarm.cache.evict import candidates
from everwarm.cache.tree import Node
from everwarm.lab.simulate import Counted, Sizes
from everwarm.tokens import Mark, Tokens, tokens_of

SIZES = Sizes(token=10, checkpoint=500)


def made(budget: int, *, cuttable: bool = False) -> Cache:
    return Cache(lambda: Counted(SIZES, cuttable), budget=budget)


def read(cache: Cache, tokens: Tokens[int], *marks: Mark, namespace: str = "") -> Lease:
    lease = cache.lease(tokens, marks, namespace)
    assert isinstance(lease, Lease)
    live = lease.sequence.live
    assert isinstance(live, Counted) and live.holds(tokens[: lease.start])
    for to, kind in [*cache.stops(lease, len(tokens)).items(), (len(tokens), None)]:
        lease.sequence.prefill(tokens[live.length : to])
        if to < len(tokens):
            cache.checkpoint(lease, kind)
    cache.commit(lease)
    return lease


def seq(*parts: tuple[int, int]) -> Tokens[int]:
    return tokens_of(k * 10_000 + i for k, n in parts for i in range(n))


def test_a_system_checkpoint_goes_with_the_rows_it_needs() -> None:
    cache = made(8_000)
    for k in range(1, 30):
        read(cache, seq((k, 300)), Mark(100, "system"), namespace=str(k))
        assert cache.nbytes <= 8_000


def test_a_checkpoint_goes_before_the_state_it_belongs_to() -> None:
    cache = made(10_000)
    read(cache, seq((1, 400)), Mark(100, "user"), Mark(200, "user"), Mark(300, "prompt"))
    read(cache, seq((2, 100)))
    assert cache.nbytes <= 10_000
    again = read(cache, seq((1, 400), (3, 10)))
    assert again.start == 400 and again.cached_from == "live"


def test_a_state_counts_with_the_checkpoints_that_only_it_can_use() -> None:
    cache = made(9_000)
    read(cache, seq((1, 300)), *(Mark(at, "user") for at in range(50, 300, 50)))
    read(cache, seq((2, 300)))
    read(cache, seq((3, 300)))  # 7,000 and 4,000 are held: the dearest a token goes
    assert read(cache, seq((2, 300), (4, 5))).start == 300
    assert cache.nbytes <= 9_000


def test_rows_without_a_checkpoint_behind_them_are_no_use() -> None:
    cache = made(9_100)
    tail = read(cache, seq((1, 300), (2, 200)), Mark(300, "user")).holder.node
    read(cache, seq((1, 300), (3, 200)))  # cuts the tail (2) out, and leaves its end's checkpoint
    assert tail.segment is not None and tail.checkpoint is not None
    tail.checkpoint = None
    read(cache, seq((1, 300), (3, 200), (4, 60)))  # 9,600 bytes: something must go
    assert tail.segment is None
    assert cache.nbytes == 560 * 10 + 500 + 3 * 500  # everything else is still here


def test_a_new_checkpoint_displaces_only_what_would_save_less() -> None:
    cache = made(10_750)
    read(cache, seq((2, 300)), namespace="other")
    one = seq((1, 500))
    read(cache, one, Mark(490, "prompt"))
    read(cache, one + seq((3, 80)), Mark(570, "prompt"))  # its end saves 10 tokens, not 580
    assert read(cache, seq((2, 300), (4, 5)), namespace="other").start == 300
    assert cache.nbytes <= 10_750


def test_the_newest_ends_outlive_a_checkpoint_far_behind_them() -> None:
    cache = made(1 << 30)
    far = (Mark(2000, "user"), Mark(2700, "user"), Mark(3400, "user"))
    marks = (*far, Mark(39_300, "last"), Mark(39_900, "prompt"))
    read(cache, seq((1, 10_000), (2, 10_000), (3, 10_000), (4, 10_000)), *marks)
    found = candidates(cache.memory.nodes(), [], cache.memory.clock, is_cuttable=False)
    ends = [c.victim.end for c in found if isinstance(c.victim, Node)]
    assert ends.index(2700) < ends.index(39_900)
    assert ends.index(2700) < ends.index(39_300)


def test_many_checkpoints_do_not_push_their_state_out() -> None:
    cache = made(1 << 30)
    read(cache, seq((1, 900)), *(Mark(at, "user") for at in range(50, 900, 50)))
    read(cache, seq((2, 900)))
    memory = cache.memory
    found = candidates(memory.nodes(), memory.states, memory.clock + 1, is_cuttable=False)
    worth = [c.worth for c in found if c.victim in memory.states]
    assert worth[0] == min(worth) and worth[1] < 2 * worth[0]
