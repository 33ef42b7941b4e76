"""The radix tree of all token sequences read by one model.

An edge holds tokens, a node is the position behind its edge. Bytes hang on nodes:

    root ──[0, 300)── A ──[300, 900)── B          holder h ends at B: it covers [0, 900)
                       └──[300, 500)── C          C.segment: rows [300, 500) at rest

- `holders`: live states whose path leads through this node's whole edge.
- `segment`: rows of the cuttable layers for this edge; only where no holder covers it.
- `checkpoint`: the other layers at this node's position.
- `shelved`: files that hold rows of this edge, perhaps also rows outside; `shelved_checkpoint` one
  with the other layers at this position. They stay when memory drops the rest.

A node without any of these only remembers tokens that were read once, at 4 bytes each, so that we
know what is *unseen*. Not here: what to restore (`restore.py`), what to evict (`evict.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from everwarm.cache.sequence import Sequence
from everwarm.cache.store import OnDisk, Piece
from everwarm.tokens import Mark, MarkKind, Tokens, common_length, tokens_of

if TYPE_CHECKING:
    from everwarm.cache.disk.restoring import Restoring


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows [start, end) of a piece whose rows begin at `piece_start`."""

    piece: Piece | OnDisk
    piece_start: int
    start: int
    end: int

    def split(self, at: int) -> tuple[Segment, Segment]:
        return (
            Segment(self.piece, self.piece_start, self.start, at),
            Segment(self.piece, self.piece_start, at, self.end),
        )


@dataclass(eq=False, slots=True)
class Holder:
    """A sequence and its place in the tree. Live: engine thread only.

    The tree may lag behind the sequence while it is busy. `goal` is what a busy holder is going to
    read, `rows` the length to which it may grow, `promised` the bytes that it may take then.
    `spill`: how far the rows of a busy state are to be written to disk before it ends.
    `restoring`: the sequence is on its way from disk.
    """

    sequence: Sequence
    node: Node
    root: Node
    busy: bool = True
    ending: bool = False
    goal: Tokens[int] = field(default_factory=tokens_of)
    marks: tuple[Mark, ...] = ()
    used: int = 0
    rows: int = 0
    promised: int = 0
    spill: int = 0
    restoring: Restoring | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, or may take without asking anybody."""
        nbytes = self.sequence.nbytes
        return max(nbytes, self.promised) if self.busy else nbytes


@dataclass(eq=False, slots=True)
class Node:
    """A position in the tree. Live: engine thread only.

    `used` and `resumed` are numbers of requests: the last one whose prompt led through here, and
    the last one that went on from exactly here or took a checkpoint at a mark here. `is_stopgap`:
    its checkpoint is one for the disk alone (`stopgap.py`). `id`: for people.
    """

    parent: Node | None
    tokens: Tokens[int]
    end: int
    children: dict[int, Node] = field(default_factory=dict)
    holders: list[Holder] = field(default_factory=list)
    segment: Segment | None = None
    checkpoint: Piece | None = None
    shelved: list[Segment] = field(default_factory=list)
    shelved_checkpoint: OnDisk | None = None
    kind: MarkKind | None = None
    used: int = 0
    resumed: int = 0
    is_pinned: bool = False
    is_stopgap: bool = False
    id: int = field(default_factory=count(1).__next__)

    @property
    def start(self) -> int:
        return self.end - len(self.tokens)

    @property
    def holds_bytes(self) -> bool:
        return bool(self.holders) or self.segment is not None or self.checkpoint is not None

    @property
    def is_bare(self) -> bool:
        """Whether the node only remembers tokens."""
        return not (self.is_pinned or self.holds_bytes or self.shelved or self.shelved_checkpoint)

    def path(self) -> list[Node]:
        """From the first node below the root to this one."""
        out: list[Node] = []
        node = self
        while node.parent is not None:
            out.append(node)
            node = node.parent
        return out[::-1]

    def below(self) -> Iterator[Node]:
        """This node and everything below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


@dataclass(frozen=True, slots=True)
class PathStep:
    """A node on a matched path; its edge agrees up to position `upto` <= node.end."""

    node: Node
    upto: int


def new_root() -> Node:
    return Node(None, tokens_of(), 0)


def match(root: Node, tokens: Tokens[int]) -> list[PathStep]:
    """The nodes along `tokens`; the last one may agree only in part. Cost: one memory compare."""
    steps: list[PathStep] = []
    node, at = root, 0
    while at < len(tokens) and (child := node.children.get(tokens[at])) is not None:
        n = common_length(child.tokens, tokens, at)
        steps.append(PathStep(child, at + n))
        if n < len(child.tokens):
            break
        node, at = child, child.end
    return steps


def split(node: Node, at: int) -> Node:
    """Cut a node's edge at `at`, strictly inside; give back the new upper node."""
    assert node.parent is not None and node.start < at < node.end
    n = at - node.start
    upper = Node(node.parent, node.tokens[:n], at, holders=list(node.holders), used=node.used)
    node.parent.children[upper.tokens[0]] = upper
    node.parent, node.tokens = upper, node.tokens[n:]
    upper.children[node.tokens[0]] = node
    if node.segment is not None:
        upper.segment, node.segment = node.segment.split(at)
    upper.shelved = [s for s in node.shelved if s.start < at]
    node.shelved = [s for s in node.shelved if s.end > at]
    return upper


def node_at(step: PathStep) -> Node:
    """The node exactly at a step's position, made by a split where it lies inside an edge."""
    return step.node if step.upto == step.node.end else split(step.node, step.upto)


def advance(holder: Holder) -> list[Segment]:
    """Move a holder down to where its tokens end; the segments that it now covers."""
    covered: list[Segment] = []
    node, tokens = holder.node, holder.sequence.tokens
    while node.end < len(tokens):
        child = node.children.get(tokens[node.end])
        if child is None:
            node = _append(node, holder)
            break
        n = common_length(child.tokens, tokens, node.end)
        node = child if n == len(child.tokens) else split(child, node.end + n)
        node.holders.append(holder)
        if node.segment is not None:
            covered.append(node.segment)
            node.segment = None
    holder.node = node
    return covered


def catch_up(holder: Holder) -> None:
    """Bring the tree up to what a busy sequence has read, if it stands still anywhere."""
    if holder.sequence.end is not None:
        advance(holder)


def _append(node: Node, holder: Holder) -> Node:
    """Put the rest of a holder's tokens below `node`: in its own edge where that is a free leaf."""
    rest = holder.sequence.tokens[node.end :]
    bare = node.checkpoint is None and node.shelved_checkpoint is None and node.kind is None
    free = bare and not node.children
    if node.parent is not None and free and node.holders == [holder]:
        node.tokens.extend(rest)
        node.end += len(rest)
        return node
    child = Node(node, rest, node.end + len(rest), holders=[holder])
    node.children[rest[0]] = child
    return child


def grow(node: Node, tokens: Iterable[int]) -> Node:
    """The node behind these tokens below `node`, made where it is not there yet."""
    rest = tokens_of(tokens)
    while rest:
        child = node.children.get(rest[0])
        if child is None:
            child = Node(node, rest, node.end + len(rest))
            node.children[rest[0]] = child
            return child
        n = common_length(child.tokens, rest)
        node = child if n == len(child.tokens) else split(child, child.start + n)
        rest = rest[n:]
    return node


def withdraw(holder: Holder, down_to: Node) -> list[Node]:
    """Take a holder off the nodes below `down_to` on its path; which nodes, lowest first."""
    left: list[Node] = []
    node = holder.node
    while node is not down_to:
        node.holders.remove(holder)
        left.append(node)
        assert node.parent is not None, "down_to must be on the holder's path"
        node = node.parent
    holder.node = down_to
    return left


def up_to(node: Node, at: int) -> Node:
    """The node at a position on the path of this one, made by a split if need be."""
    while node.start >= at and node.parent is not None:
        node = node.parent
    return split(node, at) if node.start < at < node.end else node


def shelve(node: Node, segment: Segment) -> None:
    """Note on all nodes of a path that a file holds their rows."""
    at: Node | None = node
    while at is not None and at.parent is not None and at.end > segment.start:
        at.shelved.append(segment)
        at = at.parent
