"""Which nodes of the tree rest on which files: files are put in, exchanged and dropped.

    files on disk     a [0, 4096)   b [4096, 5000)   checkpoint at 5000
    in the tree       a hangs on every node that has rows of it; so does b; the checkpoint on one

Here the tree changes and no file does. Engine thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from everwarm.cache import tree
from everwarm.cache.disk.index import Stored
from everwarm.cache.store import OnDisk
from everwarm.cache.tree import Node, Segment

RootOf = Callable[[str], Node]
"""The tree of a namespace."""


def graft(pieces: Iterable[Stored], root_of: RootOf) -> None:
    """Put files into the trees. `pieces`: parents before children."""
    ends: dict[str, Node] = {}
    pinned: list[Node] = []
    for stored in pieces:
        under = ends.get(stored.above) if stored.above is not None else None
        node = _graft_one(stored, under, root_of)
        if node is None:
            continue
        ends[stored.file_id] = node
        if stored.is_pinned:
            pinned.append(node)
    above = {id(up) for node in pinned for up in node.path()[:-1]}
    for node in pinned:  # what was pinned is the end; the files in front are pinned for it
        node.is_pinned = id(node) not in above


def _graft_one(stored: Stored, under: Node | None, root_of: RootOf) -> Node | None:
    """The node at a file's end. `under`: the end of the file that it stands on."""
    r = stored.record
    piece = OnDisk(stored.file_id, stored.nbytes)
    start = root_of(r.namespace) if under is None else tree.up_to(under, r.start)
    if start.end != r.start:
        return None
    node = tree.grow(start, r.tokens)
    node.kind = node.kind or r.mark  # type: ignore[assignment]
    if r.kind == "checkpoint":
        node.shelved_checkpoint = piece
    else:
        tree.shelve(node, Segment(piece, r.start, r.start, r.end))
    return node


def shelve_rows(steps: Iterable[tree.PathStep], segment: Segment) -> None:
    """Note a file's rows on the nodes of a matched path that it covers."""
    for s in steps:
        if s.node.end > segment.start:
            s.node.shelved.append(segment)


def exchange(root: Node, parts: frozenset[str], made: Stored) -> None:
    """Let nodes rest on one file instead of those whose rows it holds."""
    r = made.record
    whole = Segment(OnDisk(made.file_id, made.nbytes), r.start, r.start, r.end)
    for node in root.below():
        others = [s for s in node.shelved if file_of(s) not in parts]
        if len(others) < len(node.shelved):
            node.shelved = [*others, whole]


def drop_files(root: Node, file_ids: Collection[str]) -> None:
    """Let nothing rest on files that are gone or damaged."""
    for node in root.below():
        node.shelved = [s for s in node.shelved if file_of(s) not in file_ids]
        if node.shelved_checkpoint and node.shelved_checkpoint.file_id in file_ids:
            node.shelved_checkpoint = None


def files_of(node: Node) -> set[str]:
    """The files that hang on a node."""
    rows = {f for s in node.shelved if (f := file_of(s)) is not None}
    return rows | ({node.shelved_checkpoint.file_id} if node.shelved_checkpoint else set())


def needed_for(node: Node) -> set[str]:
    """The files from which a node can be restored."""
    path, out = node.path(), set[str]()
    for i, n in enumerate(path):
        staying = [s for s in n.shelved if not leaves_path(s, path, i)]
        out |= {f for s in staying or n.shelved if (f := file_of(s))}
    return out | ({node.shelved_checkpoint.file_id} if node.shelved_checkpoint else set())


def leaves_path(s: Segment, path: list[Node], i: int) -> bool:
    """Whether a file with rows of the i-th node goes on along another branch than this path."""
    behind = path[i + 1].shelved if i + 1 < len(path) else []
    return s.end > path[i].end and s not in behind


def file_of(s: Segment) -> str | None:
    """The file's id, where a segment rests on disk."""
    return s.piece.file_id if isinstance(s.piece, OnDisk) else None
