"""Make docs/wire.md anew from the models that read the bodies."""

from __future__ import annotations

from pathlib import Path

from everwarm.wire.reference import page

PAGE = Path(__file__).parent.parent / "docs" / "wire.md"
HEAD = """\
# What is honoured, refused and noted

Made by `python tools/wire_page.py`; a test holds it to the code and to the SDKs' own types.

Every field of a request is in one of three classes.

- **Honoured**: it does what its format says.
- **Refused**: it would change what you get, and this server cannot do it. The answer is a 400 that
  names the field and says what to do. A value that asks for nothing (`false`, `0`, empty) passes.
- **Noted**: the answer is the same without it. It is accepted and dropped, and listed
  - in the header `x-everwarm-ignored` of the answer, streamed or not,
  - in the turn's record (`GET /api/turns`: `ignored`),
  - in the log, once for each path in the life of a process.

A field that stands nowhere below is noted, and so is an unknown value of a hint: a client that is
newer than this server goes on working. `null` is the same as absent everywhere. A path holds names
only (`messages[].name`); a name that does not look like one is `?`, and at most 32 are listed.

`everwarm serve --strict` (or `EVERWARM_STRICT=true`) refuses what is noted, by its path: for tests
of clients. Objects of everwarm's own (`everwarm`, `chat_template_kwargs`, all of `/api`) take no
unknown field.

`messages[].name` of chat completions is written where the model's chat template has a place for it;
where it has none, it is noted.

Tools that a provider runs (web search, code execution) are not offered to the model, and noted; a
request that forces one is refused. Tools that a client runs, and whose parameters only the
provider's models know (`bash_20250124`, `apply_patch`), are refused: describe them as functions.

"""

if __name__ == "__main__":
    PAGE.write_text(HEAD + page())
