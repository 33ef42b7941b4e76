"""Find a stop text in a reply while it is decoded."""

from __future__ import annotations

from everwarm.codec import Codec


class StopTexts:
    """Watches one reply. Costs nothing where a job has no stop texts."""

    def __init__(self, codec: Codec, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._detokenizer = codec.detokenizer() if stop else None
        self._tail = ""
        self._keep = max((len(s) for s in stop), default=0)

    def completes(self, token: int) -> bool:
        """Whether a stop text is complete with this token."""
        if self._detokenizer is None:
            return False
        self._tail += self._detokenizer.add(token)
        if any(s in self._tail for s in self._stop):
            return True
        self._tail = self._tail[-self._keep :]
        return False
