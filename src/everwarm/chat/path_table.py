"""The table `paths`: the tokens that were read and written in each session.

It tells which pieces of the cache belong to a session, so that they can be deleted with it. Every
function works inside its caller's transaction.

    a session's paths    [0 ……………………… 900)          a row of its own
                              └ [500 …… 800)          base: the first; start: 500
                                      └ [900 … 1000)   base: the first; start: 900

A row builds on the longest row whose whole path is a prefix of its own. Digests find it without
reading any row's tokens; only where they find little, tokens are compared.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from everwarm.chat.session_table import number
from everwarm.tokens import Tokens, common_length, tokens_of

CallerPath: TypeAlias = "tuple[str, Tokens[int]]"
"""A caller's namespace, and a path of tokens from its start."""
WORTH_COMPARING: Final = 4096
"""Rows are read to share more only where digests leave at least so many tokens to store."""
LEAST_COMPARED: Final = 64
"""Tokens of another session that are read at first: most share only a system prompt."""


def add(db: sqlite3.Connection, session_id: str, caller: str, tokens: Tokens[int]) -> None:
    """Store the tokens of a path; a path that is stored already costs nothing."""
    n = number(db, session_id)
    start, base, digest = _longest_whole(db, n, caller, tokens)
    if len(tokens) - start > start + WORTH_COMPARING:
        start, base = _longest_shared(db, n, caller, tokens)
    if start == len(tokens):
        return
    db.execute(
        """INSERT INTO paths (session, caller, base, start, tokens, "end", digest)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (n, caller, base, start, tokens[start:].tobytes(), len(tokens), digest),
    )


def _longest_whole(
    db: sqlite3.Connection, n: int, caller: str, tokens: Tokens[int]
) -> tuple[int, int | None, bytes]:
    """End and number of the longest row that is a prefix of these tokens; the tokens' digest."""
    rows = db.execute(
        """SELECT "end", digest, n FROM paths
            WHERE session = ? AND caller = ? AND "end" <= ? ORDER BY "end", digest""",
        (n, caller, len(tokens)),
    )
    found: tuple[int, int | None] = (0, None)
    so_far, at, raw = hashlib.blake2b(digest_size=16), 0, memoryview(tokens)
    for end, digest, row in rows:
        so_far.update(raw[at:end])
        at = end
        if so_far.digest() == digest:
            found = (end, row)
    so_far.update(raw[at:])
    return *found, so_far.digest()


def _longest_shared(
    db: sqlite3.Connection, n: int, caller: str, tokens: Tokens[int]
) -> tuple[int, int | None]:
    """The longest prefix that a row shares with these tokens, and the row's number."""
    shared = [
        (common_length(t, tokens), row) for row, (who, t) in _of(db, n).items() if who == caller
    ]
    start, base = max(shared, default=(0, None))
    return start, base if start else None


def of(db: sqlite3.Connection, session_id: str) -> list[CallerPath]:
    """All paths of a session."""
    return _ends(db, number(db, session_id))


def elsewhere(db: sqlite3.Connection, session_id: str, own: Sequence[CallerPath]) -> list[int]:
    """For each of these paths, how many of its tokens another session has too.

    Of the other sessions' rows little more is read than what is shared.
    """
    rows = db.execute(
        "SELECT n, caller, base, start FROM paths WHERE session != ? ORDER BY n",
        (number(db, session_id),),
    ).fetchall()
    shared, before, reach = [], ("", tokens_of()), dict[int, int]()
    for caller, tokens in own:
        same = common_length(before[1], tokens) if caller == before[0] else 0
        theirs = [(n, base, start) for n, who, base, start in rows if who == caller]
        reach = _reach(db, theirs, tokens, reach, same)
        before = (caller, tokens)
        shared.append(max(reach.values(), default=0))
    return shared


def _reach(
    db: sqlite3.Connection,
    rows: Sequence[tuple[int, int | None, int]],
    tokens: Tokens[int],
    before: Mapping[int, int],
    same: int,
) -> dict[int, int]:
    """How many tokens each row's path shares with these.

    `before` is the result for a path of which these tokens share the first `same`: a row that
    differs from it before that point differs from these tokens at the same place.
    """
    reach: dict[int, int] = {}
    for n, base, start in rows:
        shared = before.get(n, 0)
        if shared < same:
            reach[n] = shared
        elif base is None or reach[base] >= start:
            reach[n] = _compare(db, n, start, tokens, max(start, same))
        else:
            reach[n] = reach[base]
    return reach


def _compare(db: sqlite3.Connection, n: int, start: int, tokens: Tokens[int], at: int) -> int:
    """How far a row's tokens, which begin at `start`, equal these from `at` on."""
    size = LEAST_COMPARED
    with db.blobopen("paths", "tokens", n, readonly=True) as blob:
        blob.seek(min(4 * (at - start), len(blob)))
        while piece := blob.read(4 * size):
            theirs = tokens_of()
            theirs.frombytes(piece)
            shared = common_length(theirs, tokens, at)
            at += shared
            if shared < len(theirs):
                break
            size = min(2 * size, WORTH_COMPARING)
    return at


def _ends(db: sqlite3.Connection, n: int) -> list[CallerPath]:
    return list({id(path[1]): path for path in _of(db, n).values()}.values())


def _of(db: sqlite3.Connection, n: int) -> dict[int, CallerPath]:
    """Paths by row. Rows of one path that only grew share it, at its longest."""
    out: dict[int, CallerPath] = {}
    rows = db.execute(
        "SELECT n, caller, base, start, tokens FROM paths WHERE session = ? ORDER BY n", (n,)
    )
    for row, caller, base, start, blob in rows:
        path = (caller, tokens_of()) if base is None else out[base]
        if len(path[1]) != start:
            path = (caller, path[1][:start])
        path[1].frombytes(blob)
        out[row] = path
    return out
