"""What keeping, publishing and showing the statistics of a feed costs; each asserts what it has done.

A batch costs a few marks and one account; the file is written, and the view drawn, at most twice and once in a second.

pytest -n0 benchmarks/bench_stats.py --benchmark-columns=median,iqr,rounds
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console

from hepfeed.live_files import Snapshot, read_snapshots, write_snapshot
from hepfeed.live_view import FeedView
from hepfeed.stats import StageClock

COSTS = np.array([1_000_000, 2_000_000, 3_000_000, 1 << 20, 4 << 20, 128])
READERS = 8


@pytest.fixture
def clock() -> StageClock:
    """The clock of a loader with some readers, which has delivered a batch of each."""
    clock = StageClock(readers=READERS)
    clock.start()
    for reader in range(READERS):
        account(clock, reader)
    return clock


def account(clock: StageClock, reader: int = 0) -> None:
    """Do what a batch from a reader asks of a clock."""
    begun = clock.begin()
    clock.add_read(COSTS, reader)
    clock.add_transform(0.001, reader)
    clock.add_wait(begun, starting=False, no_room=False)
    clock.counts["batches"] += 1
    clock.begin()


def test_batch(benchmark: BenchmarkFixture, clock: StageClock) -> None:
    benchmark(account, clock)
    assert clock.stages["read"] == pytest.approx(0.001 * clock.counts["batches"])


def test_report(benchmark: BenchmarkFixture, clock: StageClock) -> None:
    assert benchmark(clock.report)["batches"] == READERS


def test_publish(
    benchmark: BenchmarkFixture, clock: StageClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import socket

    import psutil

    monkeypatch.setenv("HEPFEED_TOP_DIR", str(tmp_path / "top"))
    created, host = psutil.Process().create_time(), socket.gethostname()

    def publish() -> Path:
        return write_snapshot(Snapshot(os.getpid(), created, "", 0.0, [], {"train": clock.report()}, host))

    assert benchmark(publish).exists()
    assert [each.loaders["train"]["batches"] for each in read_snapshots()] == [READERS]


def test_picture(benchmark: BenchmarkFixture, clock: StageClock) -> None:
    view, screen = FeedView(), Console(file=io.StringIO(), width=120, force_terminal=True)

    def draw() -> None:
        account(clock)
        screen.print(view.look({"train": clock.report()}))

    benchmark(draw)
    assert "inflate" in screen.file.getvalue()  # type: ignore[attr-defined]
