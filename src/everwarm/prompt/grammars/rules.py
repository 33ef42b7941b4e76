"""The rules of one grammar, over texts and a model's control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from everwarm.codec import Codec

ANY_TEXT = r"/(.|\n)*/"
_ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""Arguments stand on one line, as templates write them."""


class GrammarRules:
    """Collects rules as they are needed. Live: for as long as one grammar is written."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._rules: list[str] = []
        self._specials = sorted((t for t in codec.special_texts if t), key=len, reverse=True)

    def grammar(self, *first: str) -> str:
        """The grammar whose first lines these are: all rules stand behind them."""
        return "\n".join([*first, *self._rules, ""])

    def rule(self, name: str, body: str, suffix: str = "") -> str:
        """Name a rule. `suffix`: a literal at which it ends, and which it takes."""
        made = f"{name}_{len(self._rules)}"
        self._rules.append(f"{made}{f'[suffix={suffix}]' if suffix else ''}: {body}")
        return made

    def json(
        self,
        schema: Mapping[str, Any],
        *,
        lenient: bool = True,
        spacing: Mapping[str, Any] = _ONE_LINE,
    ) -> str:
        """JSON of a schema. `lenient`: parts of it that no grammar can hold are left out."""
        options = {**spacing, "lenient": lenient}
        return self.rule("json", f"%json {json.dumps({**schema, 'x-guidance': options})}")

    def literal(self, text: str) -> str:
        """A text as it stands, its control tokens by their ids."""
        out = []
        for piece in self._pieces(text):
            ids = self._codec.encode(piece) if piece in self._specials else []
            out.append(f"<[{ids[0]}]>" if len(ids) == 1 else words(piece))
        return " ".join(out)

    def text_until(self, close: str) -> str:
        """Any text, and the tag that ends it: the first one, for the reader does not look further.

        Blanks in front of the tag are not asked for: they are the text's. A control token in the
        tag ends the text by itself, and what stands before it in the tag is the text's last part:
        the lexer takes the longest match, and would not give it back.
        """
        core = close.strip()
        rest = self.literal(close[close.index(core) + len(core) :])
        spelled = self.literal(core)
        if spelled == words(core):
            return f"{self.rule('value', ANY_TEXT, suffix=spelled)} {rest}"
        token = spelled.index("<[")
        lead = spelled[:token].strip()
        before = json.loads(lead) if lead else ""
        text = self.rule("value", rf"/(.|\n)*{re.escape(before).replace('/', chr(92) + '/')}/")
        return f"{text} {spelled[token:]} {rest}"

    def begins_with_token(self, text: str) -> bool:
        """Whether a text begins with a control token."""
        pieces = self._pieces(text)
        return bool(pieces) and pieces[0] in self._specials

    def _pieces(self, text: str) -> list[str]:
        if not self._specials:
            return [text] if text else []
        cut = re.split("(" + "|".join(map(re.escape, self._specials)) + ")", text)
        return [c for c in cut if c]


def words(text: str) -> str:
    """What a client wrote, such as a name: it is text, also where it is a control token's."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def schemas_of(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """An object's properties with their schemas; an empty one where it is no object itself."""
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    return {k: own if isinstance(own, Mapping) else {} for k, own in known.items()}
