"""Reasoning that a client carries without reading it, and brings back.

Packed, not encrypted: it is the user's own, on the user's own machine. It makes a conversation
survive what the server forgets. A seal that is not ours, or is damaged, holds nothing.
"""

from __future__ import annotations

import base64
import binascii
import zlib

_MARK = "ew1."
_MAX = 16 * 2**20


def seal(text: str) -> str:
    """Pack a text into characters that every client passes on."""
    raw = text.encode("utf-8", "surrogatepass")
    return _MARK + base64.urlsafe_b64encode(zlib.compress(raw, 1)).decode()


def unseal(sealed: str) -> str:
    """The text of a seal; empty where it is not ours or damaged."""
    if not sealed.startswith(_MARK):
        return ""
    try:
        packed = base64.b64decode(sealed[len(_MARK) :], altchars=b"-_", validate=True)
        opened = zlib.decompressobj()
        raw = opened.decompress(packed, _MAX)
        return "" if not opened.eof else raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, zlib.error, ValueError):
        return ""
