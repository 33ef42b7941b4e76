"""Seals: reasoning that a client carries without reading it, and sends back.

A seal is packed, not encrypted: the reasoning is the user's own, on the user's own machine. With it
a conversation survives what the server forgets. A seal that is not ours, or is damaged, is empty.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Final

from everwarm.errors import RequestError

_MARK = "ew1."
MAX_NBYTES: Final = 16 * 2**20
"""Of reasoning in all seals of a body: a small seal may unpack to a thousand times its bytes."""


def seal(text: str) -> str:
    """Pack a text into characters that every client passes on."""
    raw = text.encode("utf-8", "surrogatepass")
    return _MARK + base64.urlsafe_b64encode(zlib.compress(raw, 1)).decode()


class Seals:
    """Opens the seals of one body. Live: belongs to one reading of it."""

    def __init__(self, room_nbytes: int = MAX_NBYTES) -> None:
        self.n_opened = 0
        self._room = room_nbytes

    def unseal(self, sealed: str) -> str:
        """The text of a seal; empty where it is not ours or damaged. Raises RequestError where the
        body's seals hold more than `MAX_NBYTES` in all."""
        if not sealed.startswith(_MARK):
            return ""
        self.n_opened += 1
        try:
            packed = base64.b64decode(sealed[len(_MARK) :], altchars=b"-_", validate=True)
            opened = zlib.decompressobj()
            raw = opened.decompress(packed, self._room + 1)
        except (binascii.Error, zlib.error, ValueError):
            return ""
        self._room -= len(raw)
        if self._room < 0:
            raise RequestError(
                f"Sealed reasoning has more than {MAX_NBYTES:,} bytes in all. Send less of it."
            )
        try:
            return raw.decode("utf-8", "surrogatepass") if opened.eof else ""
        except UnicodeDecodeError:
            return ""
