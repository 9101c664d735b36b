"""How ``hepfeed check`` shows what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from hepfeed.check import KeyReport, KeyStorage, ReadCost, SpecReport
    from hepfeed.fault import Fault
    from hepfeed.layouts import DatasetReport, DirectoryReport, FileReport

__all__ = ["directory_lines", "file_lines", "spec_lines"]

_MOST_DATASETS = 40  # lines of a table; --json has all


# ---- specifications


def spec_lines(report: SpecReport) -> Iterator[RenderableType]:
    """Yield what is to be shown of a specification."""
    yield _class_table(report)
    if report.keys:
        yield _key_table(report.keys)
    if report.cost is not None:
        yield _cost_table(report.cost)
    yield from _fault_lines(report.faults)
    yield from _listed("What to change", report.advice, "bold yellow")
    if not report.faults and not report.advice:
        yield "No faults, and nothing to change."


def _class_table(report: SpecReport) -> Table:
    from rich.text import Text

    table = _table("Classes", "class", "index", "files", "events", "after filter")
    for found in report.classes:
        counts = (found.index, found.files, found.events, found.kept)
        table.add_row(Text(str(found.label)), *(f"{count:,}" for count in counts))
    total = (sum(c.files for c in report.classes), sum(c.events for c in report.classes))
    table.add_section()
    table.add_row("all", "", *(f"{n:,}" for n in total), f"{sum(c.kept for c in report.classes):,}")
    return table


def _key_table(keys: tuple[KeyReport, ...]) -> Table:
    from rich.filesize import decimal
    from rich.text import Text

    table = _table("Keys", "key", "shape", "type", "storage", "size", "stored", "ratio", "occupancy")
    for name in ("shape", "type", "storage"):
        next(column for column in table.columns if column.header == name).justify = "left"
    for key in keys:
        table.add_row(
            Text(key.name),
            str(key.shape),
            key.dtype,
            Text("\n").join(Text(_storage(one)) for one in key.storages),
            decimal(key.bytes),
            decimal(key.stored_bytes),
            "" if key.ratio is None else f"{key.ratio:.1f}",
            "" if key.occupancy is None else f"{key.occupancy:.2%}",
        )
    return table


def _storage(one: KeyStorage) -> str:
    chunk = f" {' x '.join(map(str, one.chunk))}" if one.chunk else ""
    form = "h5py" if one.storage == "library" else one.storage
    reason = f" ({one.reason})" if one.reason else ""
    return f"{form}{chunk}, {one.codec}{reason}: {_count(one.files, 'file')}"


def _cost_table(cost: ReadCost) -> Table:
    from rich.filesize import decimal

    table = _table(f"Reading, measured with {cost.events:,} events in order {cost.order!r}", "", "")
    table.show_header = False
    for stage, seconds in (("read", cost.read_s), ("inflate", cost.inflate_s), ("scatter", cost.scatter_s)):
        table.add_row(stage, f"{seconds * 1e6:,.1f} µs an event")
    table.add_section()
    table.add_row("one core", f"{cost.events_per_s:,.0f} events/s")
    table.add_row(f"{cost.cores} cores, expected", f"{cost.events_per_s_all:,.0f} events/s")
    table.add_row("an epoch", f"{cost.epoch_events:,} events")
    table.add_row("an epoch reads", decimal(cost.epoch_read_bytes))
    table.add_row("an epoch delivers", decimal(cost.epoch_batch_bytes))
    return table


# ---- files


def file_lines(report: FileReport) -> Iterator[RenderableType]:
    """Yield what is to be shown of a file."""
    from rich.filesize import decimal
    from rich.text import Text

    yield _dataset_table(report, f"{report.path} ({decimal(report.size)})")
    further = report.layouts[2:]  # the verdict names the first two
    yield from _listed("Further layouts", tuple(layout.sentence for layout in further), "bold")
    yield Text(report.verdict, style="green" if report.keys else "yellow")


def _dataset_table(report: FileReport, title: str) -> Table:
    from rich.filesize import decimal
    from rich.text import Text

    table = _table(title, "data set", "shape", "type", "chunk", "codec", "stored", "as a key")
    for column in table.columns[1:5]:
        column.justify = "left"
    table.columns[6].justify = "left"
    for one in report.datasets[:_MOST_DATASETS]:
        if one.path in report.fed:
            use = Text(_use(one, report), style="green")
        elif one.problem:
            use = Text(one.problem, style="dim")
        else:
            use = Text("other rows, not events", style="dim")
        chunk = " x ".join(map(str, one.chunk))
        table.add_row(Text(one.path), str(one.shape), one.dtype, chunk, one.codec, decimal(one.stored_bytes), use)
    if len(report.datasets) > _MOST_DATASETS:
        table.caption = f"and {len(report.datasets) - _MOST_DATASETS:,} more: --json lists all"
    return table


def _use(one: DatasetReport, report: FileReport) -> str:
    """Say of a data set that is fed whose rows it has."""
    layout = next((layout for layout in report.layouts if one.path in layout.members), None)
    return f"{report.events:,} events" if layout is None else f"{layout.noun} of {report.events:,} events"


def directory_lines(report: DirectoryReport) -> Iterator[RenderableType]:
    """Show files of the same form once."""
    from rich.text import Text

    forms: dict[object, list[FileReport]] = {}
    for file in report.files:
        form = tuple((d.path, d.shape[1:], d.dtype, d.codec, bool(d.problem)) for d in file.datasets)
        forms.setdefault((form, bool(file.keys), len(file.layouts)), []).append(file)
    for files in forms.values():
        first = files[0]
        events = sum(file.events for file in files)
        yield _dataset_table(first, f"{_count(len(files), 'file')} such as {first.path}")
        if len(files) > 1 and first.keys:
            held = f"{_count(events, 'event')} in {_count(len(files), 'file')}"
            yield Text(f"{held}; the first {first.verdict}", "green")
        else:
            yield Text(first.verdict, "green" if first.keys else "yellow")
    yield from _fault_lines(report.faults)


# ---- both


def _fault_lines(faults: tuple[Fault, ...]) -> Iterator[RenderableType]:
    yield from _listed(
        _count(len(faults), "fault"), tuple(f"{fault.error}: {fault.message}" for fault in faults), "bold red"
    )


def _listed(title: str, sentences: tuple[str, ...], style: str) -> Iterator[RenderableType]:
    from rich.text import Text

    if sentences:
        yield Text(title, style=style)
    for sentence in sentences:
        yield Text(f"- {sentence}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(title: str, *headers: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", overflow="fold")
    return table
