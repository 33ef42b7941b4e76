"""Where can a prompt be continued, and from what? One pure function, `plan`.

    tokens   |------------------ n tokens ------------------|
    path     [ A ][   B   ][      C (agrees in part)  ]
    holder h  covers A, B                    reach(h): where h and the segments behind end
    p         the longest restorable position <= min(reach, n - 1)

A position can be restored where every layer can produce its state: cuttable layers anywhere within
reach, the others at a checkpoint exactly there, or at the present end of a sequence, if it has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from everwarm.cache.store import OnDisk, Piece
from everwarm.cache.tree import Holder, PathStep, Segment

READ_COST: Final = 4
"""A row from disk costs as much as so many copied in memory."""
FILES_AHEAD: Final = 4
"""Files that a restore asks for before it needs them."""
RestoreWay = Literal["new", "move", "rewind", "fork", "join"]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """How a prompt is continued from position `at`.

    `new`: there is nothing to continue from. `move`: take the holder's state as it is. `rewind`:
    cut its tail out and go back to `base`. `fork`: copy its first `base` tokens. `join`: build a
    fresh state from segments only. Then `segments` [base, at) are appended and `checkpoint` is put
    back. Both may rest on disk; `ahead` of their files are read before they are needed. Where room
    is short, `ahead` is 0, and `keeps_tail` False: the tail is lost.
    """

    at: int
    way: RestoreWay
    holder: Holder | None = None
    base: int = 0
    segments: tuple[Segment, ...] = ()
    checkpoint: Piece | OnDisk | None = None
    keeps_tail: bool = True
    ahead: int = FILES_AHEAD

    @property
    def files(self) -> list[OnDisk]:
        """What has to be read, in order."""
        pieces = [*(s.piece for s in self.segments), self.checkpoint]
        return [p for p in pieces if isinstance(p, OnDisk)]

    @property
    def checkpoint_at_base(self) -> Piece | None:
        """The checkpoint, where it is of the plan's base and in memory."""
        return None if self.segments or isinstance(self.checkpoint, OnDisk) else self.checkpoint

    @property
    def in_flight_nbytes(self) -> int:
        """The most bytes of its files that are read and not yet taken over at any one time.

        Beside `ahead` files this counts the one whose rows go to several segments, and the
        checkpoint, which is there twice while it is put back.
        """
        sizes = sorted({f.file_id: f.nbytes for f in self.files}.values(), reverse=True)
        checkpoint = self.checkpoint.nbytes if isinstance(self.checkpoint, OnDisk) else 0
        return sum(sizes[: self.ahead + 1]) + checkpoint


def plan(
    steps: list[PathStep], limit: int, *, is_cuttable: bool, from_disk: bool = False
) -> RestorePlan:
    """The longest restorable position <= `limit` on a matched path, and the cheapest way to it.

    Cost: the path's nodes times the holders on it.
    """
    best = RestorePlan(0, "new")
    for holder in [None, *_holders(steps)]:
        candidate = _from(holder, steps, limit, is_cuttable, from_disk)
        if candidate is not None and _better(candidate, best):
            best = candidate
    return best


def _holders(steps: list[PathStep]) -> list[Holder]:
    seen: dict[int, Holder] = {id(h): h for s in steps for h in s.node.holders}
    return list(seen.values())


def _cost(p: RestorePlan) -> int:
    """How many rows have to be copied."""
    joined = sum(
        (s.end - s.start) * (READ_COST if isinstance(s.piece, OnDisk) else 1) for s in p.segments
    )
    if p.way == "rewind" and p.holder is not None:
        return joined + p.holder.sequence.length - p.base
    return joined + (p.base if p.way == "fork" else 0)


def _better(a: RestorePlan, b: RestorePlan) -> bool:
    return (a.at, -_cost(a)) > (b.at, -_cost(b))


def _from(
    holder: Holder | None, steps: list[PathStep], limit: int, is_cuttable: bool, from_disk: bool
) -> RestorePlan | None:
    """The best plan that stands on this holder (or on segments alone), if any."""
    shared, segments, reach = _reach(holder, steps, from_disk)
    reach = min(reach, limit)
    at, checkpoint = _position(holder, steps, reach, shared, is_cuttable, from_disk)
    if at == 0:
        return None
    base = min(shared, at)
    used = tuple(_upto(s, at) for s in segments if s.start < at)
    if holder is None:
        return RestorePlan(at, "join", None, 0, used, checkpoint)
    length = holder.sequence.length
    if at == base == length == holder.sequence.end and not holder.busy:
        return RestorePlan(at, "move", holder, base)
    way: RestoreWay = "fork" if holder.busy or base < length - base else "rewind"
    return RestorePlan(at, way, holder, base, used, checkpoint)


def _upto(s: Segment, at: int) -> Segment:
    return s if s.end <= at else s.split(at)[0]


def _reach(
    holder: Holder | None, steps: list[PathStep], from_disk: bool
) -> tuple[int, list[Segment], int]:
    """How far the holder covers the path, the segments that continue it, and where they end."""
    shared = 0
    segments: list[Segment] = []
    reach = 0
    for step in steps:
        if not segments and holder is not None and holder in step.node.holders:
            shared = reach = step.upto
        elif step.node.segment is not None and reach == step.node.start:
            segments.append(step.node.segment)
            reach = step.upto
        else:
            found = _shelved(step, reach) if from_disk and reach == step.node.start else []
            segments += found
            reach = found[-1].end if found else reach
            if reach < step.upto:
                break
    return shared, segments, reach


def _shelved(step: PathStep, reach: int) -> list[Segment]:
    """Rows on disk from `reach` on, as far as they go without a hole."""
    out: list[Segment] = []
    for s in sorted(step.node.shelved, key=lambda s: s.start):
        if s.start <= reach < min(s.end, step.upto):
            out.append(Segment(s.piece, s.piece_start, reach, min(s.end, step.upto)))
            reach = out[-1].end
    return out


def _position(
    holder: Holder | None,
    steps: list[PathStep],
    reach: int,
    shared: int,
    is_cuttable: bool,
    from_disk: bool,
) -> tuple[int, Piece | OnDisk | None]:
    """The longest position <= `reach` whose other layers can be restored, with the checkpoint."""
    if is_cuttable:
        return reach, None
    at: int = 0
    checkpoint: Piece | OnDisk | None = None
    for step in steps:
        held = step.node.checkpoint or (step.node.shelved_checkpoint if from_disk else None)
        if held is not None and step.upto == step.node.end <= reach:
            at, checkpoint = step.node.end, held
    end = holder.sequence.end if holder is not None else None
    if end is not None and at <= end <= reach and end == shared:
        return end, None
    return at, checkpoint
