"""Ids of calls: ours, with the id that the model wrote inside.

A reply is found by the ids of its calls in any conversation, so ours cannot be guessed; and they
are letters and digits only, since one client strips all else. A model's own ids are neither: every
conversation has its `functions.look:0`. So clients see our id with what the model wrote at its
end, and the template is shown the model's:

    call«24 hex»n0          <- functions.look:0
    call«24 hex»iA1b2C3d4E  <- A1b2C3d4E
"""

from __future__ import annotations

import re
import secrets

_CARRIED = re.compile(r"call[0-9a-f]{24}(?:n(?P<n>\d+)|i(?P<id>[A-Za-z0-9]+))")


def new_call_id() -> str:
    """A new id, by which the reply is found again."""
    return "call" + secrets.token_hex(12)


def carried(n: str | None, own: str | None) -> str:
    """What of the model's id is put behind ours: a number, or an id; empty where it has neither."""
    if n:
        return f"n{n}"
    return f"i{own}" if own and own.isalnum() and own.isascii() else ""


def own_id(call_id: str, name: str, pattern: str) -> str:
    """The dialect's id by its pattern, such as `functions.«name»:«n»`; else the id as it is."""
    found = _CARRIED.fullmatch(call_id) if pattern else None
    if not found:
        return call_id
    slots = {"name": name, "n": found["n"], "id": found["id"]}
    used = [s for s in slots if f"«{s}»" in pattern]
    if any(slots[s] is None for s in used):
        return call_id
    for s in used:
        pattern = pattern.replace(f"«{s}»", slots[s] or "")
    return pattern
