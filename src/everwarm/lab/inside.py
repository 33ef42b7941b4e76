"""What an everwarm server tells about itself besides the OpenAI API. Other servers tell nothing."""

from __future__ import annotations

from typing import Any, Final

from everwarm.client import ChatClient
from everwarm.errors import EverwarmError

BYTES: Final = ("cache_bytes", "memory_bytes", "disk_bytes", "disk_written_today_bytes")
PHASES: Final = ("parse_s", "render_s", "wait_s", "restore_s", "prefill_s")


class Inside:
    """A look inside the server, if it is one of ours."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self.ours = self._get("/api/ps") is not None

    def memory(self) -> dict[str, int]:
        """Bytes of the cache, of MLX as a whole and on disk, where the server tells them."""
        engine = (self._get("/api/ps") or {}).get("engine", {}) if self.ours else {}
        return {k: int(engine[k]) for k in BYTES if k in engine}

    def record(self, prompt_tokens: int) -> dict[str, Any]:
        """The record of the latest turn, if its prompt has that length."""
        told = (self._get("/api/turns?limit=1") or {}) if self.ours else {}
        for turn in told.get("turns", []):
            if turn.get("prompt_tokens") == prompt_tokens:
                return dict(turn)
        return {}

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            told = self._client.get(path)
        except EverwarmError:
            return None
        return told if isinstance(told, dict) else None


def context_length(client: ChatClient, model: str) -> int | None:
    """The longest sequence that the server takes, where it says so."""
    for told in client.get("/v1/models").get("data", []):
        if told.get("id") == model:
            length = told.get("context_length") or told.get("max_model_len")
            return int(length) if length else None
    return None
