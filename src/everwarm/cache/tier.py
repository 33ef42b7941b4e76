"""Between the tree and the disk: what to write behind a turn, and how a state comes back.

    rows on disk     [0, 4096) [4096, 5000) | 5000 … the end: next to be written
    checkpoints      system ^        prompt ^   end of reply ^

One write is under way at a time, and none is waited for: `step` starts the next one between two
steps of the engine, at most one cell of rows and `MOST_AT_ONCE` bytes each. A piece counts as on
disk when it is durable. Reading is the same the other way (`restoring.py`).

When nothing has run for a while, `tidy` joins small pieces and takes the new ones for them.

A fault is a miss: the piece is forgotten, and its tokens are read again. Engine thread only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from everwarm.cache import tree
from everwarm.cache.blob import Kind, Record
from everwarm.cache.disk import DiskStore
from everwarm.cache.identity import Trail
from everwarm.cache.join import Joined
from everwarm.cache.places import CELL
from everwarm.cache.restore import Plan
from everwarm.cache.restoring import MOST_AT_ONCE
from everwarm.cache.store import Bytes, Live, OnDisk
from everwarm.cache.tree import Holder, Node, Segment
from everwarm.tokens import MarkKind, Tokens

KEPT: Final = frozenset(("system", "prompt", None))
"""Kinds of checkpoints worth a file. A reply's end has no mark."""
FILE_S: Final = 0.003
FIRST_READ_RATE: Final = 500e6
WORTH_READING: Final = 64
MakeRoom = Callable[[int, list[Holder]], bool]
"""Room in memory for so many bytes, with these states spared; False: not now."""
WRITE_SHARE: Final = 16
"""Of the memory budget, one part in this many may be copies that wait to be written."""
WORTH_SHARING: Final = 256
"""Rows at the start of a conversation up to which each has them in files of its own."""


@dataclass(frozen=True, slots=True)
class _Write:
    """A piece on its way: rows [start, end) of a sequence, or a checkpoint at `end`."""

    done: Future[str | None]
    root: Node
    node: Node
    tokens: Tokens[int]
    start: int
    end: int
    nbytes: int
    is_checkpoint: bool


@dataclass(frozen=True, slots=True)
class _Source:
    """What is to be written: rows up to `node`, of a state or of what it left behind there.

    It holds no state: what memory lets go is gone at once, written or not.
    """

    root: Node
    namespace: str
    node: Node
    tokens: Tokens[int]


class DiskTier:
    """One model's pieces on disk. `wake` is called from another thread when a write has ended.

    `most_bytes`: of rows copied out between two steps, which a running reply waits for.
    """

    def __init__(
        self,
        store: DiskStore,
        fingerprint: bytes,
        wake: Callable[[], None],
        most_bytes: int = MOST_AT_ONCE,
    ) -> None:
        self.store = store
        self._most_bytes = most_bytes
        self._make_room: MakeRoom = lambda nbytes, spare: True
        self._shape: Live | None = None
        self._fingerprint = fingerprint
        self._wake = wake
        self._pending: deque[tuple[Holder, str]] = deque()
        self._tails: deque[_Source] = deque()
        self._write: _Write | None = None
        self._joining: Future[Joined | None] | None = None
        self._joined: frozenset[str] = frozenset()
        self._may_join = True
        self._root_of: Callable[[str], Node] | None = None

    @property
    def writing_nbytes(self) -> int:
        """Bytes that were copied out and are not on disk yet."""
        return self._write.nbytes if self._write is not None else 0

    @property
    def is_idle(self) -> bool:
        return not self._pending and not self._tails and self._write is None

    def attach(self, shape: Live, budget: int, make_room: MakeRoom) -> None:
        """Serve a cache of so many bytes. `shape`: an empty state, which knows its layers."""
        self._shape = shape
        self._most_bytes = min(self._most_bytes, budget // WRITE_SHARE)
        self._make_room = make_room

    def graft(self, root_of: Callable[[str], Node]) -> int:
        """Put everything that is on disk into the trees; how many pieces."""
        self._root_of = root_of
        ends: dict[str, Node] = {}
        pinned: list[Node] = []
        n = 0
        for stored in self.store.pieces(self._fingerprint):
            r = stored.record
            piece = OnDisk(stored.file_id, stored.nbytes)
            under = ends.get(stored.above) if stored.above is not None else None
            start = root_of(r.namespace) if under is None else tree.up_to(under, r.start)
            if start.end != r.start:
                continue
            node = tree.grow(start, r.tokens)
            ends[stored.file_id] = node
            node.kind = node.kind or r.mark  # type: ignore[assignment]
            if r.kind == "checkpoint":
                node.shelved_checkpoint = piece
            else:
                tree.shelve(node, Segment(piece, r.start, r.start, r.end))
            if stored.is_pinned:
                pinned.append(node)
            n += 1
        above = {id(up) for node in pinned for up in node.path()[:-1]}
        for node in pinned:  # what was pinned is the end; the files in front are pinned for it
            node.is_pinned = id(node) not in above
        return n

    def pin(self, roots: Iterable[Node]) -> None:
        """Pin the files that pinned nodes need, and no others."""
        known: set[str] = set()
        needed: set[str] = set()
        for node in (n for root in roots for n in root.below()):
            known |= {f for s in node.shelved if (f := _file_of(s))}
            known |= {node.shelved_checkpoint.file_id} if node.shelved_checkpoint else set()
            needed |= _needed(node) if node.is_pinned else set()
        self.store.unpin(known - needed)
        self.store.pin(needed)

    def keep(self, holder: Holder, namespace: str) -> None:
        """Write what this state holds and the disk does not, piece by piece from now on.

        What it has there already counts as used by one more request.
        """
        path = holder.node.path()
        used = {f for n in path for s in n.shelved if (f := _file_of(s))}
        used |= {n.shelved_checkpoint.file_id for n in path if n.shelved_checkpoint}
        if used and not holder.busy:
            self.store.touch(used)
        if all(h is not holder for h, _ in self._pending):
            self._pending.append((holder, namespace))

    def leaves(self, holder: Holder) -> None:
        """A state is about to go back: what it leaves as segments is written all the same."""
        for h, namespace in self._pending:
            if h is holder:
                tokens = h.sequence.tokens[: h.node.end]
                self._tails.append(_Source(h.root, namespace, h.node, tokens))

    def step(self) -> None:
        """File the write that has ended, start the next one. Copies at most one cell of rows."""
        if self._write is not None:
            if not self._write.done.done():
                return
            ended, self._write = self._write, None
            self._may_join = True
            self._file(ended)
        source = [h for h, _ in list(self._pending)[:1]]
        if self.is_idle or not self._make_room(self._most_bytes, source):
            return
        while self._pending and self._write is None:
            holder, namespace = self._pending.popleft()  # gone where the next line raises
            self._write = self._next(holder, namespace)
            if self._write is not None:
                self._pending.appendleft((holder, namespace))
        if self._write is None:
            self._write = self._next_tail()
        if self._write is not None:
            self._write.done.add_done_callback(lambda _: self._wake())

    def skip(self) -> None:
        """Joining files has failed: not again before something new was written."""
        self._may_join = False

    def restart(self, root_of: Callable[[str], Node]) -> None:
        """Begin again with trees that know nothing: write nothing of the old ones."""
        self._pending, self._tails = deque(), deque()
        self.graft(root_of)

    @property
    def is_tidy(self) -> bool:
        """A call of `tidy` would do nothing now."""
        return not (self._may_join if self._joining is None else self._joining.done())

    def tidy(self) -> None:
        """Join small pieces, a step a call, while no job runs or waits for a file."""
        if self._joining is None:
            self.store.retire(self._joined)
            self._joined = frozenset()
            self._joining = self.store.join()
            self._joining.add_done_callback(lambda _: self._wake())
            self._may_join = False
        elif self._joining.done():
            made = None if self._joining.exception() else self._joining.result()
            self._joining = None
            if made is not None:
                self._take_joined(made)

    def _take_joined(self, made: Joined) -> None:
        """Let the tree use the new piece. The old ones go at the next call: nobody knows them."""
        r = made.stored.record
        whole = Segment(OnDisk(made.stored.file_id, made.stored.nbytes), r.start, r.start, r.end)
        is_ours = r.fingerprint == self._fingerprint
        root = self._root_of(r.namespace) if is_ours and self._root_of is not None else None
        for node in () if root is None else root.below():
            others = [s for s in node.shelved if _file_of(s) not in made.parts]
            if len(others) < len(node.shelved):
                node.shelved = [*others, whole]
        self._joined, self._may_join = made.parts, True

    def pays(self, far: Plan, near: int, prefill_tps: float | None) -> bool:
        """Whether reading these files is quicker than reading the tokens again."""
        saved = far.at - near
        if saved < WORTH_READING:
            return False
        files = {f.file_id: f.nbytes for f in far.files}
        rate = self.store.stats().read_bytes_per_s or FIRST_READ_RATE
        read_s = sum(files.values()) / rate + FILE_S * len(files)
        return prefill_tps is None or read_s < saved / prefill_tps

    def forget(self, root: Node, file_id: str) -> None:
        """A file is gone or damaged: nothing stands on it any more."""
        for node in root.below():
            node.shelved = [s for s in node.shelved if _file_of(s) != file_id]
            if node.shelved_checkpoint and node.shelved_checkpoint.file_id == file_id:
                node.shelved_checkpoint = None

    def let_go(self, holder: Holder) -> None:
        """Write no more of this state."""
        self._pending = deque(p for p in self._pending if p[0] is not holder)

    def gone(self, file_ids: frozenset[str], roots: Iterable[Node]) -> None:
        """Files were deleted: nothing stands on them any more."""
        for root in roots:
            for file_id in file_ids:
                self.forget(root, file_id)

    def stats(self) -> dict[str, int | float | str]:
        """Counts and the state, for people."""
        s = self.store.stats()
        return {
            "disk_state": s.state,
            "disk_why": s.why,
            "disk_pieces": s.pieces,
            "disk_bytes": s.nbytes,
            "disk_budget_bytes": s.budget_bytes,
            "disk_written_today_bytes": s.written_today_bytes,
            "disk_write_budget_bytes": s.write_budget_bytes,
        }

    def close(self, grace_s: float) -> None:
        """Write what is left, for so long; then give the directory back."""
        until = time.monotonic() + grace_s
        self.step()
        while not self.is_idle and time.monotonic() < until:
            time.sleep(0.002)
            self.step()
        self.store.flush(max(until - time.monotonic(), 0.1))
        self.store.close()

    def _next(self, holder: Holder, namespace: str) -> _Write | None:
        path = holder.node.path()
        end = min(holder.sequence.length, path[-1].end if path else 0)
        at = _written(path)
        if holder.busy:
            end -= end % CELL  # of a state that grows only whole cells
        source = _Source(holder.root, namespace, holder.node, holder.sequence.tokens)
        if at < end:
            heads = {n.end for n in path if n.kind == "system" and n.end > at}
            to = min(end, self._most_at(at, holder.sequence.live.rows_nbytes(1)), *heads)
            made = holder.sequence.live.rows_out(at, to)
            return self._start(source, "segment", at, to, made, "system" if to in heads else None)
        return self._next_checkpoint(source, at)

    def _next_tail(self) -> _Write | None:
        """The next of what states left behind."""
        while self._tails:
            source = self._tails.popleft()  # gone where the next lines raise
            path = source.node.path()
            write = self._next_at_rest(source, path) if _is_in_tree(path) else None
            if write is not None:
                self._tails.appendleft(source)
                return write
        return None

    def _next_at_rest(self, source: _Source, path: list[Node]) -> _Write | None:
        at, end = _written(path), len(source.tokens)  # its last node may have grown since
        node = next((n for n in path if n.start <= at < min(n.end, end)), None)
        if node is None:
            return self._next_checkpoint(source, at)
        assert self._shape is not None
        if node.holders:
            live = node.holders[0].sequence.live
            to = min(node.end, end, self._most_at(at, live.rows_nbytes(1)))
            made = live.rows_out(at, to)
        elif (s := node.segment) is not None and not isinstance(s.piece, OnDisk):
            row = s.piece.nbytes // max(s.end - s.piece_start, 1)
            to = min(node.end, end, self._most_at(at, row))
            made = self._shape.piece_rows_out(s.piece, at, to, s.piece_start)
        else:
            return None
        is_head = node.kind == "system" and to == node.end
        return self._start(source, "segment", at, to, made, "system" if is_head else None)

    def _most_at(self, at: int, row_nbytes: int) -> int:
        """How far one piece that begins here may reach."""
        rows = max(self._most_bytes // max(row_nbytes, 1), 1)
        return min((at // CELL + 1) * CELL, at + rows)

    def _next_checkpoint(self, source: _Source, at: int) -> _Write | None:
        at = min(at, len(source.tokens))
        for node in source.node.path():
            piece = node.checkpoint
            wanted = node.kind in KEPT or len(node.children) > 1
            if piece is None or node.shelved_checkpoint or not wanted or node.end > at:
                continue
            if piece.nbytes > self._most_bytes and not self._make_room(piece.nbytes, []):
                continue
            assert self._shape is not None
            out = self._shape.checkpoint_out(piece, node.end)
            if out is not None:
                return self._start(source, "checkpoint", node.end, node.end, out, node.kind)
        return None

    def _start(
        self, of: _Source, kind: Kind, start: int, end: int, made: Bytes, mark: MarkKind | None
    ) -> _Write:
        tokens = of.tokens[:end]
        trail = Trail(self._fingerprint, of.namespace)
        parent = trail.feed(tokens[:start])
        position = trail.feed(tokens[start:])
        record = Record(
            kind, self._fingerprint, of.namespace, parent, position, start, end,
            tokens[start:], mark,
        )  # fmt: skip
        layers, buffers = made
        nbytes = sum(memoryview(b).nbytes for b in buffers)
        done = self.store.write(record, layers, buffers)
        return _Write(done, of.root, of.node, tokens, start, end, nbytes, kind == "checkpoint")

    def _file(self, write: _Write) -> None:
        file_id = write.done.result() if write.done.exception() is None else None
        if file_id is None:
            for queue in (self._pending, self._tails):  # no room, no disk: behind the next turn
                if queue and _node_of(queue[0]) is write.node:
                    queue.popleft()
            return
        piece = OnDisk(file_id, write.nbytes)
        steps = tree.match(write.root, write.tokens)
        if not steps or steps[-1].upto < write.end:
            return
        if not write.is_checkpoint:
            segment = Segment(piece, write.start, write.start, write.end)
            for s in steps:
                if s.node.end > write.start:
                    s.node.shelved.append(segment)
        elif steps[-1].node.end == write.end:
            steps[-1].node.shelved_checkpoint = piece


def _file_of(s: Segment) -> str | None:
    return s.piece.file_id if isinstance(s.piece, OnDisk) else None


def _node_of(source: tuple[Holder, str] | _Source) -> Node:
    return source.node if isinstance(source, _Source) else source[0].node


def _is_in_tree(path: list[Node]) -> bool:
    """Whether nothing of a path was forgotten."""
    return all(n.parent is not None and n.parent.children.get(n.tokens[0]) is n for n in path)


def _written(path: list[Node]) -> int:
    """How far a path's rows are on disk without a hole.

    A file that goes on along another branch behind few rows does not count: the two conversations
    stand on files of their own, and one can be deleted without the other.
    """
    at = 0
    for i, node in enumerate(path):
        for s in sorted(node.shelved, key=lambda s: s.start):
            if node.end <= WORTH_SHARING and _leaves(s, path, i):
                continue
            if s.start <= at < s.end:
                at = min(s.end, node.end)
        if at < node.end:
            break
    return at


def _leaves(s: Segment, path: list[Node], i: int) -> bool:
    """Whether a file with rows of the i-th node goes on along another branch than this path."""
    behind = path[i + 1].shelved if i + 1 < len(path) else []
    return s.end > path[i].end and s not in behind


def _needed(node: Node) -> set[str]:
    """The files from which a node can be restored."""
    path, out = node.path(), set[str]()
    for i, n in enumerate(path):
        staying = [s for s in n.shelved if not _leaves(s, path, i)]
        out |= {f for s in staying or n.shelved if (f := _file_of(s))}
    return out | ({node.shelved_checkpoint.file_id} if node.shelved_checkpoint else set())
