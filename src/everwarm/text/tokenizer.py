"""A model's tokenizer: text to ids and back, and text in which only some control tokens count.

Control tokens are those that a template or the model may write and nobody else: special ones, and
others that mark reasoning, calls or turns. `encode_around` knows them by their places, never by
their texts: a second tokenizer, the twin, has the same tokens under names that nobody can guess.

    text    <|im_start|>user\\nsay <|im_start|>      only the first is a control token
    twin    <NAME 1>user\\nsay <|im_start|>          the second is nothing but text to the twin

Not here: templates. All calls are thread-safe.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from everwarm.errors import RequestError

_SAMPLES = ("", "a b", " Hello,  world\n\n", "é 漢字 🙂 12", "\tdef f(x):\n    return x")
_MARKER = re.compile(r"<[|｜].+>|<.+[|｜]>|\[/?[A-Z_]+\]")

CharSpan = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Twin:
    """The backend with control tokens renamed. `names`: by text; `ids`: its ids, where others."""

    backend: Any
    names: dict[str, str]
    ids: dict[int, int]


class Tokenizer:
    """Text and ids, over what transformers loads.

    A fast tokenizer is called directly: that needs no lock, and it leaves other threads running.
    Any other is guarded by a lock.
    """

    def __init__(self, tokenizer: Any, template: str, markers: Collection[str]) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        self.special_texts: tuple[str, ...] = tuple(t.content for t in added.values())
        self.control_texts: tuple[str, ...] = tuple(
            t.content for t in added.values() if _is_control(t, template, markers)
        )
        unknown = getattr(tokenizer, "unk_token_id", None)
        self._control_ids = {
            i for i, t in added.items() if t.content in self.control_texts and i != unknown
        }
        # `[^\s\S]` matches nothing.
        longest_first = sorted(self.control_texts, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"[^\s\S]")
        self._fast = self._backend()

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it stands: control tokens' texts become their ids."""
        if self._fast is not None:
            return _ids(self._fast, text)
        with self._lock:
            return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens included."""
        if self._fast is not None:
            return str(self._fast.decode(list(ids), skip_special_tokens=False))
        with self._lock:
            text = self._tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        return str(text)

    def encode_around(self, text: str, controls: Sequence[CharSpan]) -> list[int]:
        """Ids of a text whose control tokens stand at `controls`, ascending; all else is text."""
        if self._fast is not None:
            ids = self._with_twin(text, controls)
            if self._n_controls(ids) == len(controls):
                return ids
        ids = [i for part in self._cut(text, controls) for i in self.encode(part)]
        if self._n_controls(ids) == len(controls):
            return ids
        raise RequestError(
            "A message holds the text of a control token, which this model's tokenizer cannot "
            "write as text. Leave it out, or start the server with control_tokens_in_text.",
            param="messages",
        )

    @cached_property
    def longest_token(self) -> int:
        """No token stands for more characters of a text than this."""
        longest = max((len(t) for t in self._tokenizer.get_vocab()), default=1)
        is_plain = self._fast is not None and self._fast.normalizer is None
        return longest if is_plain else 4 * longest  # what normalises may make a text shorter

    def _backend(self) -> Any | None:
        """The fast tokenizer, where it gives what transformers gives with it."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None or not hasattr(backend, "encode_batch_fast"):
            return None
        backend.no_truncation()
        backend.no_padding()
        for sample in (*_SAMPLES, "".join(f"a {t} b" for t in self.special_texts[:64])):
            expected = list(self._tokenizer.encode(sample, add_special_tokens=False))
            if _ids(backend, sample) != expected:
                return None
            text = self._tokenizer.decode(
                expected, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            if backend.decode(expected, skip_special_tokens=False) != text:
                return None
        return backend

    def _with_twin(self, text: str, controls: Sequence[CharSpan]) -> list[int]:
        twin, parts, end = self._twin, [], 0
        for start, stop in controls:
            parts += [text[end:start], twin.names[text[start:stop]]]
            end = stop
        parts.append(text[end:])
        return [twin.ids.get(i, i) for i in _ids(twin.backend, "".join(parts))]

    @cached_property
    def _twin(self) -> _Twin:
        """Made when the first text needs it."""
        backend = self._fast
        assert backend is not None
        spelled, secret = json.loads(backend.to_str()), secrets.token_hex(16)
        names = {t: f"<{secret}:{n}>" for n, t in enumerate(self.control_texts)}
        for token in spelled["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        spelled |= {"post_processor": None, "truncation": None, "padding": None}
        made = type(backend).from_str(json.dumps(spelled))
        ids = {made.token_to_id(name): backend.token_to_id(t) for t, name in names.items()}
        return _Twin(made, names, ids)

    def _cut(self, text: str, controls: Sequence[CharSpan]) -> list[str]:
        """The text in parts, cut behind the first character of each control text that is none."""
        real = {start for start, _ in controls}
        found = (m.start() for m in self._control.finditer(text))
        cuts = [0, *(start + 1 for start in found if start not in real), len(text)]
        return [text[a:b] for a, b in pairwise(cuts)]

    def _n_controls(self, ids: Sequence[int]) -> int:
        return sum(i in self._control_ids for i in ids)


def _ids(backend: Any, text: str) -> list[int]:
    """`encode_batch_fast` lets other Python threads run; `encode` does not."""
    return list(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def _is_control(token: Any, template: str, markers: Collection[str]) -> bool:
    """Whether only a template or the model may write this added token.

    Others, such as runs of blanks or HTML tags, are ordinary words of some vocabularies.
    """
    text: str = token.content
    if len(text) < 2 or text.isspace():
        return False
    named = text in template or any(text in m for m in markers)
    return bool(token.special or named or _MARKER.fullmatch(text))
