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
    """Tokens of a text; `starts` are (character, token) of each piece's start, ascending."""

    tokens: Tokens[int]
    starts: list[tuple[int, int]]


class Pieces:
    """Encodes texts with one codec. Live: owned by the renderer's thread."""

    def __init__(self, codec: Codec) -> None:
        specials = sorted((s for s in codec.special_texts if s), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, specials))) if specials else None
        self._codec = codec
        self._known: Bounded[str, Tokens[int]] = Bounded(_PIECES)

    def encode(self, text: str) -> Encoded:
        """Tokens of a text and where its pieces start."""
        cuts = [0]
        if self.special and self._codec.splits_at_specials:
            cuts += [m.start() for m in self.special.finditer(text) if m.start()]
        tokens, starts = tokens_of(), []
        for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True):
            piece = text[a:b]
            ids = self._known.use(piece)
            if ids is None:
                ids = tokens_of(self._codec.encode(piece))
                self._known.put(piece, ids)
            starts.append((a, len(tokens)))
            tokens.extend(ids)
        return Encoded(tokens, starts)

    def find(self, content: str, text: str, at: int) -> int:
        """Where `content` stands from `at` on, never inside a special token's text; or -1."""
        here = text.find(content, at) if content else -1
        if here < 0 or self.special is None:
            return here
        for special in self.special.finditer(text, at):
            if special.start() >= here or here < 0:
                break
            if here < special.end():
                here = text.find(content, special.end())
        return here

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
