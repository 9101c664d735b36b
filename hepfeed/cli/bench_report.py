"""``hepfeed bench report``: results of several benchmarks on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hepfeed.cli.bench_output import PlotStyle, StyleOption, file_to_write


def register(app: typer.Typer) -> None:
    """Add ``report`` to ``app``."""
    app.command("report")(report)


def report(
    results: Annotated[list[Path], typer.Argument(metavar="JSON...", help="What --json of benchmarks has written.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", callback=file_to_write, help="The page.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="Of the page.")] = "Benchmarks of hepfeed",
    style: StyleOption = PlotStyle.default,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Join results of benchmarks on [bold]one HTML page[/] that can be read offline: machines, tables, plots.

    Results that measured the same, on two machines or before and after a change, are also shown side by side, with
    their ratios to the first file that is given.

    [bold]Examples[/]

    Before and after:

    [cyan]$ hepfeed bench report before.json after.json -o change.html --open[/]

    All results of a folder, in the style of the field:

    [cyan]$ hepfeed bench report results/*.json --style mplhep --title "Our cluster"[/]
    """
    import webbrowser

    from rich.console import Console

    from hepfeed.bench.report import load_records, report_page
    from hepfeed.errors import SpecError
    from hepfeed.progress import progress_bars

    records = load_records(results)
    if any(path.resolve() == out.resolve() for path in results):
        raise SpecError("-o names one of the results: give another file", file=str(out))
    with progress_bars() as progress:
        page = report_page(records, title, style.value, progress)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"the page can't be written: {error.strerror}", file=str(out)) from None
    Console().print(f"wrote {out}", highlight=False, markup=False, soft_wrap=True)
    if open_page and not webbrowser.open(out.resolve().as_uri()):
        raise SpecError("no browser is known here: open the page yourself", file=str(out))
