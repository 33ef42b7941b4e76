"""A model's text side, as the rest of the program sees it: text to ids and back, its template.

The one implementation is `text/text_codec.py`; tests may bring others.
Every method may be called from any thread, but a detokenizer has one owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol


class Detokenizer(Protocol):
    """Turns one reply's ids into text as they come. Live: owned by one caller."""

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""

    def finish(self) -> str:
        """The text that was still held back."""


class Writing(Protocol):
    """What shows how a model writes: its template, and the texts of its control tokens."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a turn."""

    @property
    def special_texts(self) -> tuple[str, ...]:
        """The texts of control tokens, each of which encodes to one id wherever it stands."""

    @property
    def template_text(self) -> str:
        """The chat template as written; empty where it is code, or there is none."""

    @property
    def think_markers(self) -> tuple[str, str] | None:
        """Texts that open and close reasoning, where the model has any."""

    @property
    def tool_markers(self) -> tuple[str, str] | None:
        """Texts that open and close a tool call; the second may be empty (ends with the turn)."""

    @property
    def tool_format(self) -> str | None:
        """The name of mlx-lm's parser module for this model's calls, such as `json_tools`."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens included."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        scaffold: bool,
        args: Mapping[str, Any],
        now: datetime | None = None,
    ) -> str:
        """Run the chat template. `scaffold`: with the generation prompt at its end. `now`: the
        time that it sees; None: the real one. The arguments are not changed.

        Raises RequestError(param="messages") with the template's own words where it refuses.
        """


class Codec(Writing, Protocol):
    """Text and tokens of one model."""

    @property
    def fingerprint(self) -> str:
        """Names this tokenizer and its template: remembered tokens are valid for no other."""

    @property
    def control_texts(self) -> tuple[str, ...]:
        """Those of `special_texts` that only a template and the model may write as tokens."""

    @property
    def longest_token(self) -> int:
        """No token stands for more characters than this."""

    @property
    def splits_at_specials(self) -> bool:
        """Cutting a text right before a special token never changes its ids (tried at load)."""

    @property
    def template_constants(self) -> frozenset[str]:
        """The texts that the template writes or compares with; none where it is code."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text: no token is added, texts of control tokens become their ids."""

    def encode_around(self, text: str, controls: Sequence[tuple[int, int]]) -> list[int]:
        """Ids of a text whose control tokens stand at `controls` (start, end), ascending.

        Elsewhere the text of a control token is text. Raises RequestError where the tokenizer has
        no other ids for it.
        """

    def detokenizer(self) -> Detokenizer: ...

    def parse_calls(
        self, text: str, tools: Sequence[Mapping[str, Any]] | None
    ) -> list[dict[str, Any]]:
        """Calls in the text between the tool markers: dicts with `name`, `arguments` (a dict or
        JSON text) and perhaps `id`. Raises ValueError where it is no call."""
