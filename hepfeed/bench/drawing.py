"""Plots in files, in matplotlib's style or in that of high-energy physics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hepfeed.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Style", "drawn_in", "save_figures"]

Style = Literal["default", "mplhep"]


@contextmanager
def drawn_in(style: Style) -> Iterator[None]:
    """Draw in a style: matplotlib's own, or mplhep's ATLAS style, which is an optional package.

    Raises:
        SpecError: mplhep is not installed.
    """
    import matplotlib.style

    if style == "default":
        with matplotlib.style.context("default"):
            yield
        return
    try:
        import mplhep
    except ImportError:
        raise SpecError("--style mplhep needs the package mplhep: pip install 'hepfeed[plots]'") from None
    with matplotlib.style.context(mplhep.style.ATLAS):
        yield


def save_figures(figures: Sequence[Figure], path: Path) -> list[Path]:
    """Write figures by the suffix of ``path``: .png, .svg or .pdf; several get numbers; returns what was written.

    Raises:
        SpecError: The suffix is another one.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise SpecError(f"plots are written as .png, .svg or .pdf, not {path.suffix!r}", file=str(path))
    paths = [path if n == 1 else path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(1, len(figures) + 1)]
    for figure, place in zip(figures, paths, strict=True):
        figure.savefig(place, dpi=150)
    return paths
