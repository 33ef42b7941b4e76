"""One piece of cache as bytes: what a file in `cache/pieces/` holds. `docs/format.md` draws it.

Pure functions over buffers; no files, no threads, no MLX. A reader trusts nothing: every length is
checked against the real one before it is used, and whatever is not exactly right is a `CacheFault`.

    | preamble 80 | N: 8 | JSON header, N bytes | data of array 0 | array 1 | ...
    ^ magic, version, lengths, fingerprint, checksum over preamble and header
                  ^ from here on a safetensors file
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import xxhash

from everwarm.cache.identity import FINGERPRINT_BYTES, PositionId
from everwarm.errors import CacheFault
from everwarm.tokens import Tokens

MAGIC: Final = b"\x89EWKV\r\n\x1a"
VERSION: Final = 1
CHUNK: Final = 4 * 2**20
"""Data is checked in pieces of at most this many bytes, each within one array."""
ALIGN: Final = 64
MAX_HEADER: Final = 64 * 2**20
MAX_POSITION: Final = 2**40
MAX_DEPTH: Final = 8
_PREAMBLE: Final = struct.Struct("<8sIIQ8s32s16s")
_LENGTH: Final = struct.Struct("<Q")
FIRST_BYTES: Final = _PREAMBLE.size + _LENGTH.size
"""Enough to know how long the head is."""

DTYPES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of one number, by safetensors' names."""

PieceKind = Literal["segment", "checkpoint"]


class NewerFormat(CacheFault):
    """Written by a later version of this program: not ours to judge."""


_WORD: Final = re.compile(r"[\w.:-]{0,128}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Array:
    """The shape of one array; its bytes travel beside it, row-major and little-endian."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return DTYPES[self.dtype] * math.prod(self.shape)


StoredValue = Array | int | float | bool | str | None | tuple["StoredValue", ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer's cache holds: its kind, how many rows, and nested arrays and scalars."""

    kind: str
    length: int
    parts: tuple[StoredValue, ...]


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """What a piece is and where it belongs. `tokens` are those of [start, end).

    A segment holds rows [start, end) of the cuttable layers. A checkpoint holds the other layers at
    `end`; its `start` may be any position above, `end` included. `parent` is the id at `start`,
    `position` the id at `end` (`identity.Trail`).
    """

    kind: PieceKind
    fingerprint: bytes
    namespace: str
    parent: PositionId
    position: PositionId
    start: int
    end: int
    tokens: Tokens[int] = field(repr=False)
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """A file's head, checked. `sums[i]` are the checksums of array i's chunks."""

    file_id: str
    record: PieceRecord
    layers: tuple[Layer, ...]
    arrays: tuple[Array, ...]
    sums: tuple[tuple[str, ...], ...]
    data_start: int
    nbytes: int


def arrays_of(part: StoredValue | Layer | Sequence[Layer]) -> list[Array]:
    """Every array inside, depth first: the order of their bytes in the file."""
    if isinstance(part, Array):
        return [part]
    if isinstance(part, Layer):
        part = part.parts
    return [a for p in part for a in arrays_of(p)] if isinstance(part, (tuple, list)) else []


def flat(arrays: Sequence[Array], buffers: Sequence[Any]) -> list[memoryview]:
    """The buffers as plain bytes, in the same memory. ValueError where one does not fit."""
    if len(arrays) != len(buffers):
        raise ValueError(f"{len(buffers)} buffers for {len(arrays)} arrays")
    out = []
    for a, b in zip(arrays, buffers, strict=True):
        view = memoryview(b)
        if view.nbytes != a.nbytes or not view.c_contiguous:
            raise ValueError(f"a buffer of {view.nbytes} bytes for {a}, or not contiguous")
        out.append(view.cast("B") if view.nbytes else memoryview(b""))
    return out


def check_names(r: PieceRecord, layers: Sequence[Layer]) -> None:
    """ValueError: something could be written that `parse` would refuse."""
    for word in (r.namespace, r.mark or "", *(x.kind for x in layers)):
        _match(word, _WORD)
    for position in (r.parent, r.position):
        _match(position, _ID)
    fits = 0 <= r.start <= r.end and len(r.tokens) == r.end - r.start
    if not fits or len(r.fingerprint) != FINGERPRINT_BYTES:
        raise ValueError("range, tokens and fingerprint do not agree")


def chunks(view: memoryview) -> Iterator[memoryview]:
    """One array's bytes in the parts that are checked one by one."""
    return (view[at : at + CHUNK] for at in range(0, len(view), CHUNK))


def checksum(view: memoryview) -> str:
    return xxhash.xxh3_128_hexdigest(view)


def encode(
    file_id: str, record: PieceRecord, layers: tuple[Layer, ...], views: Sequence[memoryview]
) -> bytes:
    """The head of a file: all bytes before the first array's. Reads all data once, to sum it."""
    arrays = arrays_of(layers)
    sums = [[checksum(c) for c in chunks(v)] for v in views]
    offset, header = 0, {"__metadata__": {"everwarm": _piece(file_id, record, layers, sums)}}
    for n, a in enumerate(arrays):
        spec: Any = {
            "dtype": a.dtype,
            "shape": a.shape,
            "data_offsets": [offset, offset + a.nbytes],
        }
        header[str(n)], offset = spec, offset + a.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(FIRST_BYTES + len(text)) % ALIGN)
    body = _LENGTH.pack(len(text)) + text
    length = _PREAMBLE.size + len(body) + offset
    start = _preamble(length, record.fingerprint, bytes(16))[:-16]
    return start + xxhash.xxh3_128_digest(start + body) + body


def _preamble(length: int, fingerprint: bytes, total: bytes) -> bytes:
    return _PREAMBLE.pack(MAGIC, VERSION, CHUNK, length, bytes(8), fingerprint, total)


def _piece(
    file_id: str, r: PieceRecord, layers: tuple[Layer, ...], sums: Sequence[Sequence[str]]
) -> str:
    """Our own part of the header, as the one string that safetensors' metadata allows."""
    names = iter(range(len(sums)))

    def part(p: StoredValue) -> Any:
        if isinstance(p, Array):
            return {"array": next(names)}
        return [part(x) for x in p] if isinstance(p, tuple) else p

    held = [{"kind": x.kind, "length": x.length, "parts": part(x.parts)} for x in layers]
    return json.dumps(
        {
            "id": file_id,
            "kind": r.kind,
            "namespace": r.namespace,
            "parent": r.parent,
            "position": r.position,
            "start": r.start,
            "end": r.end,
            "tokens": base64.b64encode(_little(r.tokens).tobytes()).decode(),
            "mark": r.mark,
            "layers": held,
            "sums": sums,
        },
        separators=(",", ":"),
        allow_nan=False,
    )


def _little(tokens: Tokens[int]) -> Tokens[int]:
    if sys.byteorder == "little":
        return tokens
    swapped = tokens[:]
    swapped.byteswap()
    return swapped


def head_length(first: bytes | bytearray, file_length: int) -> int:
    """How many bytes the head has, from a file's first `FIRST_BYTES` and its real length."""
    if len(first) < FIRST_BYTES:
        raise CacheFault(f"the file is too short: {file_length} bytes")
    magic, version, chunk, length, zero, _, _ = _PREAMBLE.unpack_from(first)
    if magic != MAGIC:
        raise CacheFault("the file is not a piece of cache")
    if version > VERSION:
        raise NewerFormat(f"format version {version}; this program reads {VERSION}")
    if version != VERSION:
        raise CacheFault(f"format version {version}; this program reads {VERSION}")
    if length != file_length:
        raise CacheFault(f"the file has {file_length} bytes and should have {length}")
    (n,) = _LENGTH.unpack_from(first, _PREAMBLE.size)
    if chunk != CHUNK or any(zero) or n > min(MAX_HEADER, file_length - FIRST_BYTES):
        raise CacheFault("the preamble cannot be right")
    return FIRST_BYTES + int(n)


def parse(head: bytes, file_length: int) -> Blob:
    """Check a file's head, all `head_length` bytes of it, and read it."""
    if len(head) != head_length(head, file_length):
        raise CacheFault("the head was cut short")
    cut = _PREAMBLE.size
    if xxhash.xxh3_128_digest(head[: cut - 16] + head[cut:]) != head[cut - 16 : cut]:
        raise CacheFault("the head's checksum is wrong")
    fingerprint = head[cut - 16 - FINGERPRINT_BYTES : cut - 16]
    try:
        header = _json(head[FIRST_BYTES:])
        piece = _json(_of(header.pop("__metadata__"), dict)["everwarm"])
        arrays = _arrays(header, file_length - len(head))
        layers = tuple(_layers(piece["layers"], arrays))
        return Blob(
            _match(piece["id"], _ID),
            _record(piece, fingerprint),
            layers,
            arrays,
            tuple(_sums(piece["sums"], arrays)),
            len(head),
            file_length,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CacheFault(f"the header cannot be read: {type(e).__name__}") from None


def _json(text: bytes | str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise ValueError("a name stands twice")
        return out

    value: dict[str, Any] = _of(json.loads(text, object_pairs_hook=unique), dict)
    return value


def _of(value: Any, kind: type) -> Any:
    """A value of exactly this type: a bool is no int here."""
    if type(value) is not kind:
        raise ValueError(f"not {kind.__name__}")
    return value


def _count(value: Any, limit: int) -> int:
    if not 0 <= _of(value, int) <= limit:
        raise ValueError("out of range")
    return int(value)


def _match(value: Any, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(_of(value, str)):
        raise ValueError("not a name of ours")
    return str(value)


def _arrays(header: dict[str, Any], nbytes: int) -> tuple[Array, ...]:
    """The arrays in order; they must fill the data without a hole."""
    out, offset = [], 0
    for n in range(len(header)):
        spec = _of(header[str(n)], dict)
        dims = _of(spec["shape"], list)
        a = Array(_of(spec["dtype"], str), tuple(_count(d, MAX_POSITION) for d in dims))
        if len(dims) > MAX_DEPTH or spec["data_offsets"] != [offset, offset + a.nbytes]:
            raise ValueError("arrays do not follow one another")
        out.append(a)
        offset += a.nbytes
    if offset != nbytes:
        raise ValueError("arrays do not fill the file")
    return tuple(out)


def _layers(held: Any, arrays: Sequence[Array]) -> Iterator[Layer]:
    n = 0

    def part(p: Any, depth: int) -> StoredValue:
        nonlocal n
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if type(p) is list:
            return tuple(part(x, depth + 1) for x in p)
        if type(p) is dict:
            if p != {"array": n} or n == len(arrays):
                raise ValueError("arrays out of order")
            n += 1
            return arrays[n - 1]
        if p is not None and type(p) not in (int, float, bool, str):
            raise ValueError("not a scalar")
        return p  # type: ignore[no-any-return]

    for x in _of(held, list):
        inner = tuple(part(p, 1) for p in _of(x["parts"], list))
        yield Layer(_match(x["kind"], _WORD), _count(x["length"], MAX_POSITION), inner)
    if n != len(arrays):
        raise ValueError("an array without a layer")


def _sums(sums: Any, arrays: Sequence[Array]) -> Iterator[tuple[str, ...]]:
    for own, a in zip(_of(sums, list), arrays, strict=True):
        if len(_of(own, list)) != -(-a.nbytes // CHUNK):
            raise ValueError("not one checksum a chunk")
        yield tuple(_match(s, _ID) for s in own)


def _record(piece: dict[str, Any], fingerprint: bytes) -> PieceRecord:
    start, end = _count(piece["start"], MAX_POSITION), _count(piece["end"], MAX_POSITION)
    tokens = array("i")
    tokens.frombytes(base64.b64decode(_of(piece["tokens"], str), validate=True))
    if start > end or len(tokens) != end - start or piece["kind"] not in ("segment", "checkpoint"):
        raise ValueError("kind, range and tokens do not agree")
    return PieceRecord(
        piece["kind"],
        fingerprint,
        _match(piece["namespace"], _WORD),
        PositionId(_match(piece["parent"], _ID)),
        PositionId(_match(piece["position"], _ID)),
        start,
        end,
        _little(tokens),
        None if piece["mark"] is None else _match(piece["mark"], _WORD),
    )
