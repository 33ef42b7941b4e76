"""A message that came before is not validated again: a conversation comes whole at every turn.

What a message was read as is kept by its exact JSON, in which `1`, `1.0` and `true` differ; those
not seen for longest go first. Used by all threads that read bodies.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import orjson

_LIMIT: Final = 16 << 20
_OWN: Final = 2048
"""Bytes that what is read of a short message takes, beside its JSON."""


class ValidationCache:
    """A wrap validator of pydantic that remembers, by at most `limit` bytes: of JSON, and `own` for
    each message. Thread-safe."""

    def __init__(self, limit: int = _LIMIT, own: int = _OWN) -> None:
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self._bytes, self._limit, self._own = 0, limit, own
        self._lock = threading.Lock()

    def __call__(self, value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            spelled = orjson.dumps(value)
        except TypeError:  # nested too deep, as a rule: `validate` says what is wrong
            return validate(value)
        with self._lock:
            known = self._kept.get(spelled)
            if known is not None:
                self._kept.move_to_end(spelled)
                return known
        read = validate(value)
        if len(spelled) + self._own <= self._limit:
            self._keep(spelled, read)
        return read

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, spelled: bytes, read: Any) -> None:
        with self._lock:
            if spelled not in self._kept:
                self._bytes += len(spelled) + self._own
            self._kept[spelled] = read
            while self._bytes > self._limit:
                oldest, _ = self._kept.popitem(last=False)
                self._bytes -= len(oldest) + self._own
