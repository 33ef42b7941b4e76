"""Who waits for room begins before long, however many smaller ones come after it."""

from __future__ import annotations

from everwarm.engine.admission_order import MOST_PASSED, AdmissionOrder, Begin


class Room:
    """So many jobs of size 1 fit; each job ends when two more have begun."""

    def __init__(self, size: int) -> None:
        self.size, self.running, self.begun = size, list[tuple[str, int]](), list[str]()
        self.line = AdmissionOrder()
        self.waiting: dict[str, int] = {}

    def arrive(self, name: str, size: int) -> None:
        self.waiting[name] = size
        self.turn()

    def turn(self) -> None:
        self.line.offer(list(self.waiting), self._begin)

    def end_oldest(self) -> None:
        self.running.pop(0)
        self.turn()

    def _begin(self, name: str) -> Begin:
        if sum(n for _, n in self.running) + self.waiting[name] > self.size:
            return "no room"
        self.running.append((name, self.waiting.pop(name)))
        self.begun.append(name)
        self.line.remove(name)
        return "begun"


def test_a_large_job_is_passed_so_often_and_no_more() -> None:
    room = Room(10)
    room.arrive("first", 3)
    room.arrive("large", 9)
    for n in range(500):
        room.arrive(f"small {n}", 3)
        room.end_oldest()
        if "large" in room.begun:
            break
    assert room.begun.index("large") == 1 + MOST_PASSED


def test_small_ones_go_on_in_order_behind_it() -> None:
    room = Room(10)
    room.arrive("first", 3)
    room.arrive("large", 9)
    for n in range(MOST_PASSED + 4):
        room.arrive(f"small {n}", 1)
    while room.waiting:
        room.end_oldest()
    small = [f"small {n}" for n in range(MOST_PASSED + 4)]
    assert room.begun == ["first", *small[:MOST_PASSED], "large", *small[MOST_PASSED:]]


def test_two_large_jobs_begin_in_order_of_arrival() -> None:
    room = Room(10)
    room.arrive("first", 5)
    room.arrive("large", 9)
    room.arrive("larger", 10)
    room.end_oldest()
    room.end_oldest()
    assert room.begun == ["first", "large", "larger"]


def test_who_waits_for_a_shared_prefix_holds_nobody_up() -> None:
    line, begun = AdmissionOrder(), list[str]()

    def begin(name: str) -> Begin:
        if name == "sharer":
            return "waits"
        begun.append(name)
        return "begun"

    for n in range(100):
        line.offer(["sharer", f"{n}"], begin)
    assert len(begun) == 100


def test_a_job_that_is_gone_is_forgotten() -> None:
    room = Room(10)
    room.arrive("first", 3)
    room.arrive("large", 9)
    for n in range(MOST_PASSED):
        room.arrive(f"small {n}", 3)
        room.end_oldest()
    room.waiting.pop("large")
    room.line.remove("large")
    room.arrive("large", 9)  # another one of that name
    room.arrive("late", 3)
    assert "late" in room.begun
