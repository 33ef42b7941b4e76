"""Recorded sessions as prompts to replay. They hold no text, only ids of 64-token blocks.

One JSON file a session: `requests[]`, each with `in` and `out` (tokens), `hash_ids` (one id for
each whole block of the prompt) and, where known, `t` (seconds), `input_types`, and the session's
`tool_tokens` and `system_tokens`. An entry with `requests` of its own is a subagent; its times
count from its start. Ids mean nothing outside their session.

What a trace does not say is filled in here:

- Tokens: block 7 becomes 448 to 511. The tail behind the last whole block is that of the line's
  next request where that begins with all of this one's blocks; else it is found nowhere again.
- The reply: with history `verbatim` the tokens that the next request has in its place, where it is
  long enough to hold them; else (and always with `template`) tokens found nowhere again.
- Marks, as `prompt/render.py` would set them. `system`: tool and system tokens, or what all of the
  line's requests share. `last`: where the previous request and its reply end, if they come back.
  `user`: in its place, for the last eight whose input was text and no tool result. `prompt`:
  before a scaffold of three tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

from everwarm.errors import ConfigError
from everwarm.tokens import Mark, MarkKind, Tokens, common_length, tokens_of

BLOCK: Final = 64
SCAFFOLD: Final = 3
USERS: Final = 8
TracedHistory = Literal["verbatim", "template"]
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TracedTurn:
    """One request to replay. `is_first`: it is the first of its line (an agent's requests)."""

    tokens: Tokens[int]
    marks: tuple[Mark, ...]
    reply: Tokens[int]
    is_first: bool


@dataclass(frozen=True, slots=True)
class TracedSession:
    """One recorded session: its requests in the order of their times."""

    name: str
    turns: tuple[TracedTurn, ...]


def read(paths: Sequence[Path], history: TracedHistory = "verbatim") -> Iterator[TracedSession]:
    """The sessions in these files and directories, one by one. Raises ConfigError."""
    files = [f for p in paths for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])]
    if not files:
        raise ConfigError("There is no trace here: expected JSON files, one a session.")
    for file in files:
        try:
            yield session(json.loads(file.read_text(encoding="utf-8")), file.stem, history)
        except OSError as error:
            raise ConfigError(f"The trace {file} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{file} is no trace: it needs requests, each with in, out and hash_ids."
            ) from error


def session(raw: Raw, name: str, history: TracedHistory = "verbatim") -> TracedSession:
    """Make one recorded session replayable."""
    unknown = count(-1, -1)
    timed = [t for line in _lines(raw) for t in _turns(*line, history, unknown)]
    return TracedSession(name, tuple(turn for _, turn in sorted(timed, key=lambda t: t[0])))


def _lines(raw: Raw, begins: float = 0.0) -> Iterator[tuple[list[Raw], int, float]]:
    """Each agent's own requests, with the length of its tools and system, and when it began."""
    own = [r for r in raw["requests"] if "requests" not in r]
    if own:
        yield own, int(raw.get("tool_tokens", 0)) + int(raw.get("system_tokens", 0)), begins
    for r in raw["requests"]:
        if "requests" in r:
            yield from _lines(r, begins + float(r.get("t", 0)))


def _turns(
    line: list[Raw], system: int, begins: float, history: TracedHistory, unknown: Iterator[int]
) -> list[tuple[float, TracedTurn]]:
    prompts = _prompts(line, unknown)
    system = system or _shared(prompts)
    out: list[tuple[float, TracedTurn]] = []
    users: list[int] = []
    before: Tokens[int] | None = None  # the previous prompt with its reply
    for i, (raw, tokens) in enumerate(zip(line, prompts, strict=True)):
        behind = prompts[i + 1] if i + 1 < len(line) else None
        last = None
        if before is not None:
            same = common_length(before, tokens)
            users = [u for u in users if u <= same]
            last = _boundary(same, len(prompts[i - 1]), len(before))
        if last is not None and _is_user(raw):
            users.append(last)
        end = len(tokens) - SCAFFOLD
        reply = _reply(tokens, int(raw["out"]), behind, history, unknown)
        marks = _marks(system, users[-USERS:], last, end)
        out.append((begins + float(raw.get("t", i)), TracedTurn(tokens, marks, reply, i == 0)))
        before = tokens + reply
    return out


def _prompts(line: list[Raw], unknown: Iterator[int]) -> list[Tokens[int]]:
    """The tokens of a line's requests, from the last to the first: a tail is the next request's."""
    out: list[Tokens[int]] = []
    for raw in reversed(line):
        ids, n = raw["hash_ids"], int(raw["in"])
        tokens = tokens_of(t for b in ids for t in range(b * BLOCK, (b + 1) * BLOCK))
        if out and len(out[-1]) >= n and common_length(tokens, out[-1]) == len(tokens):
            tokens += out[-1][len(tokens) : n]
        out.append(tokens + _fresh(n - len(tokens), unknown))
    return out[::-1]


def _fresh(n: int, unknown: Iterator[int]) -> Tokens[int]:
    return tokens_of(next(unknown) for _ in range(n))


def _shared(prompts: list[Tokens[int]]) -> int:
    return min(common_length(prompts[0], p) for p in prompts)


def _boundary(same: int, asked: int, answered: int) -> int | None:
    """Where a line's last message begins: after the previous reply, or else after the prompt."""
    return answered if same == answered else asked if same >= asked else None


def _is_user(raw: Raw) -> bool:
    types = raw.get("input_types", ())
    return "text" in types and "tool_result" not in types


def _reply(
    tokens: Tokens[int],
    n: int,
    behind: Tokens[int] | None,
    history: TracedHistory,
    unknown: Iterator[int],
) -> Tokens[int]:
    end = len(tokens) + n
    if history == "template" or behind is None or len(behind) < end:
        return _fresh(n, unknown)
    goes_on = common_length(tokens, behind) == len(tokens)
    return behind[len(tokens) : end] if goes_on else _fresh(n, unknown)


def _marks(system: int, users: list[int], last: int | None, end: int) -> tuple[Mark, ...]:
    kinds: dict[int, MarkKind] = {} if last is None else {last: "last"}
    kinds |= dict.fromkeys(users, "user")
    kinds[system] = "system"
    kinds.setdefault(end, "prompt")
    return tuple(Mark(at, kind) for at, kind in sorted(kinds.items()) if 0 < at <= end)
