"""How long reading will take, from what it has taken so far. Pure.

Reading a token behind n others costs a + b*n seconds; a and b are fitted to the turns that were
measured, so that a benchmark can say how much time is left and stop before it runs over.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class ReadingPace:
    """Readings so far: (middle depth, seconds per token, tokens). Live."""

    seen: list[tuple[float, float, int]] = field(default_factory=list)

    def note(self, depth: int, tokens: int, seconds: float) -> None:
        """`tokens` were read behind `depth` in that many seconds."""
        if tokens > 0:
            self.seen.append((depth + tokens / 2, seconds / tokens, tokens))

    def seconds(self, start: int, end: int) -> float:
        """What reading the tokens from `start` to `end` will take."""
        a, b = self._line()
        n = max(end - start, 0)
        return n * max(0.0, a + b * (start + end) / 2)

    def _line(self) -> tuple[float, float]:
        """Least squares, weighted by tokens; a level line where there are too few."""
        weight = sum(n for _, _, n in self.seen)
        if not weight:
            return 0.0, 0.0
        mx = sum(x * n for x, _, n in self.seen) / weight
        my = sum(y * n for _, y, n in self.seen) / weight
        sxx = sum(n * (x - mx) ** 2 for x, _, n in self.seen)
        if not sxx:
            return my, 0.0
        b = max(0.0, sum(n * (x - mx) * (y - my) for x, y, n in self.seen) / sxx)
        return max(0.0, my - b * mx), b
