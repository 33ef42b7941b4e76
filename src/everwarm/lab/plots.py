"""Plots, each as SVG and PNG, in a light and a dark version. The only importer of matplotlib.

matplotlib is the optional extra `bench`; without it a report has its tables and no plots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MISSING: Final = "No plots: matplotlib is not installed (pip install 'everwarm[bench]')."


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours that can be told apart, also by the colour-blind, on one background."""

    suffix: str
    ground: str
    ink: str
    dim: str
    grid: str
    cold: str
    warm: str
    floor: str


THEMES: Final = (
    Theme("", "#ffffff", "#1f2328", "#59636e", "#e1e6eb", "#c2410c", "#1d6fd1", "#6b7280"),
    Theme("-dark", "#0d1117", "#e6edf3", "#9198a1", "#262c34", "#ff9b5a", "#62aaff", "#a3adb8"),
)

Draw = Callable[[Any, Theme], None]


def available() -> bool:
    """Whether matplotlib is here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def save(out: Path, name: str, draw: Draw, *, height: float = 3.9) -> None:
    """Draw one plot with every theme: `name.svg`, `name.png`, `name-dark.svg`, `name-dark.png`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    for theme in THEMES:
        with rc_context(_rc(theme, name)):
            figure = Figure(figsize=(7.6, height), layout="constrained")
            axes = figure.add_subplot()
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            draw(axes, theme)
            for kind in ("svg", "png"):
                meta = {"Date": None} if kind == "svg" else None
                figure.savefig(out / f"{name}{theme.suffix}.{kind}", dpi=144, metadata=meta)


def _rc(theme: Theme, salt: str) -> Any:
    """Settings of matplotlib. Any: its stubs list their names one by one."""
    return {
        "figure.facecolor": theme.ground,
        "savefig.facecolor": theme.ground,
        "axes.facecolor": theme.ground,
        "axes.edgecolor": theme.grid,
        "axes.labelcolor": theme.dim,
        "axes.titlecolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 12,
        "axes.titlepad": 12,
        "axes.labelsize": 10,
        "text.color": theme.ink,
        "xtick.color": theme.dim,
        "ytick.color": theme.dim,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "grid.color": theme.grid,
        "font.family": "DejaVu Sans",
        "svg.hashsalt": salt,
    }


def ttft(samples: Sequence[dict[str, Any]]) -> Draw:
    """Time to first token against context: cold, warm, and the model alone."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.set_title("Time to first token against context")
        for key, name in (("cold_s", "cold"), ("warm_s", "warm"), ("floor_s", "floor")):
            known = [(s["tokens"], s[key]) for s in samples if s[key] is not None]
            if not known:
                continue
            x, y = zip(*known, strict=True)
            colour = getattr(theme, name)
            style = "--" if name == "floor" else "-"
            axes.plot(x, y, style, color=colour, marker="o", markersize=5, linewidth=2)
            words = {"floor": "model alone"}.get(name, name)
            place = (8, -7 if name == "floor" else 6 if name == "warm" else 0)
            axes.annotate(
                f"{words} {_seconds(y[-1])}", (x[-1], y[-1]), place, textcoords="offset points",
                color=colour, fontsize=10, va="center",
            )  # fmt: skip
        _log(axes, "x", "tokens in the conversation", _count)
        _log(axes, "y", "", _seconds)
        axes.grid(which="major")
        axes.margins(x=0.04, y=0.1)

    return draw


def read_per_turn(rows: Sequence[dict[str, Any]]) -> Draw:
    """Tokens read at each turn, beside the prompt that a server without a cache would read."""
    grown = [r for r in rows if r["kind"] == "grow"]

    def draw(axes: Any, theme: Theme) -> None:
        axes.set_title("Tokens read at each turn")
        x = [r["turn"] for r in grown]
        prompts = [r["prompt_tokens"] for r in grown]
        read = [max(r["prefilled_tokens"], 1) for r in grown]
        axes.bar(x, prompts, color=theme.cold, alpha=0.45, width=0.8)
        axes.bar(x, read, color=theme.warm, width=0.8)
        _keys(axes, theme, (("without a cache", theme.cold), ("read", theme.warm)))
        _count_axis(axes)
        axes.set_xlabel("turn")
        axes.grid(axis="y")

    return draw


def hits(rows: Sequence[dict[str, Any]]) -> Draw:
    """How much of each request's prompt was warm, request by request."""
    asked = [r for r in rows if r["kind"] != "cold"]

    def draw(axes: Any, theme: Theme) -> None:
        axes.set_title("Part of each prompt that was not read again")
        share = [100 * r["cached_tokens"] / max(r["prompt_tokens"], 1) for r in asked]
        x = range(1, len(asked) + 1)
        axes.bar(x, [100] * len(asked), color=theme.cold, alpha=0.45, width=1.0)
        axes.bar(x, share, color=theme.warm, width=1.0)
        _keys(axes, theme, (("read", theme.cold), ("warm", theme.warm)))
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 25, 50, 75, 100], ["0%", "25%", "50%", "75%", "100%"])
        axes.set_xlim(0.5, len(asked) + 0.5)
        axes.set_xlabel("request")

    return draw


def strategies(lines: Sequence[dict[str, Any]], facts: int) -> Draw:
    """Facts recalled with each strategy as horizontal bars, with its speed at the end."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.set_title(f"Facts recalled, of {facts}")
        y = list(range(len(lines)))[::-1]
        axes.barh(y, [facts] * len(lines), color=theme.grid, height=0.6)
        axes.barh(y, [x["recalled"] for x in lines], color=theme.warm, height=0.6)
        for at, x in zip(y, lines, strict=True):
            rate = "" if x["tokens_per_s"] is None else f" · {x['tokens_per_s']:.1f} tokens/s"
            axes.annotate(
                f"{x['recalled']}", (x["recalled"], at), (4, 0), textcoords="offset points",
                va="center", fontsize=10,
            )  # fmt: skip
            axes.annotate(
                f"{_seconds(x['ttft_s'])}{rate}", (facts, at), (10, 0), va="center", fontsize=9,
                textcoords="offset points", color=theme.dim, annotation_clip=False,
            )  # fmt: skip
        axes.set_yticks(y, [x["name"] for x in lines])
        axes.set_xticks(range(0, facts + 1, 2))
        axes.set_xlim(0, 1.42 * facts)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(length=0)

    return draw


def rates(by_server: Mapping[str, Sequence[tuple[int, float]]]) -> Draw:
    """Tokens a second over all sessions, against how many there are: a line for each server."""

    def draw(axes: Any, theme: Theme) -> None:
        axes.set_title("Tokens a second, over all sessions")
        colours, dashes = (theme.warm, theme.cold, theme.floor), ("-", "--", ":")
        for i, (name, points) in enumerate(by_server.items()):
            x, y = zip(*points, strict=True)
            style, colour = dashes[i // len(colours) % len(dashes)], colours[i % len(colours)]
            axes.plot(x, y, style, color=colour, marker="o", markersize=5, linewidth=2)
            axes.annotate(name, (x[-1], y[-1]), (8, 0), textcoords="offset points", va="center",
                          color=colour, fontsize=10, annotation_clip=False)  # fmt: skip
        axes.set_xticks(sorted({n for points in by_server.values() for n, _ in points}))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("sessions at once")
        axes.grid(axis="y")
        axes.margins(x=0.12)

    return draw


def _keys(axes: Any, theme: Theme, names: Sequence[tuple[str, str]]) -> None:
    """Write a legend above the plot, at the right."""
    x = 1.0
    for name, colour in reversed(names):
        axes.text(x, 1.03, f"■ {name}", transform=axes.transAxes, ha="right", color=colour,
                  fontsize=10)  # fmt: skip
        x -= 0.045 + 0.0145 * len(name)


def _log(axes: Any, which: str, label: str, spell: Callable[[float], str]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(FuncFormatter(lambda v, _: spell(v)))
    axis.set_major_locator(LogLocator(subs=(1.0,) if which == "y" else (1.0, 2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())
    getattr(axes, f"set_{which}label")(label)


def _count_axis(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _count(v)))


def _count(n: float) -> str:
    return f"{n / 1000:g}K" if n >= 1000 else f"{n:g}"


def _seconds(s: float) -> str:
    """Seconds with three digits at most."""
    if s < 0.9995:
        return f"{1000 * s:.3g} ms"
    return f"{s:.3g} s" if s < 1000 else f"{s:,.0f} s"
