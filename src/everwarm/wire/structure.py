"""How much structure a JSON text has, counted before anything is built of it.

Building a text's values takes a hundred times its bytes and holds the interpreter all the while, so
a text with too many values is refused unread. The counting goes slice by slice, which lets other
threads run in between, and stops at the first limit that is passed. The insides of strings do not
count: a text that is one long string is as cheap as a short one.

Not here: whether the text is JSON at all. A parser tells that, and never finds more than we count.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from everwarm.errors import RequestError

MAX_VALUES: Final = 2**19
"""Keys and values; a long conversation with many tools has about ten thousand."""
MAX_CONTAINERS: Final = 2**16
"""Objects and lists, which take the most memory of all values."""
MAX_DEPTH: Final = 250
"""Orjson writes at most 254 levels, so everything up to here can be written again."""
SLICE: Final = 2**17
"""Bytes that are counted at once, in about a millisecond."""

_BRACKETS: Final = b"{}[]"
_NO_BRACKETS: Final = bytes(c for c in range(256) if c not in _BRACKETS)


def check_structure(body: bytes) -> None:
    """Raise RequestError where a JSON text has too many values, or nests too deep."""
    values, containers, depth = 1, 0, 0
    for part in outside_strings(body):
        opened = part.count(b"{") + part.count(b"[")
        containers += opened
        values += opened + part.count(b",") + part.count(b":")
        if containers > MAX_CONTAINERS:
            raise _refusal(f"has more than {MAX_CONTAINERS:,} objects and lists")
        if values > MAX_VALUES:
            raise _refusal(f"has more than {MAX_VALUES:,} keys and values")
        if opened:
            depths = list(accumulate(map(_step, part.translate(None, _NO_BRACKETS)), initial=depth))
            depth = depths[-1]
            if max(depths) > MAX_DEPTH:
                raise _refusal(f"is nested deeper than {MAX_DEPTH} levels")
        else:
            depth -= part.count(b"}") + part.count(b"]")


def outside_strings(body: bytes, slice_nbytes: int = SLICE) -> Iterator[bytes]:
    """The slices of a JSON text, each without its strings."""
    inside, carried = False, b""
    for at in range(0, len(body), slice_nbytes):
        part = carried + body[at : at + slice_nbytes]
        # A backslash at the very end belongs to what follows it.
        is_cut = (len(part) - len(part.rstrip(b"\\"))) % 2
        carried = part[-1:] if is_cut else b""
        part = part[:-1] if is_cut else part
        if b"\\" in part:
            part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
        # A slice has at most as many pieces as bytes: their memory is bounded by its size.
        pieces = part.split(b'"')
        yield b"".join(pieces[inside::2])
        inside ^= len(pieces) % 2 == 0


def _step(bracket: int) -> int:
    return 1 if bracket in b"{[" else -1


def _refusal(what: str) -> RequestError:
    return RequestError(f"The body {what}. Send less at once.")
