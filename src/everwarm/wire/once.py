"""A message that came before is not validated again: a conversation comes whole at every turn.

What a message was read as is kept by its exact JSON, in which `1`, `1.0` and `true` differ; those
not seen for longest go first. Used on the event loop alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import orjson

_LIMIT: Final = 16 << 20


class Once:
    """A wrap validator of pydantic that remembers, by at most `limit` bytes of JSON."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self._bytes, self._limit = 0, limit

    def __call__(self, value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            spelled = orjson.dumps(value)
        except TypeError:  # nested too deep, as a rule: `validate` says what is wrong
            return validate(value)
        known = self._kept.get(spelled)
        if known is not None:
            self._kept.move_to_end(spelled)
            return known
        read = validate(value)
        self._kept[spelled] = read
        self._bytes += len(spelled)
        while self._bytes > self._limit:
            oldest, _ = self._kept.popitem(last=False)
            self._bytes -= len(oldest)
        return read
