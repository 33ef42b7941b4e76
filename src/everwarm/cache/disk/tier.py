"""The door to the disk: what to write behind a turn, and how a state comes back.

    rows on disk     [0, 4096) [4096, 5000) | 5000 … the end: next to be written
    checkpoints      system ^        prompt ^   end of reply ^

Nobody waits for a write: between two steps of the engine, `step` starts the next one, of at most
one cell of rows and `MOST_AT_ONCE` bytes, when all before are done. Rows of a busy state bring the
checkpoint that stands on them. A piece counts as on disk when it is durable. Reading is the same in
the other direction (`restoring.py`).

When nothing has run for a while, `tidy` joins small pieces and has the tree use the new ones.

A fault is a miss: the tree drops the piece, and its tokens are read again. Engine thread only,
except where a method says otherwise.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard

from everwarm.cache import policy, stopgap, tree
from everwarm.cache.disk.blob import PieceKind, PieceRecord
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.files import Files
from everwarm.cache.disk.graft import drop_files, exchange, files_of, graft, needed_for, shelve_rows
from everwarm.cache.disk.health import DiskLimits, DiskStats, Verified
from everwarm.cache.disk.join import Joined
from everwarm.cache.disk.next_write import (
    Copy,
    MakeRoom,
    Source,
    Terms,
    next_at_rest,
    next_of_state,
    next_together,
    written,
)
from everwarm.cache.disk.restoring import MOST_AT_ONCE, PATIENCE_S, Restoring
from everwarm.cache.identity import Trail
from everwarm.cache.policy import CachePolicy
from everwarm.cache.restore import RestorePlan
from everwarm.cache.store import OnDisk, State
from everwarm.cache.thin import superseded
from everwarm.cache.tree import Holder, Node, Segment
from everwarm.job import Path as TokenPath
from everwarm.tokens import Tokens

FILE_S: Final = 0.003
FIRST_READ_RATE: Final = 500e6
WORTH_READING: Final = 64
ALONE: Final = 8


@dataclass(frozen=True, slots=True)
class _Write:
    """A piece on its way to disk: rows from `start`, or a checkpoint, at the end of `tokens`.

    It holds no buffers: those of a piece are freed before the next one is copied.
    """

    of: Source
    kind: PieceKind
    start: int
    tokens: Tokens[int]
    nbytes: int
    done: Future[str | None]


class DiskTier:
    """One model's pieces on disk. `wake` is called from another thread when a write has ended.

    `most_bytes`: of rows copied out between two steps, for which a running reply waits. While
    nobody writes one (`is_replying`), a prompt's rows may be `ALONE` times as many.
    """

    def __init__(
        self,
        store: DiskStore,
        fingerprint: bytes,
        wake: Callable[[], None],
        most_bytes: int = MOST_AT_ONCE,
    ) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._terms: Terms | None = None
        self._rules = CachePolicy()
        self._fingerprint = fingerprint
        self._wake = wake
        self._pending: deque[tuple[Holder, str]] = deque()
        self._tails: deque[Source] = deque()
        self._writes: deque[_Write] = deque()
        self.is_replying = False
        self._joining: Future[Joined | None] | None = None
        self._joined: frozenset[str] = frozenset()
        self._may_join = True
        self._root_of: Callable[[str], Node] | None = None

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        fingerprint: Callable[[], bytes] = bytes,
        wake: Callable[[], None] = lambda: None,
        budget_bytes: int | None,
        write_budget_bytes: int,
        files: Files | None = None,
    ) -> DiskTier:
        """Take a directory. ConfigError: another process has it.

        One that cannot be used gives a tier that says so and keeps nothing. `fingerprint` is called
        when the directory is ours, since it may take minutes. `write_budget_bytes`: for each day.
        """
        limits = DiskLimits(budget_bytes, write_budget_bytes=write_budget_bytes)
        store = DiskStore.open(root, limits=limits, files=files)
        return cls(store, fingerprint(), wake)

    # What it has and does now

    @staticmethod
    def written(node: Node) -> int:
        return written(node.path())  # how far its rows are on disk without a hole

    def stats(self) -> DiskStats:
        """Any thread. Never waits."""
        return self._store.stats()

    @property
    def is_busy(self) -> bool:
        """Somebody computes on this machine: writes rest between slabs, and nothing is joined."""
        return self._store.is_busy

    @is_busy.setter
    def is_busy(self, is_busy: bool) -> None:
        self._store.is_busy = is_busy

    @property
    def writing_nbytes(self) -> int:
        """Bytes that were copied out and are not filed yet."""
        return sum(w.nbytes for w in self._writes)

    @property
    def in_flight_nbytes(self) -> int:
        """Bytes that the next copy may take: always counted, so that no step asks for them."""
        return max(self.writing_nbytes, self._most_bytes)

    @property
    def will_free(self) -> int:
        """Bytes that come back when the writes under way have ended."""
        return self.in_flight_nbytes - self._most_bytes

    @property
    def is_stuck(self) -> bool:
        """The write under way has not moved for too long: its bytes will not be free soon."""
        return self._store.write_stalled_s > PATIENCE_S

    @property
    def is_idle(self) -> bool:
        return not self._pending and not self._tails and not self._writes

    # The tree

    def attach(self, shape: State, budget: int, make_room: MakeRoom, rules: CachePolicy) -> None:
        """Serve a cache of so many bytes. `shape`: an empty state, which knows its layers."""
        self._rules = rules
        self._most_bytes = min(self._most_bytes, budget // policy.WRITE_SHARE)
        self._terms = Terms(shape, self._most_bytes, make_room)

    def graft(self, root_of: Callable[[str], Node], wait_s: float | None = None) -> None:
        """Begin with new trees: put into them what is on disk, write nothing of older ones.

        The trees stay empty where the disk takes longer than `wait_s` to list its pieces.
        """
        self._pending, self._tails = deque(), deque()
        self._root_of = root_of
        graft(self._store.pieces(self._fingerprint, wait_s), root_of)

    def pin(self, roots: Iterable[Node]) -> None:
        """Pin the files that pinned nodes need, and no others."""
        known: set[str] = set()
        needed: set[str] = set()
        for node in (n for root in roots for n in root.below()):
            known |= files_of(node)
            needed |= needed_for(node) if node.is_pinned else set()
        self._store.pin(known - needed, False)
        self._store.pin(needed, True)

    def drop_files(self, file_ids: frozenset[str], roots: Iterable[Node]) -> None:
        """Let nothing in the trees rest on files that were deleted."""
        for root in roots:
            drop_files(root, file_ids)

    # Reading

    def pays(self, far: RestorePlan, near: int, prefill_tps: float | None) -> bool:
        """Whether reading these files is quicker than reading the tokens again."""
        saved = far.at - near
        if saved < WORTH_READING or self._store.read_stalled_s > PATIENCE_S:
            return False
        files = {f.file_id: f.nbytes for f in far.files}
        rate = self._store.stats().read_bytes_per_s or FIRST_READ_RATE
        read_s = sum(files.values()) / rate + FILE_S * len(files)
        return prefill_tps is None or read_s < saved / prefill_tps

    def restore(self, chosen: RestorePlan, holder: Holder, tokens: Tokens[int]) -> Restoring:
        """Begin to read what a plan adds to a holder's sequence."""
        return Restoring(self._store, chosen, holder.sequence, tokens)

    # Writing

    def keep(self, holder: Holder, namespace: str) -> None:
        """Write what this state holds and the disk does not, piece by piece from now on.

        What is there already counts as used by one more request.
        """
        used = {f for n in holder.node.path() for f in files_of(n)}
        if used and not holder.busy:
            self._store.touch(used)
        if all(h is not holder for h, _ in self._pending):
            self._pending.append((holder, namespace))

    def keep_tail(self, holder: Holder) -> None:
        """A state is about to be rewound: write what it leaves as segments all the same."""
        for h, namespace in self._pending:
            if h is holder:
                tokens = h.sequence.tokens[: h.node.end]
                self._tails.append(Source(h.root, namespace, h.node, tokens))

    def drop(self, holder: Holder) -> None:
        """Write no more of this state."""
        self._pending = deque(p for p in self._pending if p[0] is not holder)

    def step(self) -> None:
        """File the writes that have ended; if that is all of them, start the next ones."""
        while self._writes and self._writes[0].done.done():
            write = self._writes.popleft()
            self._may_join, done = True, write.done
            self._file(write, done.result() if done.exception() is None else None)
        if self._writes or self.is_idle:
            return
        assert self._terms is not None, "only a cache that attached itself asks for writes"
        self._begin_next(self._terms)

    def _begin_next(self, terms: Terms) -> None:
        """Begin with the next piece of a state, or else of what states left behind."""
        while self._pending:
            holder, namespace = self._pending.popleft()  # not put back where the next line raises
            first = next_of_state(terms, holder, namespace)
            if self._begin(first):
                self._begin_together(terms, holder, first)
                if holder.busy:  # others have their turn: what it reads may outrun the disk
                    self._pending.append((holder, namespace))
                else:
                    self._pending.appendleft((holder, namespace))
                return
        while self._tails:
            source = self._tails.popleft()  # not put back where the next line raises
            if self._begin(next_at_rest(terms, source)):
                self._tails.appendleft(source)
                return

    def _begin_together(self, terms: Terms, holder: Holder, first: Copy) -> None:
        """Begin with what makes a busy state's rows useful to another engine."""
        is_alone = not self.is_replying and self._store.stats().state == "ok"
        most = terms.most_bytes * (ALONE if is_alone else 1)
        last: Copy | None = first
        while last is not None:
            last = next_together(terms, holder, first, last, self.writing_nbytes, most)
            self._begin(last)

    def _begin(self, copy: Copy | None) -> TypeGuard[Copy]:
        """Give a piece to the store. False: there is none."""
        if copy is None:
            return False
        of, start, end = copy.of, copy.start, copy.end
        tokens = of.tokens[:end]
        own = tokens[start:]
        trail = Trail(self._fingerprint, of.namespace)
        parent, position = trail.feed(tokens[:start]), trail.feed(own)
        record = PieceRecord(
            copy.kind, self._fingerprint, of.namespace, parent, position, start, end, own, copy.mark
        )
        done = self._store.write(record, *copy.made)
        self._writes.append(_Write(of, copy.kind, start, tokens, copy.nbytes, done))
        done.add_done_callback(lambda _: self._wake())
        return True

    def _file(self, write: _Write, file_id: str | None) -> None:
        """Note in the tree what was written. If it was not, leave its source to a later turn."""
        of, end = write.of, len(write.tokens)
        if file_id is None:
            self._pending = deque(p for p in self._pending if of.node not in p[0].node.path())
            if self._tails and self._tails[0].node is of.node:
                self._tails.popleft()
            return
        piece = OnDisk(file_id, write.nbytes)
        steps = tree.match(of.root, write.tokens)
        if not steps or steps[-1].upto < end:
            return
        if write.kind == "segment":
            shelve_rows(steps, Segment(piece, write.start, write.start, end))
        else:
            # Its node may have grown since, where memory has dropped the checkpoint meanwhile.
            node = tree.node_at(steps[-1])
            node.shelved_checkpoint = piece
            self._drop_stopgaps(node)
            path = of.node.path()
            self._thin(path if node in path else node.path())

    def _thin(self, path: list[Node]) -> None:
        """Delete the checkpoints of a conversation that others have made unnecessary."""
        share = self._store.stats().budget_bytes // policy.CONVERSATION_SHARE
        self._delete_checkpoints(superseded(path, self._rules, share))

    def _drop_stopgaps(self, node: Node) -> None:
        """Drop those that the checkpoint at this node, now on disk, makes unnecessary."""
        going = stopgap.passed(node.path())
        for n in going:
            n.checkpoint = None
        self._delete_checkpoints(going)

    def _delete_checkpoints(self, going: list[Node]) -> None:
        """Delete these nodes' checkpoints on disk."""
        files = [n.shelved_checkpoint.file_id for n in going if n.shelved_checkpoint]
        if files:
            self._store.delete(files)
        for node in going:
            node.shelved_checkpoint = None

    # While nothing runs

    @property
    def is_tidy(self) -> bool:
        """A call of `tidy` would do nothing now."""
        return not (self._may_join if self._joining is None else self._joining.done())

    def tidy(self) -> None:
        """Join small pieces, a step a call, while no job runs or waits for a file."""
        if self._joining is None:
            self._store.delete_doubles(self._joined)
            self._joined = frozenset()
            self._joining = self._store.join()
            self._joining.add_done_callback(lambda _: self._wake())
            self._may_join = False
        elif self._joining.done():
            made = None if self._joining.exception() else self._joining.result()
            self._joining = None
            if made is not None:
                self._take_joined(made)

    def _take_joined(self, made: Joined) -> None:
        """Have the tree use the new piece. The old ones are deleted at the next call of `tidy`."""
        r = made.stored.record
        if r.fingerprint == self._fingerprint and self._root_of is not None:
            exchange(self._root_of(r.namespace), made.parts, made.stored)
        self._joined, self._may_join = made.parts, True

    def skip(self) -> None:
        """A step has failed: join nothing before something new was written."""
        self._may_join = False

    # For people. Any thread; these wait for the disk

    def delete(self, paths: Sequence[TokenPath]) -> frozenset[str]:
        """Delete the files that hold tokens of these paths alone, and all that stands on them.

        Which were deleted: `drop_files` has to follow.
        """
        return self._store.delete_paths(paths).result()

    def delete_all(self) -> int:
        """Delete everything; how many pieces."""
        return self._store.delete_all().result()

    def evict(self) -> int:
        """Delete what is of no use or over the budget; how many pieces."""
        return self._store.evict().result()

    def verify(self) -> Verified:
        """Read everything, and delete what is damaged."""
        return self._store.verify().result()

    def close(self, grace_s: float) -> bool:
        """Write what is left, for so long; then give the directory back, for so long again.

        False: the disk does not answer, and its threads would keep the process alive.
        """
        until = time.monotonic() + grace_s
        self.step()
        while not self.is_idle and time.monotonic() < until:
            time.sleep(0.002)
            self.step()
        self._store.flush(max(until - time.monotonic(), 0.1))
        return self._store.close(grace_s)
