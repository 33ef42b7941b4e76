"""What a dialect is, as plain data: readers follow it leniently, grammars write it literally.

    [opens … closes]   open  head CALL between CALL tail  close   [text … text]
     reasoning         a section of calls                          an answer

`CALL` is a pattern: literal text with slots. `«name»` is the tool's name, `«arguments»` its
arguments, `«id»` an id that the model makes up, `«n»` a number that it counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

Slot = Literal["name", "arguments", "id", "n"]
_SLOT = re.compile("«(name|arguments|id|n)»")


@dataclass(frozen=True, slots=True)
class Tags:
    """Arguments one by one: `open KEY middle VALUE close`.

    Strings are written as they are, all else as JSON. `others` are the middles for what is no
    string, by JSON type, where they differ. `nests`: keys are tags of their own, `close` has
    «key» in it, and lists and objects inside are written alike, a list's values as `item`.
    """

    open: str
    middle: str
    close: str
    others: tuple[tuple[str, str], ...] = ()
    item: str = ""

    @property
    def nests(self) -> bool:
        return "«key»" in self.close


@dataclass(frozen=True, slots=True)
class Literals:
    """Arguments as an object of the model's own: `open KEY equals VALUE, ... close`.

    `quotes` stand around texts; words without are numbers, `true`, and texts where they are no
    more than that. In `"` and `'` a backslash escapes.
    """

    open: str
    equals: str
    close: str
    quotes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """How one family writes tool calls.

    - `open`, `close`: the section's markers. An empty `close` ends with the call, or the turn.
    - `head`, `tail`: what stands behind `open` and before `close`.
    - `between`: what stands between two calls of a section; None: each has its own section, with
      `apart` between two of them. `apart` None: only one call in a reply.
    - `tags`, `literals`: how arguments are written; with neither, as a JSON object.
    - `own`: calls are in a notation of their own; mlx-lm reads them, each when it is complete.
    - `own_id`: the id that the template knows a call by, where the model writes it itself.
    - `bare`: nothing marks the call but its own text: it is one only at the answer's beginning,
      for a tool that there is.
    """

    open: str
    call: str
    close: str
    head: str = ""
    tail: str = ""
    between: str | None = None
    apart: str | None = ""
    tags: Tags | None = None
    literals: Literals | None = None
    own: bool = False
    own_id: str = ""
    bare: bool = False

    @property
    def parts(self) -> Sequence[tuple[Literal["text"] | Slot, str]]:
        """The call's pattern in order: ("text", literal) and (slot, "")."""
        out: list[tuple[Literal["text"] | Slot, str]] = []
        for i, piece in enumerate(_SLOT.split(self.call)):
            if i % 2:
                out.append((piece, ""))  # type: ignore[arg-type]
            elif piece:
                out.append(("text", piece))
        return out

    @property
    def object(self) -> slice | None:
        """Where in the pattern the call's JSON object stands; None where it is none."""
        return _object_in(self.call)

    @property
    def names_key(self) -> bool:
        """Whether the name is the key of the arguments: {"look": {…}}."""
        return re.search(r'"«name»"\s*:\s*«arguments»', self.call) is not None

    @property
    def keys(self) -> tuple[str, str] | None:
        """The keys of name and arguments, where a call is a JSON object with such keys."""
        name = re.search(r'"([^"«»]+)"\s*:\s*"«name»"', self.call)
        arguments = re.search(r'"([^"«»]+)"\s*:\s*«arguments»', self.call)
        return (name[1], arguments[1]) if name and arguments else None


@cache
def _object_in(call: str) -> slice | None:
    start, end = call.find("{"), call.rfind("}") + 1
    shown = call[start:end].replace("«arguments»", '"«arguments»"') if start >= 0 else ""
    shown = re.sub(r"(?<!\")«n»", "0", shown)
    try:
        value = json.loads(shown)
    except ValueError:
        return None
    whole = isinstance(value, dict) and "«name»" in shown and "«arguments»" in shown
    return slice(start, end) if whole else None


DialectOrigin = Literal["derived", "corrected", "known", "none"]
"""How a model's calls were found: from its template alone; from it, with what it never shows; by
a notation that is known, since the template shows none; not at all."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one model writes.

    - `reasoning`: the markers that open and close it.
    - `calls`: the first is what a grammar writes, all are read.
    - `text`: what opens and closes an answer, where it is marked.
    - `glue`: what stands between two parts of a reply.
    - `ends`: what the model may write at its turn's end although that is no token that ends one.
    - `origin`: how calls were found. `note`: what was corrected, or why there are none.
    """

    name: str
    reasoning: tuple[str, str] | None = None
    calls: tuple[CallSyntax, ...] = ()
    text: tuple[str, str] = ("", "")
    glue: str = ""
    ends: tuple[str, ...] = ()
    origin: DialectOrigin = "known"
    note: str = ""
