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

from everwarm.cache import policy, tree
from everwarm.cache.disk.blob import PieceRecord
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.graft import (
    exchange,
    files_of,
    forget_file,
    graft,
    needed_for,
    shelve_rows,
)
from everwarm.cache.disk.join import Joined
from everwarm.cache.disk.next_write import (
    Copy,
    MakeRoom,
    Source,
    Terms,
    next_at_rest,
    next_of_state,
)
from everwarm.cache.disk.restoring import MOST_AT_ONCE, PATIENCE_S
from everwarm.cache.disk.thin import superseded
from everwarm.cache.identity import Trail
from everwarm.cache.policy import CachePolicy
from everwarm.cache.restore import RestorePlan
from everwarm.cache.store import OnDisk, State
from everwarm.cache.tree import Holder, Node, Segment
from everwarm.tokens import Tokens

RESTART_WAIT_S: Final = 5.0
"""A disk that takes longer than this to say what it has is left alone by new trees."""
FILE_S: Final = 0.003
FIRST_READ_RATE: Final = 500e6
WORTH_READING: Final = 64
WRITE_SHARE: Final = 16
"""Of the memory budget, one part in this many is for copies that wait to be written."""


@dataclass(frozen=True, slots=True)
class _Write:
    """A piece on its way."""

    done: Future[str | None]
    root: Node
    node: Node
    tokens: Tokens[int]
    start: int
    end: int
    nbytes: int
    is_checkpoint: bool


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
        self._terms: Terms | None = None
        self._rules = CachePolicy()
        self._fingerprint = fingerprint
        self._wake = wake
        self._pending: deque[tuple[Holder, str]] = deque()
        self._tails: deque[Source] = deque()
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
    def set_aside(self) -> int:
        """Bytes that the next copy may take: always counted, so that no step asks for them."""
        return max(self.writing_nbytes, self._most_bytes)

    @property
    def will_free(self) -> int:
        """Bytes that come back when the write under way has ended."""
        return self.set_aside - self._most_bytes

    @property
    def is_stuck(self) -> bool:
        """The write under way has not moved for too long: its bytes will not be free soon."""
        return self.store.write_stalled_s > PATIENCE_S

    @property
    def is_idle(self) -> bool:
        return not self._pending and not self._tails and self._write is None

    def attach(self, shape: State, budget: int, make_room: MakeRoom, rules: CachePolicy) -> None:
        """Serve a cache of so many bytes. `shape`: an empty state, which knows its layers."""
        self._rules = rules
        self._most_bytes = min(self._most_bytes, budget // WRITE_SHARE)
        self._terms = Terms(shape, self._most_bytes, make_room)

    def graft(self, root_of: Callable[[str], Node]) -> int:
        """Put everything that is on disk into the trees; how many pieces."""
        self._root_of = root_of
        return graft(self.store.pieces(self._fingerprint), root_of)

    def pin(self, roots: Iterable[Node]) -> None:
        """Pin the files that pinned nodes need, and no others."""
        known: set[str] = set()
        needed: set[str] = set()
        for node in (n for root in roots for n in root.below()):
            known |= files_of(node)
            needed |= needed_for(node) if node.is_pinned else set()
        self.store.unpin(known - needed)
        self.store.pin(needed)

    def keep(self, holder: Holder, namespace: str) -> None:
        """Write what this state holds and the disk does not, piece by piece from now on.

        What it has there already counts as used by one more request.
        """
        used = {f for n in holder.node.path() for f in files_of(n)}
        if used and not holder.busy:
            self.store.touch(used)
        if all(h is not holder for h, _ in self._pending):
            self._pending.append((holder, namespace))

    def leaves(self, holder: Holder) -> None:
        """A state is about to go back: what it leaves as segments is written all the same."""
        for h, namespace in self._pending:
            if h is holder:
                tokens = h.sequence.tokens[: h.node.end]
                self._tails.append(Source(h.root, namespace, h.node, tokens))

    def step(self) -> None:
        """File the write that has ended, start the next one. Copies at most one cell of rows."""
        if self._write is not None:
            if not self._write.done.done():
                return
            ended, self._write = self._write, None
            self._may_join = True
            self._file(ended)
        if self.is_idle:
            return
        assert self._terms is not None, "only a cache that attached itself asks for writes"
        self._begin_next(self._terms)

    def _begin_next(self, terms: Terms) -> None:
        """Begin with the next piece of a state, or else of what states left behind."""
        while self._pending:
            holder, namespace = self._pending.popleft()  # gone where the next line raises
            if self._begin(next_of_state(terms, holder, namespace)):
                self._pending.appendleft((holder, namespace))
                return
        while self._tails:
            source = self._tails.popleft()  # gone where the next line raises
            if self._begin(next_at_rest(terms, source)):
                self._tails.appendleft(source)
                return

    def skip(self) -> None:
        """Joining files has failed: not again before something new was written."""
        self._may_join = False

    def restart(self, root_of: Callable[[str], Node]) -> None:
        """Begin again with trees that know nothing: write nothing of the old ones."""
        self._pending, self._tails = deque(), deque()
        self._root_of = root_of
        graft(self.store.pieces(self._fingerprint, RESTART_WAIT_S), root_of)

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
        if r.fingerprint == self._fingerprint and self._root_of is not None:
            exchange(self._root_of(r.namespace), made.parts, made.stored)
        self._joined, self._may_join = made.parts, True

    def pays(self, far: RestorePlan, near: int, prefill_tps: float | None) -> bool:
        """Whether reading these files is quicker than reading the tokens again."""
        saved = far.at - near
        if saved < WORTH_READING or self.store.read_stalled_s > PATIENCE_S:
            return False
        files = {f.file_id: f.nbytes for f in far.files}
        rate = self.store.stats().read_bytes_per_s or FIRST_READ_RATE
        read_s = sum(files.values()) / rate + FILE_S * len(files)
        return prefill_tps is None or read_s < saved / prefill_tps

    def forget(self, root: Node, file_id: str) -> None:
        """A file is gone or damaged: nothing stands on it any more."""
        forget_file(root, file_id)

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

    def close(self, grace_s: float) -> bool:
        """Write what is left, for so long; then give the directory back, for so long again.

        False: the disk does not answer, and its threads would keep the process alive.
        """
        until = time.monotonic() + grace_s
        self.step()
        while not self.is_idle and time.monotonic() < until:
            time.sleep(0.002)
            self.step()
        self.store.flush(max(until - time.monotonic(), 0.1))
        return self.store.close(grace_s)

    def _begin(self, copy: Copy | None) -> bool:
        """Give a piece to the store. False: there is none."""
        if copy is None:
            return False
        of, start, end = copy.of, copy.start, copy.end
        tokens = of.tokens[:end]
        trail = Trail(self._fingerprint, of.namespace)
        parent = trail.feed(tokens[:start])
        position = trail.feed(tokens[start:])
        record = PieceRecord(
            copy.kind, self._fingerprint, of.namespace, parent, position, start, end,
            tokens[start:], copy.mark,
        )  # fmt: skip
        done = self.store.write(record, *copy.made)
        is_checkpoint = copy.kind == "checkpoint"
        self._write = _Write(done, of.root, of.node, tokens, start, end, copy.nbytes, is_checkpoint)
        done.add_done_callback(lambda _: self._wake())
        return True

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
            shelve_rows(steps, Segment(piece, write.start, write.start, write.end))
        elif steps[-1].node.end == write.end:
            steps[-1].node.shelved_checkpoint = piece
            path = write.node.path()
            self._thin(path if steps[-1].node in path else steps[-1].node.path())

    def _thin(self, path: list[Node]) -> None:
        """Delete the checkpoints of a conversation that others have made unnecessary."""
        share = self.store.stats().budget_bytes // policy.CONVERSATION_SHARE
        going = superseded(path, self._rules, share)
        if going:
            self.store.delete([n.shelved_checkpoint.file_id for n in going if n.shelved_checkpoint])
        for node in going:
            node.shelved_checkpoint = None


def _node_of(source: tuple[Holder, str] | Source) -> Node:
    return source.node if isinstance(source, Source) else source[0].node
