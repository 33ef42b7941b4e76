"""Sample pieces of cache for tests: literal records, layers and bytes."""

from __future__ import annotations

import hashlib
import random

from everwarm.cache.blob import Array, Layer, Record, arrays_of
from everwarm.cache.identity import Trail
from everwarm.tokens import Tokens, tokens_of

MODEL = hashlib.sha256(b"a model").digest()
OTHER = hashlib.sha256(b"another model").digest()
ROW = Array("BF16", (1, 2, 1, 8))


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
) -> Record:
    """The record of [start, end) of a sequence."""
    trail = Trail(model, namespace)
    parent = trail.feed(tokens[:start])
    position = trail.feed(tokens[start:end])
    return Record(
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
