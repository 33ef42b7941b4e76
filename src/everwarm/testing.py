"""The oracle: a model whose next token is a hash of everything that its state holds. No MLX.

Its state holds literal token ids in the three ways in which real layers hold what they read:

    rows   cuttable   one per token
    ring   windowed   the last WINDOW tokens, position p in slot p % WINDOW
    fold   opaque     one number that every token goes into, and that does not go back

A token that was lost, doubled or read twice changes every token after it, so that reuse that went
wrong fails an equality test, at the speed of lists. `OracleRun` runs a job over the real cache as
`engine.run.Run` does; `reply_to` says what it must answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from everwarm.cache.cache import Cache, Lease
from everwarm.cache.disk.blob import Array, Layer
from everwarm.cache.sequence import Sequence
from everwarm.cache.store import Bytes
from everwarm.errors import EngineError
from everwarm.tokens import Mark, Tokens, tokens_of

OracleLayer = Literal["rows", "ring", "fold"]
VOCABULARY: Final = 4096
WINDOW: Final = 8
EOS_IDS: Final = frozenset(range(0, VOCABULARY, 6))
ORACLES: Final[dict[str, tuple[OracleLayer, ...]]] = {
    "cuttable": ("rows",),
    "windowed": ("rows", "ring"),
    "hybrid": ("rows", "fold"),
    "recurrent": ("fold",),
    "mixed": ("rows", "ring", "fold"),
}
SPILL_EVERY: Final = 32
RESERVE: Final = 4
"""Rows that an idle state has room for beyond its own."""
_ROW_BYTES, OTHER_BYTES = 10, 200
_PRIME: Final = (1 << 61) - 1


def _folded(value: int, token: int) -> int:
    return (value * 1_000_003 + token + 1) % _PRIME


def _token_of(rows: Tokens[int], window: Tokens[int], fold: int) -> int:
    seen = zlib.crc32(window.tobytes(), zlib.crc32(rows.tobytes(), fold & 0xFFFFFFFF))
    return (seen ^ (fold >> 32)) % VOCABULARY


def next_token(context: Tokens[int], layers: Many[OracleLayer]) -> int:
    """What the oracle says after a literal context."""
    fold = 0
    if "fold" in layers:
        for token in context:
            fold = _folded(fold, token)
    return _token_of(
        context if "rows" in layers else tokens_of(),
        context[-WINDOW:] if "ring" in layers else tokens_of(),
        fold,
    )


def reply_to(context: Tokens[int], layers: Many[OracleLayer], n: int) -> list[int]:
    """The first `n` tokens of the oracle's reply, or all up to its stop token."""
    context, out = context[:], list[int]()
    while len(out) < n and (token := next_token(context, layers)) not in EOS_IDS:
        out.append(token)
        context.append(token)
    return out


@dataclass(frozen=True, slots=True)
class OraclePiece:
    """Rows of a token range, or ring and fold at one position."""

    nbytes: int
    rows: Tokens[int]
    ring: tuple[int, ...] = ()
    fold: int = 0


@dataclass(slots=True)
class Trap:
    """Breaks one call of a state: the first of this name. Live: shared by the states of a model."""

    call: str | None = None

    def __call__(self, call: str) -> None:
        if self.call == call:
            self.call = None
            raise EngineError(f"The oracle was told to fail in {call}.")


class OracleState:
    """`cache.store.State` of literal token ids. `trap` breaks calls."""

    can_undo = True

    def __init__(self, layers: Many[OracleLayer] = ORACLES["cuttable"]) -> None:
        self.layers = tuple(layers)
        self.is_cuttable = self.layers == ("rows",)
        self.length = 0
        self.rows = tokens_of()
        self.ring = [0] * WINDOW
        self.fold = 0
        self.copied = 0
        self.trap = Trap()
        self._room = 0
        self._held = 0

    @property
    def nbytes(self) -> int:
        rows = max(self._room, self.length) if "rows" in self.layers else 0
        return _ROW_BYTES * rows + (0 if self.is_cuttable else OTHER_BYTES)

    @property
    def checkpoint_nbytes(self) -> int:
        return 0 if self.is_cuttable else OTHER_BYTES

    def rows_nbytes(self, n: int) -> int:
        return _ROW_BYTES * n if "rows" in self.layers else 0

    def read(self, tokens: Any) -> Any:
        """Read tokens. A failing read leaves the layers uneven, as a real one may."""
        if "rows" in self.layers:
            self.rows.extend(tokens)
        self.trap("read")
        for at, token in enumerate(tokens, self.length):
            self.ring[at % WINDOW] = token
            self.fold = _folded(self.fold, token) if "fold" in self.layers else 0
        self.length += len(tokens)

    def settle(self) -> None:
        pass

    def says(self) -> int:
        """The next token, from what the state holds. Only right behind a read."""
        window = tokens_of()
        if "ring" in self.layers:
            last = range(max(0, self.length - WINDOW), self.length)
            window = tokens_of(self.ring[p % WINDOW] for p in last)
        return _token_of(self.rows, window, self.fold)

    @staticmethod
    def read_together(states: Many[OracleState], tokens: Many[Any]) -> list[Any]:
        """Let each read one token, undoably."""
        for s in states:
            s._held = s.fold
        return [s.read(t) for s, t in zip(states, tokens, strict=True)]

    def undo(self) -> None:
        """Take back the one token that was read. Its slot in the ring is written next."""
        self.length -= 1
        del self.rows[self.length :]
        self.fold = self._held

    def cut(self, start: int, end: int) -> OraclePiece:
        self.trap("cut")
        rows = self.rows[start:end]
        self.copied += len(rows)
        return OraclePiece(_ROW_BYTES * len(rows), rows)

    def release(self, start: int, end: int) -> OraclePiece:
        self.trap("release")
        return self.cut(start, end)

    def checkpoint(self) -> OraclePiece | None:
        if self.is_cuttable:
            return None
        self.trap("checkpoint")
        return OraclePiece(OTHER_BYTES, tokens_of(), tuple(self.ring), self.fold)

    def rewind(self, at: int, checkpoint: OraclePiece | None) -> None:
        del self.rows[at:]
        self.trap("rewind")
        self.length = at
        self.put_back(checkpoint)

    def recover(self, at: int, checkpoint: OraclePiece | None) -> bool:
        """Go back to `at` after a failed read; False where that cannot be done."""
        if not self.is_cuttable and checkpoint is None:
            return False
        self.rewind(at, checkpoint)
        return True

    def extend(self, piece: OraclePiece, start: int, end: int, piece_start: int) -> None:
        self.trap("extend")
        self.rows.extend(piece.rows[start - piece_start : end - piece_start])
        self.length = end

    def put_back(self, checkpoint: OraclePiece | None) -> None:
        if checkpoint is not None:
            self.ring = list(checkpoint.ring)
            self.trap("put_back")
            self.fold = checkpoint.fold

    def rows_out(self, start: int, end: int) -> Bytes:
        self.trap("rows_out")
        return self._rows_out(self.rows[start:end])

    def piece_rows_out(self, piece: OraclePiece, start: int, end: int, piece_start: int) -> Bytes:
        self.trap("piece_rows_out")
        rows = piece.rows[start - piece_start : end - piece_start]
        return self._rows_out(rows)

    def _rows_out(self, rows: Tokens[int]) -> Bytes:
        return _bytes_of(rows, _ROW_BYTES * len(rows)) if "rows" in self.layers else ((), [])

    def rows_in(
        self, held: Many[Layer], buffers: Many[Any], start: int, end: int,
        piece_start: int, room: int
    ) -> None:  # fmt: skip
        self.trap("rows_in")
        for buffer in buffers[:1]:
            rows = tokens_of()
            rows.frombytes(bytes(buffer))
            self.rows.extend(rows[start - piece_start : end - piece_start])
        self._room = max(self._room, room + RESERVE)
        self.length = end

    def checkpoint_out(self, piece: OraclePiece, at: int) -> Bytes | None:
        self.trap("checkpoint_out")
        layers, buffers = _bytes_of(tokens_of(piece.ring), OTHER_BYTES)
        return (Layer("windowed", at, (*layers[0].parts, str(piece.fold))),), buffers

    def checkpoint_in(self, held: Many[Layer], buffers: Many[Any]) -> OraclePiece:
        self.trap("checkpoint_in")
        ring = tokens_of()
        ring.frombytes(bytes(buffers[0]))
        fold = held[0].parts[-1]
        assert isinstance(fold, str)
        return OraclePiece(OTHER_BYTES, tokens_of(), tuple(ring), int(fold))

    def fork(self, at: int, checkpoint: OraclePiece | None) -> Self:
        self.trap("fork")
        other = type(self)(self.layers)
        other.trap = self.trap
        other.extend(self.cut(0, at), 0, at, 0)
        other.put_back(checkpoint if checkpoint is not None else self.checkpoint())
        return other

    def reserve(self) -> None:
        self.trap("reserve")
        self._room = max(self._room, self.length + RESERVE)

    def reserve_to(self, rows: int) -> None:
        pass


def _bytes_of(tokens: Tokens[int], nbytes: int) -> Bytes:
    """Tokens as the engine writes rows; as many bytes on disk as in memory."""
    n = len(tokens)
    arrays = Array("I32", (n,)), Array("U8", (nbytes - 4 * n,))
    return (Layer("cuttable", n, arrays),), [tokens.tobytes(), bytes(nbytes - 4 * n)]


class OracleRun:
    """One job on the oracle: lease, prefill with checkpoints, decode one ahead, commit.

    `step` until `over`; `cancel` between any two steps keeps what was read. It spills far more
    often than the engine, whose conversations are longer.
    """

    def __init__(
        self,
        cache: Cache,
        tokens: Tokens[int],
        marks: tuple[Mark, ...],
        *,
        namespace: str = "",
        max_tokens: int = 6,
        chunk: int = 16,
    ) -> None:
        self.cache, self.tokens, self.marks = cache, tokens, marks
        self.namespace, self.max_tokens, self.chunk = namespace, max_tokens, chunk
        self.lease: Lease | None = None
        self.start = 0
        self.prefilled = 0
        self.reply: list[int] = []
        self.over = False
        self._steps: Generator[None] | None = None

    @property
    def is_reading(self) -> bool:
        """Whether the job was taken up and its sequence is whole."""
        return self.lease is not None and self.lease.restoring is None

    @property
    def state(self) -> OracleState | None:
        """The leased state, while there is one."""
        live = self.lease.sequence.live if self.lease is not None else None
        return live if isinstance(live, OracleState) else None

    def step(self) -> bool:
        """Take up the job, or read a chunk or a token. False: it has to wait for another."""
        try:
            if self.lease is None or self.lease.restoring is not None:
                return self._take_up()
            self._steps = self._steps or self._work()
            if next(self._steps, "end") == "end":
                self._finish()
        except EngineError:
            self.close()
            if self.lease is not None:
                self.cache.abandon(self.lease)
            self.lease = None
            raise
        return True

    def _take_up(self) -> bool:
        if self.lease is None:
            rows = len(self.tokens) + self.max_tokens
            found = self.cache.lease(self.tokens, self.marks, self.namespace, rows=rows)
            if not isinstance(found, Lease):
                return False
            self.lease, self.start = found, found.start
            return True
        arrived = self.cache.resume(self.lease)
        self.start = self.lease.start
        if arrived == "lost":
            self.lease = None
        return arrived != "coming"

    def close(self) -> None:
        """Do no more, and hold nothing.

        Only a generator that has begun is closed: Python 3.13.0 never frees what another one holds.
        """
        self.over = True
        if self._steps is not None:
            self._steps.close()

    def cancel(self) -> None:
        """End the job now; what it has read is filed."""
        self._finish()

    def _finish(self) -> None:
        self.close()
        if self.lease is not None and self.lease.restoring is not None:
            self.cache.abandon(self.lease)
        elif self.lease is not None:
            self.cache.commit(self.lease)
        self.lease = None

    def _work(self) -> Generator[None]:
        lease = self.lease
        assert lease is not None
        sequence = lease.sequence
        end = len(self.tokens) - 1
        stops = self.cache.stops(lease, end)
        while sequence.length < end:
            at = sequence.length
            stop = next((c for c in stops if c > at), end)
            to = min((at // self.chunk + 1) * self.chunk, stop, end)
            sequence.prefill(self.tokens[at:to])
            self.prefilled += to - at
            if to in stops:
                self.cache.checkpoint(lease, stops[to])
            if to // SPILL_EVERY > at // SPILL_EVERY:
                self.cache.spill(lease.holder)
            yield
        sequence.read(self.tokens[end:])
        self.prefilled += 1
        yield from self._decode(sequence)

    def _decode(self, sequence: Sequence) -> Iterator[None]:
        """As the engine does: a token is fed before anybody looks at it."""
        while True:
            state = self.state
            assert state is not None
            token = state.says()
            sequence.read_ahead(tokens_of([token]))
            if token in EOS_IDS:
                sequence.undo()
                return
            sequence.look(token)
            self.reply.append(token)
            if self.lease is not None and sequence.length % SPILL_EVERY == 0:
                self.cache.spill(self.lease.holder)
            if len(self.reply) == self.max_tokens:
                return
            yield
