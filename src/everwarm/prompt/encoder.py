"""Encodes texts piece by piece, and remembers the tokens of each piece.

    text    <|im_start|>user\\nhello <|im_end|>\\n <|im_start|>assistant\\n
    pieces  ^                       ^             ^      each begins with a special token

A text comes quoted (`quote.py`). Cut right before a special token, its pieces have the same tokens
as the whole (the codec tries that when it is loaded); cut elsewhere, they may not.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass

from everwarm.codec import Codec
from everwarm.prompt.quote import Quotes, any_of
from everwarm.tokens import Tokens, common_length, tokens_of

KNOWN_BYTES = 32 * 2**20
"""Bytes that known pieces and their tokens may take: some twenty long conversations."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Tokens of a text; `starts` are (character, token) of each piece's start, ascending.

    `text` is unquoted. `specials` are (start, end) of the special tokens' texts, in characters,
    ascending.
    """

    text: str
    tokens: Tokens[int]
    starts: list[tuple[int, int]]
    specials: list[tuple[int, int]]


class TextEncoder:
    """Encodes texts with one codec. Live: owned by the render thread."""

    def __init__(
        self, codec: Codec, quotes: Quotes | None = None, *, max_bytes: int = KNOWN_BYTES
    ) -> None:
        self._codec, self._quotes = codec, quotes or Quotes(())
        self._special = any_of(codec.special_texts)
        self._controls = frozenset(codec.control_texts)
        self._known: OrderedDict[str, Tokens[int]] = OrderedDict()
        self._max_bytes = max_bytes
        self.nbytes = 0

    def encode(self, quoted: str) -> EncodedText:
        """Tokens of a quoted text and where its pieces start."""
        text, specials = self._quotes.unquoted(quoted), self.specials_in(quoted)
        cuts = [0]
        if self._codec.splits_at_specials:
            cuts += [start for start, _ in specials if start]
        tokens, starts = tokens_of(), []
        for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True):
            piece = quoted[a:b]
            ids = self._known.get(piece)
            if ids is None:
                ids = tokens_of(self._encode(piece, text[a:b]))
                self._keep(piece, ids)
            else:
                self._known.move_to_end(piece)
            starts.append((a, len(tokens)))
            tokens.extend(ids)
        return EncodedText(text, tokens, starts, specials)

    def _encode(self, quoted: str, text: str) -> list[int]:
        """Ids of one piece."""
        if quoted == text or self.specials_in(text) == (real := self.specials_in(quoted)):
            return self._codec.encode(text)
        return self._codec.encode_around(
            text, [(a, b) for a, b in real if text[a:b] in self._controls]
        )

    def _keep(self, piece: str, ids: Tokens[int]) -> None:
        """Remember a piece; above the bound, drop those used least recently."""
        self._known[piece] = ids
        self.nbytes += _nbytes(piece, ids)
        while self.nbytes > self._max_bytes:
            self.nbytes -= _nbytes(*self._known.popitem(last=False))

    def specials_in(self, text: str) -> list[tuple[int, int]]:
        """Where special tokens' texts stand: (start, end) in characters."""
        return [m.span() for m in self._special.finditer(text)]

    def token_at(self, encoded: EncodedText, at: int) -> int:
        """The last token that begins at this character or before it, whatever followed the text
        up to here."""
        start, token = max(s for s in encoded.starts if s[0] <= at)
        ids = tokens_of(self._codec.encode(encoded.text[start:at]))
        return token + common_length(ids, encoded.tokens, token)

    def text_of(self, tokens: Tokens[int]) -> str:
        """The text of tokens, control tokens included."""
        return self._codec.decode(tokens)

    def cut(self, tokens: Tokens[int], text: str, begin: str) -> Tokens[int] | None:
        """Tokens of a reply whose text is `text`, up to where `begin` ends in it.

        Tokens that end within it stay as they are; the rest of `begin` is encoded.
        """
        detok, said, ends = self._codec.detokenizer(), "", []
        for t in tokens:
            said += detok.add(t)
            ends.append(len(said))
        said += detok.finish()
        at = said.rfind(text)
        if at < 0 or not text.startswith(begin):
            return None
        end = at + len(begin)
        kept = [t for t, e in zip(tokens, ends, strict=True) if e <= end]
        rest = said[ends[len(kept) - 1] if kept else 0 : end]
        return tokens_of(kept + (self._codec.encode_around(rest, ()) if rest else []))


def _nbytes(piece: str, ids: Tokens[int]) -> int:
    return sys.getsizeof(piece) + sys.getsizeof(ids)
