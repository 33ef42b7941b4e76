"""Text to tokens, piece by piece: what was encoded once is looked up.

    text    <|im_start|>user\\nhello <|im_end|>\\n <|im_start|>assistant\\n
    pieces  ^                       ^             ^      each begins with a special token

Cut directly before a special token, a text has the same tokens in pieces as in one (proved by the
codec when it is loaded); anywhere else it may not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from everwarm.codec import Codec
from everwarm.prompt.verbatim import Bounded
from everwarm.tokens import Tokens, tokens_of

_PIECES = 16384


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a text; `starts` are (character, token) of each piece's start, ascending.

    `specials` are (start, end) of the control tokens' texts, in characters, ascending.
    """

    tokens: Tokens[int]
    starts: list[tuple[int, int]]
    specials: list[tuple[int, int]]


class Pieces:
    """Encodes texts with one codec. Live: owned by the renderer's thread."""

    def __init__(self, codec: Codec) -> None:
        specials = sorted((s for s in codec.special_texts if s), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, specials))) if specials else None
        self._codec = codec
        self._known: Bounded[str, Tokens[int]] = Bounded(_PIECES)

    def encode(self, text: str) -> Encoded:
        """Tokens of a text and where its pieces start."""
        specials = self.specials_in(text)
        cuts = [0]
        if self._codec.splits_at_specials:
            cuts += [start for start, _ in specials if start]
        tokens, starts = tokens_of(), []
        for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True):
            piece = text[a:b]
            ids = self._known.use(piece)
            if ids is None:
                ids = tokens_of(self._codec.encode(piece))
                self._known.put(piece, ids)
            starts.append((a, len(tokens)))
            tokens.extend(ids)
        return Encoded(tokens, starts, specials)

    def specials_in(self, text: str) -> list[tuple[int, int]]:
        """Where control tokens' texts stand: (start, end) in characters."""
        return [m.span() for m in self._special.finditer(text)] if self._special else []

    def cut(self, tokens: Tokens[int], text: str, begin: str) -> Tokens[int] | None:
        """Tokens of a reply whose text is `text`, up to where `begin` ends in it.

        The tokens that end there stay as they are; what is left of `begin` is encoded.
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
        return tokens_of(kept + (self._codec.encode(rest) if rest else []))
