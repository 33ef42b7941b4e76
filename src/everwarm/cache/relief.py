"""Give memory back to the machine: drop what the disk has, the least valuable first.

    idle state   rows on disk, checkpoint of its end on disk   -> dropped now
    idle state   not all of it on disk                         -> written first: `is_coming`

What the prompts that wait go on from stays: it would be read back at once. Engine thread only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from everwarm.cache import tree
from everwarm.cache.cache import Cache
from everwarm.cache.disk.tier import DiskTier
from everwarm.cache.evict import Candidate, candidates
from everwarm.cache.restore import plan
from everwarm.cache.store import OnDisk
from everwarm.cache.tree import Holder, Node
from everwarm.job import Job


@dataclass(frozen=True, slots=True)
class Relief:
    """What was given back. `is_coming`: more can be once the disk has taken it."""

    freed: int
    is_coming: bool


def relieve(
    cache: Cache, nbytes: int, waiting: Iterable[Job], *, may_lose: bool, may_write: bool = True
) -> Relief:
    """Drop idle states and pieces until `nbytes` are free.

    `waiting`: jobs that are about to begin. `may_lose`: also what is not on disk. `may_write`: have
    the disk take what it does not have; not again what it has refused.
    """
    memory = cache.memory
    spared = _spared(cache, waiting)
    before = memory.account().nbytes
    freed, is_coming = 0, False
    while freed < nbytes:
        found = [c for c in _idle(cache) if id(_held_by(c)) not in spared]
        ready = [c for c in found if may_lose or is_on_disk(c, is_cuttable=cache.is_cuttable)]
        if not ready:
            is_coming = bool(found) and _is_writing(cache, found, may_write)
            break
        for c in ready:
            memory.discard(c)
            freed += c.nbytes
            if freed >= nbytes:
                break
        freed = before - memory.account().nbytes
    return Relief(freed, is_coming)


def is_on_disk(c: Candidate, *, is_cuttable: bool) -> bool:
    """Whether a restart would find what is dropped with this candidate."""
    node = c.victim.node if isinstance(c.victim, Holder) else c.victim
    if not isinstance(c.victim, Holder) and not c.is_segment:
        return node.shelved_checkpoint is not None
    end = c.victim.sequence.length if isinstance(c.victim, Holder) else node.end
    if DiskTier.written(node) < end:
        return False
    return is_cuttable or c.is_segment or node.shelved_checkpoint is not None


def _idle(cache: Cache) -> list[Candidate]:
    m = cache.memory
    found = candidates(m.nodes(), m.states, m.clock, is_cuttable=m.is_cuttable)
    return [c for c in found if c.nbytes and not _rests_already(c)]


def _rests_already(c: Candidate) -> bool:
    """Whether a segment's rows rest on disk alone, and take no memory."""
    segment = c.victim.segment if c.is_segment and isinstance(c.victim, Node) else None
    return segment is not None and isinstance(segment.piece, OnDisk)


def _held_by(c: Candidate) -> object:
    if isinstance(c.victim, Holder):
        return c.victim
    return c.victim.segment and c.victim.segment.piece if c.is_segment else c.victim.checkpoint


def _spared(cache: Cache, waiting: Iterable[Job]) -> set[int]:
    """States and pieces that these prompts would be continued from."""
    out: set[int] = set()
    for job in waiting:
        root = cache.roots.get(job.namespace)
        steps = tree.match(root, job.tokens) if root is not None else []
        chosen = plan(steps, len(job.tokens) - 1, is_cuttable=cache.is_cuttable)
        out |= {id(chosen.holder), id(chosen.checkpoint), *(id(s.piece) for s in chosen.segments)}
    return out - {id(None)}


def _is_writing(cache: Cache, found: list[Candidate], may_write: bool) -> bool:
    """Have the disk write these states. False: it is in no condition to, or is done."""
    tier = cache.tier
    if tier is None or tier.is_stuck or tier.stats().state != "ok":
        return False
    states = [c.victim for c in found if isinstance(c.victim, Holder)]
    for holder in states if may_write else ():
        cache.spill(holder)
    return bool(states) and not tier.is_idle
