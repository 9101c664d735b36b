"""``hepfeed top``: what feeds that run are doing, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from prometheus_client import Metric
    from rich.table import Table

    from hepfeed.live_files import Snapshot
    from hepfeed.stats import FeedStats

_LAST_PORT = 65535


def register(app: typer.Typer) -> None:
    """Add ``top`` to ``app``."""
    app.command("top")(top)


def top(
    pid: Annotated[
        int | None, typer.Argument(metavar="[PID]", help="Process that feeds; default: the only one.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one picture, since the start of the loaders.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, metavar="S", help="Seconds between pictures.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and end.")] = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Print them as Prometheus text, and end.")] = False,
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help="Serve them as Prometheus text until Ctrl-C, e.g. 127.0.0.1:9400."),
    ] = None,
) -> None:
    """Show what the [bold]feeds[/] of your processes are doing: stages, queues, rates, and what limits them.

    A process that loops over a DataLoader of hepfeed tells twice a second what it did; nothing else has to be done for
    it. HEPFEED_TOP=0 in its environment switches that off, and HEPFEED_TOP_DIR names another directory for it. Without
    PID, and with several such processes, they are listed.

    [bold]Examples[/]

        hepfeed top

        hepfeed top 12345 --interval 2

        hepfeed top 12345 --once

        hepfeed top --listen 127.0.0.1:9400
    """
    from rich.console import Console

    from hepfeed.errors import SpecError
    from hepfeed.live_files import read_snapshots

    if sum((once, json, prometheus, listen is not None)) > 1:
        raise SpecError("--once, --json, --prometheus and --listen are different things to do: give one of them")
    if listen is not None:
        _serve(listen, pid)
        return
    found = _chosen(read_snapshots(), pid)
    console = Console(highlight=False)
    if json:
        _print_json(found)
    elif prometheus:
        from hepfeed.exports import prometheus_text

        typer.echo(prometheus_text(_by_name(found, pid)), nl=False)
    elif not found:
        console.print("no process of yours feeds events")
    elif len(found) > 1:
        console.print(_listed(found))
    elif once:
        _picture(console.print, found[0])
    else:
        _follow(console, found[0], interval)


def _chosen(found: list[Snapshot], pid: int | None) -> list[Snapshot]:
    """Return the process of a number, or all.

    Raises:
        SpecError: There is none of that number, or it does not feed events.
    """
    from hepfeed.errors import SpecError

    chosen = [snapshot for snapshot in found if pid in (None, snapshot.pid)]
    if pid is not None and not chosen:
        import psutil

        those = ", ".join(str(snapshot.pid) for snapshot in found)
        if not psutil.pid_exists(pid):
            raise SpecError(f"there is no process {pid}{f'; those that feed are {those}' if found else ''}")
        raise SpecError(
            f"process {pid} is not known to feed events{f', but {those}' if found else ', and no other of yours'}"
            " (a feed is seen half a second after its first request, by its own user, where HEPFEED_TOP is not 0)"
        )
    return chosen


def _listed(found: list[Snapshot]) -> Table:
    import time

    from rich.table import Table

    table = Table(caption="hepfeed top PID shows one of them", caption_justify="left")
    for name in ("PID", "loader", "events/s", "bottleneck", "heard", "command"):
        table.add_column(name, justify="right" if name in ("PID", "events/s") else "left", no_wrap=name != "command")
    for snapshot in found:
        heard = f"{max(0.0, time.time() - snapshot.written):.0f} s ago"
        for number, (name, stats) in enumerate(snapshot.loaders.items()):
            who = (str(snapshot.pid), heard, snapshot.command) if not number else ("", "", "")
            table.add_row(who[0], name, f"{stats['events_per_s']:,.0f}", stats["bottleneck"], who[1], who[2])
    return table


def _picture(show: Callable[[Any], None], snapshot: Snapshot) -> None:
    from hepfeed.live_view import FeedView
    from hepfeed.usage import Usage

    show(FeedView().look(snapshot.loaders, Usage(snapshot.pid).look(snapshot)))


def _follow(console: Any, first: Snapshot, interval: float) -> None:
    """Show a process until it ends, or until Ctrl-C; what it told last, where it has no loader for a while."""
    import contextlib
    import time

    from rich.live import Live

    from hepfeed.live_files import read_snapshots
    from hepfeed.live_view import FeedView
    from hepfeed.usage import Usage

    view, usage = FeedView(), Usage(first.pid)
    with contextlib.suppress(KeyboardInterrupt):
        with Live(console=console, auto_refresh=False) as live:
            present = first
            while first.is_alive:
                present = next((each for each in read_snapshots() if each.pid == first.pid), present)
                live.update(view.look(present.loaders, usage.look(present)), refresh=True)
                time.sleep(interval)
        console.print(f"process {first.pid} has ended")


def _print_json(found: list[Snapshot]) -> None:
    import json

    typer.echo(json.dumps([vars(snapshot) for snapshot in found], indent=2))


def _by_name(found: list[Snapshot], pid: int | None) -> dict[str, FeedStats]:
    """Return the figures of all loaders; names begin with the number of the process, unless one was asked for."""
    return {
        f"{snapshot.pid} {name}" if pid is None else name: stats
        for snapshot in found
        for name, stats in snapshot.loaders.items()
    }


class _Told:
    """A loader of another process, as far as its figures go."""

    def __init__(self, stats: FeedStats) -> None:
        self._stats = stats

    def stats(self) -> FeedStats:
        """Return what that process told last."""
        return self._stats


class _Feeds:
    """Collects the figures of all feeds, or of one process, each time that somebody asks."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid

    def collect(self) -> Iterator[Metric]:
        from hepfeed.exports import FeedCollector
        from hepfeed.live_files import read_snapshots

        found = [snapshot for snapshot in read_snapshots() if self._pid in (None, snapshot.pid)]
        return FeedCollector({name: _Told(stats) for name, stats in _by_name(found, self._pid).items()}).collect()


def _serve(place: str, pid: int | None) -> None:
    """Serve Prometheus text until Ctrl-C.

    Raises:
        SpecError: The place is none.
        ResourceError: It is taken, or not for this user.
    """
    import contextlib
    import time

    from hepfeed.errors import ResourceError, SpecError
    from hepfeed.exports import FeedCollector

    address, _, port = place.rpartition(":")
    if not port.isdecimal() or int(port) > _LAST_PORT:
        raise SpecError(f"--listen must be ADDRESS:PORT, e.g. 127.0.0.1:9400, not {place!r}")
    FeedCollector({})  # says so where the package is missing
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Feeds(pid))
    try:
        server, thread = start_http_server(int(port), address.strip("[]") or "127.0.0.1", registry)
    except OSError as error:
        raise ResourceError(f"nobody can listen at {place} ({error.strerror or error}): choose another port") from error
    typer.echo(f"serving http://{address or '127.0.0.1'}:{server.server_port}/metrics until Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        while thread.is_alive():
            time.sleep(1.0)
    server.shutdown()
    server.server_close()
    thread.join()
