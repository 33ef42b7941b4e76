"""Frames on a stream socket: four bytes with a length, little-endian, then so many bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

HEADER: Final = struct.Struct("<I")
MOST_BYTES: Final = 1 << 30
"""A longer frame is a fault: this is 250 million tokens."""
FIRST_BYTES: Final = 1 << 10
"""The first one only says who is there."""


class BadFrame(ValueError):
    """What arrived is no frame."""


def joined(bodies: Sequence[bytes]) -> bytes:
    """Several bodies as frames, for one write."""
    return b"".join(part for body in bodies for part in (HEADER.pack(len(body)), body))


def frames(stream: BinaryIO) -> Iterator[bytes]:
    """The bodies of the frames that arrive, until the other end closes between two of them.

    Blocks. Raises BadFrame where it closes within one, or the length cannot be.
    """
    most = FIRST_BYTES
    while head := stream.read(HEADER.size):
        if len(head) < HEADER.size:
            raise BadFrame("The stream ended within a frame's length.")
        (size,) = HEADER.unpack(head)
        if size > most:
            raise BadFrame(f"A frame says that it has {size:,} bytes; the most are {most:,}.")
        body = stream.read(size)
        if len(body) < size:
            raise BadFrame("The stream ended within a frame.")
        yield body
        most = MOST_BYTES
