"""Sample pieces of cache for tests: literal records, layers and bytes."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from typing import Any

from everwarm.cache.disk.blob import Array, Blob, Layer, PieceRecord, arrays_of
from everwarm.cache.disk.disk_store import DiskStore, blob
from everwarm.cache.disk.health import GB, DiskLimits
from everwarm.cache.disk.index import Stored
from everwarm.cache.identity import Trail
from everwarm.errors import CacheFault
from everwarm.tokens import Tokens, tokens_of

MODEL = hashlib.sha256(b"a model").digest()
OTHER = hashlib.sha256(b"another model").digest()
ROOMY = DiskLimits(budget_bytes=GB, keep_free_bytes=0)
FILE_ID = "0123456789abcdef" * 2
Open = Callable[..., DiskStore]


def files_in(store: DiskStore) -> list[str]:
    return sorted(p.name for p in (store.root / "pieces").iterdir())


def segment_layers(rows: int, width: int = 8, n_layers: int = 2) -> tuple[Layer, ...]:
    a = Array("BF16", (1, 2, rows, width))
    return tuple(Layer("cuttable", rows, (a, a)) for _ in range(n_layers))


def checkpoint_layers(at: int) -> tuple[Layer, ...]:
    ring, state = Array("F16", (1, 2, 6, 4)), Array("F32", (1, 4, 4))
    return (Layer("windowed", 6, (ring, ring, at, 3)), Layer("opaque", at, (state, None)))


def bytes_for(layers: tuple[Layer, ...], seed: object = 0) -> list[bytes]:
    rng = random.Random(str(seed))
    return [rng.randbytes(a.nbytes) for a in arrays_of(layers)]


def blank_for(layers: tuple[Layer, ...]) -> list[bytearray]:
    return [bytearray(a.nbytes) for a in arrays_of(layers)]


def record(
    tokens: Tokens[int],
    start: int,
    end: int,
    *,
    kind: str = "segment",
    model: bytes = MODEL,
    namespace: str = "",
    mark: str | None = None,
) -> PieceRecord:
    """The record of [start, end) of a sequence."""
    trail = Trail(model, namespace)
    parent = trail.feed(tokens[:start])
    position = trail.feed(tokens[start:end])
    return PieceRecord(
        kind,  # type: ignore[arg-type]
        model,
        namespace,
        parent,
        position,
        start,
        end,
        tokens[start:end],
        mark,
    )


def sequence(n: int, seed: object = 0) -> Tokens[int]:
    rng = random.Random(f"tokens {seed}")
    return tokens_of(rng.randrange(50_000) for _ in range(n))


def keep(
    store: DiskStore,
    tokens: Tokens[int],
    start: int,
    end: int,
    *,
    layers: tuple[Layer, ...] | None = None,
    **about: Any,
) -> str | None:
    """Write the piece of [start, end) and wait: its id, or None."""
    r = record(tokens, start, end, **about)
    layers = layers or (
        segment_layers(end - start) if r.kind == "segment" else checkpoint_layers(end)
    )
    return store.write(r, layers, bytes_for(layers, r.position)).result(30)


def fetch(store: DiskStore, file_id: str) -> list[bytes]:
    """A piece's bytes, the way the engine gets them."""
    return [bytes(b) for b in store.load(file_id).result(30)[1]]


def is_right(store: DiskStore, stored: Stored) -> bool:
    """Whether a piece holds what `keep` wrote for its position. CacheFault: it cannot be read."""
    found, buffers = store.load(stored.file_id).result(30)
    assert found.record == stored.record
    return [bytes(b) for b in buffers] == bytes_for(found.layers, stored.record.position)


def file_of(r: PieceRecord, layers: tuple[Layer, ...], data: list[bytes]) -> bytes:
    """A whole file."""
    return blob.encode(FILE_ID, r, layers, blob.flat(arrays_of(layers), data)) + b"".join(data)


def sample_file() -> bytes:
    layers = (*segment_layers(20), *checkpoint_layers(20))
    return file_of(record(sequence(20), 0, 20, mark="user"), layers, bytes_for(layers))


def read_file(file: bytes) -> tuple[Blob, list[bytes]]:
    """All of a file, checked, the way the store does it."""
    n = blob.head_length(file[: blob.FIRST_BYTES], len(file))
    b = blob.parse(file[:n], len(file))
    out, at = [], n
    for a, sums in zip(b.arrays, b.sums, strict=True):
        data = memoryview(file)[at : at + a.nbytes]
        if [blob.checksum(c) for c in blob.chunks(data)] != list(sums):
            raise CacheFault("checksum")
        out.append(bytes(data))
        at += a.nbytes
    return b, out


def sealed(text: bytes, data: bytes) -> bytes:
    """A file with any text as its header, its lengths and checksum right."""
    start = blob._preamble(88 + len(text) + len(data), MODEL, bytes(16))[:-16]
    body = struct.pack("<Q", len(text)) + text
    return start + blob.xxhash.xxh3_128_digest(start + body) + body + data
