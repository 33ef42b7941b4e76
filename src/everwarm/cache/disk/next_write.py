"""What of a conversation should be written to disk next? It is copied out here, not written yet.

    rows on disk     [0, 4096) [4096, 5000) | 5000 … the end: next to be written
    checkpoints      system ^        prompt ^   end of reply ^

Rows first, as far as one piece may reach, then the checkpoints that stand on them, the latest
first: should the engine die now, little is read again behind it. Engine thread only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

from everwarm.cache.disk.blob import PieceKind
from everwarm.cache.disk.graft import leaves_path
from everwarm.cache.disk.places import CELL
from everwarm.cache.store import Bytes, OnDisk, State
from everwarm.cache.tree import Holder, Node
from everwarm.tokens import MarkKind, Tokens

KEPT: Final = frozenset(("system", "prompt", None))
"""Kinds of checkpoints that are worth a file. None: at a reply's end, which has no mark."""
WORTH_SHARING: Final = 256
"""A shared beginning of no more rows than this is written once for each conversation."""


class MakeRoom(Protocol):
    """Room in memory for so many bytes more, for which only what is worth less than `below` is
    dropped. False: not now."""

    def __call__(self, nbytes: int, *, below: float = math.inf) -> bool: ...


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be written: rows up to `node`, of a state or of what it left behind there.

    It holds no state: what memory drops is freed at once, written or not.
    """

    root: Node
    namespace: str
    node: Node
    tokens: Tokens[int]


@dataclass(frozen=True, slots=True)
class Copy:
    """Rows [start, end) of a source, or a checkpoint at `end`, out of the engine's arrays."""

    of: Source
    kind: PieceKind
    start: int
    end: int
    made: Bytes
    mark: MarkKind | None

    @property
    def nbytes(self) -> int:
        return sum(memoryview(b).nbytes for b in self.made[1])


@dataclass(frozen=True, slots=True)
class Terms:
    """What a copy may take. `shape`: an empty state, which knows its layers.

    `most_bytes`: of rows in one copy; room for these is always counted.
    """

    shape: State
    most_bytes: int
    make_room: MakeRoom

    def beyond(self, in_flight: int, more: int) -> int:
        """For how many bytes room has to be made before so many more are copied."""
        return in_flight + more - max(in_flight, self.most_bytes)

    def most_at(self, at: int, row_nbytes: int) -> int:
        """How far one piece that begins here may reach."""
        rows = max(self.most_bytes // max(row_nbytes, 1), 1)
        return min((at // CELL + 1) * CELL, at + rows)


def next_of_state(terms: Terms, holder: Holder, namespace: str) -> Copy | None:
    """The next piece of a state. None: the disk has all of it, or there is no room now."""
    path = holder.node.path()
    end = min(holder.sequence.length, path[-1].end if path else 0)
    at = written(path)
    if holder.busy:
        end = min(end, holder.spill)
    source = Source(holder.root, namespace, holder.node, holder.sequence.tokens)
    if at >= end:
        return _next_checkpoint(terms, source, at)
    return _rows(terms, source, holder, at, end)


def next_together(
    terms: Terms, holder: Holder, first: Copy, last: Copy, nbytes: int, most_bytes: int
) -> Copy | None:
    """What should be under way together with rows of a busy state, without which they are of little
    use should the engine die: more rows, then the latest checkpoint that stands on them.

    `nbytes` are on their way; up to `most_bytes` more rows may be, where there is room.
    """
    if last.kind != "segment" or not holder.busy:
        return None
    source, at = last.of, last.end
    end = min(len(source.tokens), source.node.end, holder.spill)
    row = holder.sequence.live.rows_nbytes(1)
    rows = (min(end, terms.most_at(at, row)) - at) * row
    if at < end and nbytes + rows <= most_bytes:
        beyond = terms.beyond(nbytes, rows)
        if beyond <= 0 or terms.make_room(beyond, below=0.0):
            return _rows(terms, source, holder, at, end)
    return _next_checkpoint(terms, source, at, behind=first.start, in_flight=nbytes)


def _rows(terms: Terms, source: Source, holder: Holder, at: int, end: int) -> Copy:
    """As many rows from `at` on as one piece may have."""
    live = holder.sequence.live
    heads = {n.end for n in source.node.path() if n.kind == "system" and n.end > at}
    to = min(end, terms.most_at(at, live.rows_nbytes(1)), *heads)
    made = live.rows_out(at, to)
    return Copy(source, "segment", at, to, made, "system" if to in heads else None)


def next_at_rest(terms: Terms, source: Source) -> Copy | None:
    """The next piece of what a state left behind, if all of its path is still in the tree."""
    path = source.node.path()
    if not _is_in_tree(path):
        return None
    at, end = written(path), len(source.tokens)  # its last node may have grown since
    node = next((n for n in path if n.start <= at < min(n.end, end)), None)
    if node is None:
        return _next_checkpoint(terms, source, at)
    if node.holders:
        live = node.holders[0].sequence.live
        to = min(node.end, end, terms.most_at(at, live.rows_nbytes(1)))
        made = live.rows_out(at, to)
    elif (s := node.segment) is not None and not isinstance(s.piece, OnDisk):
        row = s.piece.nbytes // max(s.end - s.piece_start, 1)
        to = min(node.end, end, terms.most_at(at, row))
        made = terms.shape.piece_rows_out(s.piece, at, to, s.piece_start)
    else:
        return None
    is_head = node.kind == "system" and to == node.end
    return Copy(source, "segment", at, to, made, "system" if is_head else None)


def _next_checkpoint(
    terms: Terms, source: Source, at: int, *, behind: int = 0, in_flight: int = 0
) -> Copy | None:
    """The latest checkpoint in (behind, at] that is not on disk."""
    at = min(at, len(source.tokens))
    for node in reversed(source.node.path()):
        piece = node.checkpoint
        wanted = node.kind in KEPT or len(node.children) > 1
        if piece is None or node.shelved_checkpoint or not wanted or not behind < node.end <= at:
            continue
        beyond = terms.beyond(in_flight, piece.nbytes)
        if beyond > 0 and not terms.make_room(beyond):
            continue
        out = terms.shape.checkpoint_out(piece, node.end)
        if out is not None:
            return Copy(source, "checkpoint", node.end, node.end, out, node.kind)
    return None


def written(path: list[Node]) -> int:
    """How far a path's rows are on disk without a hole.

    A file that goes on along another branch behind few rows does not count: the two conversations
    stand on files of their own, and one can be deleted without the other.
    """
    at = 0
    for i, node in enumerate(path):
        for s in sorted(node.shelved, key=lambda s: s.start):
            if node.end <= WORTH_SHARING and leaves_path(s, path, i):
                continue
            if s.start <= at < s.end:
                at = min(s.end, node.end)
        if at < node.end:
            break
    return at


def _is_in_tree(path: list[Node]) -> bool:
    """Whether all of a path is still in the tree."""
    return all(n.parent is not None and n.parent.children.get(n.tokens[0]) is n for n in path)
