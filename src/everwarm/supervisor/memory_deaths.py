"""Did an engine die for lack of memory, and what does the next one get? No threads here.

Told by its last words (Metal aborts in a completion handler, MLX and Python raise), or by the
kernel: Linux counts whom it killed when memory ran out, in all and in each control group. On macOS
nobody tells why a process was killed.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from everwarm.supervisor.death import Death

LOWERED: Final = 0.75
"""Part of its budget that the next engine gets."""
LEAST_PART: Final = 0.25
"""Of the first budget: below that it is not the conversations that take the memory."""
_TOLD: Final = re.compile(
    r"Insufficient Memory|OutOfMemory|out of memory|Resource limit \(\d+\) exceeded"
    r"|Unable to allocate|Attempting to allocate \d+ bytes|Cannot allocate memory"
    r"|std::bad_alloc|\bMemoryError\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class OomKills:
    """How often the kernel has killed for lack of memory: in our control groups, and anywhere."""

    in_group: int
    anywhere: int


@dataclass(slots=True)
class MemoryDeaths:
    """What deaths for lack of memory change. Live: the supervisor's thread.

    `budget`: bytes for the next engine; None: as the settings say. `says`: why it is lowered, in a
    sentence without words of its own, which may name files; "" where it is not.
    """

    budget: int | None = None
    says: str = ""
    root: Path = Path("/")
    _first: int = 0
    _kills: OomKills | None = None

    def begin(self) -> None:
        """An engine is about to start."""
        self._kills = oom_kills(self.root)

    def note(self, death: Death, budget: int | None) -> bool:
        """Judge a death. `budget`: bytes that this engine had for conversations; None where it did
        not get so far as to have one. True: it died for lack of memory.
        """
        why = self._judge(death)
        if why is None:
            return False
        if budget is None:
            self.says = (
                f"The engine died while it loaded: {why}. The model may be too large for what is "
                "free; end other programs, or choose a smaller one."
            )
            return True
        self._first = self._first or budget
        lowered = max(int(budget * LOWERED), int(self._first * LEAST_PART))
        self.budget = min(lowered, budget)
        self.says = (
            f"The engine died: {why}. Conversations get {self.budget / 1e6:,.0f} MB of memory now "
            f"instead of {self._first / 1e6:,.0f} MB, until the server is started again."
        )
        return True

    def _judge(self, death: Death) -> str | None:
        """Why this was for lack of memory; None: nothing speaks for it."""
        if death.hang is not None or death.code == 0:
            return None
        if death.code == -signal.SIGKILL:
            # Whoever is killed writes no words about it: what stands there is older.
            return self._killed_by_kernel()
        return "it ran out of memory" if _TOLD.search(death.words) else None

    def _killed_by_kernel(self) -> str | None:
        before, now = self._kills, oom_kills(self.root)
        if before is None:
            return None
        if now.in_group > before.in_group:
            return "the kernel killed it at the memory limit of its control group"
        if now.anywhere > before.anywhere:
            return "the kernel killed it because the machine had no memory left"
        return None


def oom_kills(root: Path = Path("/")) -> OomKills:
    """What the kernel has counted so far; 0 where it does not tell."""
    in_group = 0
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own = [p for p in path.split("/") if p and p != ".."]
        if not controllers:
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                in_group += _counted(root / mount, own, "memory.events")
        elif "memory" in controllers.split(","):
            in_group += _counted(root / "sys/fs/cgroup/memory", own, "memory.oom_control")
    return OomKills(in_group, _number_behind("oom_kill", root / "proc/vmstat"))


def _counted(mount: Path, own: list[str], name: str) -> int:
    """The count of the lowest group that has one: those above count it, too."""
    for n in range(len(own), -1, -1):
        path = mount.joinpath(*own[:n]) / name
        if path.is_file():
            return _number_behind("oom_kill", path)
    return 0


def _number_behind(word: str, path: Path) -> int:
    for line in _read(path).splitlines():
        match line.split():
            case [name, number] if name == word and number.isdecimal():
                return int(number)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
