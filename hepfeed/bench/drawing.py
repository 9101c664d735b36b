"""Plots in files, in matplotlib's style or in that of high-energy physics."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hepfeed.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "Style",
    "add_head",
    "check_suffix",
    "described",
    "drawn_in",
    "log_axis",
    "pages",
    "ratio_axis",
    "row_axes",
    "save_figures",
]

Style = Literal["default", "mplhep"]

_ROWS_A_PAGE = 40
_WIDTH_IN = 9.0
_HEAD_CHARACTERS = 85  # as many as there is room for
_KEY_CHARACTERS = 8  # of a mark and the space around it
_BAND = {"color": "gray", "alpha": 0.1, "linewidth": 0, "zorder": 0}
_FOR_SLIDES = ("axes.labelsize", "axes.titlesize", "font.size", "legend.fontsize", "xtick.labelsize", "ytick.labelsize")
"""What mplhep makes large, for figures of one plot."""


@contextmanager
def drawn_in(style: Style) -> Iterator[None]:
    """Draw and save in a style: matplotlib's own, or mplhep's ATLAS style, which is an optional package.

    Text has the same size in both, so that the same figures have room for it.  Fonts that are not installed are left
    out of the style, for matplotlib warns of each.

    Raises:
        SpecError: mplhep is not installed.
    """
    import matplotlib.style
    from matplotlib.font_manager import fontManager

    if style == "default":
        with matplotlib.style.context("default"):
            yield
        return
    try:
        import mplhep
    except ImportError:
        raise SpecError("--style mplhep needs the package mplhep: pip install 'hepfeed[plots]'") from None
    sizes: dict[Any, Any] = {name: value for name, value in matplotlib.rcParamsDefault.items() if name in _FOR_SLIDES}
    with matplotlib.style.context(["default", mplhep.style.ATLAS, sizes]):
        there = {font.name for font in fontManager.ttflist}
        wanted = matplotlib.rcParams["font.sans-serif"]
        matplotlib.rcParams["font.sans-serif"] = [*(name for name in wanted if name in there), "DejaVu Sans"]
        yield


def check_suffix(path: Path) -> None:
    """Find out whether figures can be written to a file.

    Raises:
        SpecError: The suffix is none of .png, .svg and .pdf.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise SpecError(f"plots are written as .png, .svg or .pdf, not {path.suffix!r}", file=str(path))


def save_figures(figures: Sequence[Figure], path: Path) -> list[Path]:
    """Write figures by the suffix of ``path``: .png, .svg or .pdf; several get numbers; returns what was written.

    Raises:
        SpecError: The suffix is another one.
    """
    check_suffix(path)
    paths = [path if n == 1 else path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(1, len(figures) + 1)]
    for figure, place in zip(figures, paths, strict=True):
        figure.savefig(place, dpi=150)
    return paths


def pages(rows: Sequence[str]) -> list[list[str]]:
    """Divide rows among figures that can still be read: evenly, in order."""
    count = -(-len(rows) // _ROWS_A_PAGE)
    edges = [number * len(rows) // count for number in range(count + 1)] if count else []
    return [list(rows[low:high]) for low, high in pairwise(edges)]


def row_axes(rows: Sequence[str], panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure for points in named rows, the first one on top at ordinate 0, and its panels side by side."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    height = 1.6 + 0.025 * rcParams["font.size"] * len(rows)
    figure = Figure(figsize=(_WIDTH_IN + 1.2 * (panels - 1), height), layout="constrained")
    axes = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    labels = [row.replace("^2", "²").replace("^3", "³") for row in rows]
    for each in axes:
        each.set_yticks(range(len(rows)), labels)
        each.tick_params(axis="y", which="both", left=False, right=False)
        for place in range(0, len(rows), 2):
            each.axhspan(place - 0.5, place + 0.5, **_BAND)
    for each in axes[1:]:
        each.tick_params(labelleft=False)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure, axes


def log_axis(axis: Axis, low: float | None = None, high: float | None = None) -> None:
    """Make an axis logarithmic, between two values or around what is drawn, with numbers that are no powers."""
    from matplotlib.axis import XAxis
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    across = isinstance(axis, XAxis)
    (axis.axes.set_xscale if across else axis.axes.set_yscale)("log")
    if low is not None or high is not None:
        (axis.axes.set_xlim if across else axis.axes.set_ylim)(low, high)
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 500 else (1.0,)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """Make the axis across logarithmic, with a line at 1, and at least from a half to 2."""
    low, high = min(0.5, *ratios, 0.5), max(2.0, *ratios, 2.0)
    margin = (high / low) ** 0.08
    log_axis(axes.xaxis, low / margin, high * margin)
    axes.grid(axis="x", alpha=0.3)
    axes.axvline(1, color="gray", linestyle=":")


def add_head(figure: Figure, title: str) -> None:
    """Write a title above all, and below it what the marks of the panels mean, each once."""
    marks: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            marks.setdefault(str(label), handle)
    longest = max(map(len, marks), default=0) + _KEY_CHARACTERS
    legend = figure.legend(
        list(marks.values()),
        list(marks),
        loc="outside upper center",
        ncols=max(1, min(4, len(marks), _HEAD_CHARACTERS // longest)),
        frameon=False,
        title=textwrap.fill(title, _HEAD_CHARACTERS),
        title_fontsize="large",
    )
    legend.get_title().set_multialignment("center")


def described(figure: Figure) -> str:
    """Say in words what a figure shows, for those who do not see it: titles, axes and legends."""
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()) is not None)]
    heads = [figure.get_suptitle(), *(legend.get_title().get_text() for legend in legends)]
    heads += [axes.get_title(place) for axes in figure.axes for place in ("left", "center")]
    across = [figure.get_supxlabel(), *(axes.get_xlabel() for axes in figure.axes)]
    upward = [figure.get_supylabel(), *(axes.get_ylabel() for axes in figure.axes)]
    entries = [text.get_text() for legend in legends for text in legend.get_texts()]
    parts = [("", heads), ("across: ", across), ("upward: ", upward), ("shown: ", entries)]
    said = [name + ", ".join(dict.fromkeys(filter(None, words))) for name, words in parts if any(words)]
    return " ".join(["Plot.", *"; ".join(said).split()])
