"""Validates a message once: clients send the whole conversation at every turn.

A validated message is kept by its exact JSON, in which `1`, `1.0` and `true` differ. The least
recently used ones are evicted first. Used by all threads that read bodies.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import orjson

_LIMIT: Final = 16 << 20
_OWN: Final = 2048
"""Bytes that a short message takes once validated, besides its JSON."""


class ValidationCache:
    """A wrap validator of pydantic that remembers up to `limit` bytes, counting each message's JSON
    and `own` bytes. Thread-safe."""

    def __init__(self, limit: int = _LIMIT, own: int = _OWN) -> None:
        self._made: OrderedDict[bytes, Any] = OrderedDict()
        self._bytes, self._limit, self._own = 0, limit, own
        self._lock = threading.Lock()

    def __call__(self, value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            key = orjson.dumps(value)
        except TypeError:  # mostly nested too deep: `validate` says what is wrong
            return validate(value)
        with self._lock:
            made = self._made.get(key)
            if made is not None:
                self._made.move_to_end(key)
                return made
        made = validate(value)
        if len(key) + self._own <= self._limit:
            self._keep(key, made)
        return made

    def __len__(self) -> int:
        return len(self._made)

    def _keep(self, key: bytes, made: Any) -> None:
        with self._lock:
            if key not in self._made:
                self._bytes += len(key) + self._own
            self._made[key] = made
            while self._bytes > self._limit:
                oldest, _ = self._made.popitem(last=False)
                self._bytes -= len(oldest) + self._own
