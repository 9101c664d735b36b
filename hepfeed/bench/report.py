"""Records of several benchmarks on one page, which needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hepfeed
from hepfeed.bench.comparison import Comparison, comparisons
from hepfeed.bench.drawing import Style, described, drawn_in
from hepfeed.bench.overview import (
    differing_settings,
    file_sheet,
    lead,
    letters,
    machine_sheet,
    moment,
    settings_sheet,
)
from hepfeed.bench.record import Machine, Record
from hepfeed.bench.views import view_of
from hepfeed.errors import SpecError
from hepfeed.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["load_records", "report_page"]

_PAGE = "page"
"""The folder of the template, the style sheet and the script, beside this file."""
_PIXELS_AN_INCH = 96


@dataclass(frozen=True)
class _Drawing:
    """A plot on the page: the base64 of its SVG, its size in pixels, and what it shows in words."""

    svg: str
    width: int
    height: int
    words: str


def load_records(paths: Sequence[Path]) -> dict[str, Record]:
    """Read the results of several benchmarks.

    Returns:
        Record by the name of its file, with as much of the path as tells the files apart; in the order of ``paths``.

    Raises:
        SpecError: A file can't be read, is given twice, holds no results, or those of an unknown kind.
    """
    records: dict[Path, Record] = {}
    for path in paths:
        place = path.resolve()
        if place in records:
            raise SpecError("the file is given twice: give each once", file=str(path))
        records[place] = Record.load(path)
        _check(records[place], path)
    return dict(zip(_short_names(list(records)), records.values(), strict=True))


def report_page(
    records: Mapping[str, Record], title: str, style: Style = "default", progress: Progress | None = None
) -> str:
    """Return an HTML page of all records: machines, comparisons of what measured the same, tables and plots.

    The page is the same for the same records.  Plots are SVG in it, and it lets the browser load nothing else.

    Args:
        records: By name, as :func:`load_records` returns them; of those that measured the same, the first is what the
            others are compared with.
        title: Of the page.
        style: Of the plots.
        progress: Called as plots are drawn.

    Raises:
        SpecError: The style is not installed.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hepfeed.bench", _PAGE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    compared = comparisons(records)
    machines = letters(records)
    with drawn_in(style):
        parts = list(_parts(records, compared, machines, progress))
    script = _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        title=title,
        lead=lead(records, machines),
        files=file_sheet(records, machines),
        machines=machine_sheet(machines),
        comparisons=parts[: len(compared)],
        results=parts[len(compared) :],
        version=hepfeed.__version__,
        style=Markup(_asset("style.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _check(record: Record, path: Path) -> None:
    """Find out whether a record can be shown, while the name of its file is known."""
    try:
        view = view_of(record)
        view.sheets(record)
        view.measures(record)
    except SpecError as error:
        raise SpecError(error.message, file=str(path)) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"these are no rows of {record.kind!r} ({type(error).__name__}: {error}): measure again with --json"
        raise SpecError(message, file=str(path)) from error


def _short_names(places: Sequence[Path]) -> list[str]:
    """Return the last parts of paths: the file's name, and of the folders as many as tell all apart."""
    deepest = max(len(place.parts) for place in places)
    for count in range(1, deepest + 1):
        names = ["/".join(place.parts[-count:]) for place in places]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("paths are told apart by all of their parts")


def _parts(
    records: Mapping[str, Record],
    compared: Sequence[Comparison],
    machines: Mapping[Machine, str],
    progress: Progress | None,
) -> Iterator[dict[str, Any]]:
    """Yield what the template is told of each comparison, and then of each record."""
    total = len(compared) + len(records)
    makers = [partial(_compared, comparison, records) for comparison in compared]
    makers += [partial(_shown, name, record, machines) for name, record in records.items()]
    for number, make in enumerate(makers, 1):
        yield make()
        if progress is not None:
            progress("drawing", number, total)


def _compared(comparison: Comparison, records: Mapping[str, Record]) -> dict[str, Any]:
    joined = {name: records[name] for name in comparison.names}
    titles = list(dict.fromkeys(record.title for record in joined.values()))
    what = titles[0] if len(titles) == 1 else comparison.kind
    settings = differing_settings(joined)
    notes = []
    if comparison.alone:
        notes.append(f"{comparison.alone:,} of the measured values are in one file only, and left out here.")
    if comparison.equal:
        notes.append(f"The same in all of them: {', '.join(comparison.equal)}.")
    return {
        "title": f"Comparison: {what}",
        "notes": notes,
        "sheets": [*comparison.sheets(), *([settings] if settings.rows else [])],
        "drawings": list(map(_drawn, comparison.figures())),
    }


def _shown(name: str, record: Record, machines: Mapping[Machine, str]) -> dict[str, Any]:
    view = view_of(record)
    return {
        "name": name,
        "title": record.title,
        "kind": record.kind,
        "machine": machines[record.machine],
        "created": record.created,
        "when": moment(record),
        "settings": settings_sheet(record),
        "sheets": view.sheets(record),
        "drawings": list(map(_drawn, view.figures(record))),
        "notes": record.notes,
    }


def _drawn(figure: Figure) -> _Drawing:
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "hepfeed", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    width, height = (round(_PIXELS_AN_INCH * inches) for inches in figure.get_size_inches())
    return _Drawing(base64.b64encode(stream.getvalue()).decode(), width, height, described(figure))


def _asset(name: str) -> str:
    return (importlib.resources.files("hepfeed.bench") / _PAGE / name).read_text(encoding="utf-8")
