"""How a model writes, as plain data: readers follow it leniently, grammars literally.

    [opens … closes]   open  head CALL between CALL tail  close   [text … text]
     reasoning         a section of calls                          an answer

`CALL` is a pattern: text with slots. `«name»` is the tool's name, `«arguments»` its arguments,
`«id»` an id that the model makes up, `«n»` a number that it counts.
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

    Strings are written as they are, all else as JSON. `others` are the middles before values that
    are no strings, by JSON type, where they differ. `nests`: each key is a tag, so that `close` has
    «key» in it; lists and objects are tags in tags, a list's values under the key `item`.
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

    `quotes` stand around texts. A word without quotes is a number, `true` and the like, or else a
    text. Inside `"` and `'` a backslash escapes.
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
    - `between`: what stands between two calls of a section; None: each call has its own section,
      with `apart` between two of them. `apart` None: a reply has only one call.
    - `tags`, `literals`: how arguments are written; with neither, as a JSON object.
    - `own`: the whole call is in a notation of its own, which mlx-lm reads once it is complete.
    - `own_id`: the id that the template knows a call by, where the model writes it itself.
    - `bare`: no marker opens the call, so that it is one only at the answer's beginning, and for a
      tool that exists.
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
"""How the notation of a model's calls was found: derived from its template; derived and completed
by its family; known, since the template shows none; not at all."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one model writes.

    - `reasoning`: the markers that open and close it.
    - `calls`: grammars write the first, readers read all.
    - `text`: what opens and closes an answer, where it is marked.
    - `glue`: what stands between two parts of a reply.
    - `ends`: texts that the model may write at the end of its turn, besides tokens that end it.
    - `origin`: how calls were found. `note`: what was corrected, or why there are no calls.
    """

    name: str
    reasoning: tuple[str, str] | None = None
    calls: tuple[CallSyntax, ...] = ()
    text: tuple[str, str] = ("", "")
    glue: str = ""
    ends: tuple[str, ...] = ()
    origin: DialectOrigin = "known"
    note: str = ""
