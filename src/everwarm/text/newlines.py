"""A kind of tokenizer that transformers lacks and mlx-lm brings: it spells line ends as `<n>`."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast


class NewlineTokenizer(PreTrainedTokenizerFast):
    """Writes each line end as `<n>` before it encodes, and back after it decodes.

    Models name the class in tokenizer_config.json, so the name is theirs.
    """

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        return list(super().encode(text.replace("\n", "<n>"), **kwargs))

    def decode(self, *args: Any, **kwargs: Any) -> str:
        return str(super().decode(*args, **kwargs)).replace("<n>", "\n")


def register_tokenizers() -> None:
    """Let transformers find our class by its name. May be called again."""
    auto: Any = AutoTokenizer
    auto.register(NewlineTokenizer, fast_tokenizer_class=NewlineTokenizer, exist_ok=True)
