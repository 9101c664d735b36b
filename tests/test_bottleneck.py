"""The bottleneck by name and what to do about it, from the figures of feeds that are as written here."""

import pytest

from hepfeed.processors import usable_processors
from hepfeed.stats import FeedStats, StageClock

STAGES = ("read", "inflate", "scatter", "transform")


def figures(*, by_reader=(), setting=None, readers=None, **sums):
    """Return statistics of ten seconds, unless they say otherwise."""
    clock = StageClock(setting={"processors": 4, "cache": "off", "prefetch_factor": 2, **(setting or {})})
    together = {stage: sum(row[place] for row in by_reader) for place, stage in enumerate(STAGES)}
    known = {**clock.stages, **clock.waits, **clock.counts, "seconds": 10.0, "events": 5000, "batches": 50, **together}
    assert not set(sums) - set(known)
    state = {"readers": len(by_reader) if readers is None else readers, "queues": {}, "setting": clock.setting}
    return FeedStats.of({**known, **sums}, by_reader, state)


INFLATING = [[0.1, 9.7, 0.1, 0.0], [0.1, 9.7, 0.1, 0.0]]


@pytest.mark.parametrize(
    ("stats", "name", "advice"),
    [
        (
            figures(by_reader=INFLATING, wait=5.0),
            "inflate",
            "inflate-bound: 2 of 2 readers 97 % busy in inflate; build a cache (cache='auto'), add readers"
            " (num_workers=3), or store the files with less compression",
        ),
        (
            figures(by_reader=INFLATING, wait=5.0, setting={"processors": 2}),
            "inflate",
            "inflate-bound: 2 of 2 readers 97 % busy in inflate; build a cache (cache='auto'), store the files with"
            " less compression, or use more processors: the 2 that this process may use are busy",
        ),
        (
            figures(by_reader=INFLATING, wait=9.0, setting={"processors": 64}),
            "inflate",
            "inflate-bound: 2 of 2 readers 97 % busy in inflate; build a cache (cache='auto'), add readers"
            " (num_workers=20), or store the files with less compression",
        ),
        (
            figures(by_reader=INFLATING, wait=5.0, setting={"cache": "filling", "processors": 2}),
            "inflate",
            "inflate-bound: 2 of 2 readers 97 % busy in inflate; let this epoch write the cache, from which the next"
            " ones come, or use more processors: the 2 that this process may use are busy",
        ),
        (
            figures(by_reader=INFLATING, wait=5.0, setting={"cache": "unwritten", "processors": 2}),
            "inflate",
            "inflate-bound: 2 of 2 readers 97 % busy in inflate; let the cache be written: another process does, or the"
            " log says why not, or use more processors: the 2 that this process may use are busy",
        ),
        (
            figures(by_reader=[[9.0, 0, 0.5, 0]], wait=5.0, bytes_read=180_000_000),
            "read",
            "read-bound: 1 of 1 readers 90 % busy in read at 20 MB/s each; build a cache (cache='auto'), copy the files"
            " to a faster disk, or add readers (num_workers=2)",
        ),
        (
            figures(by_reader=[[9.0, 0, 0.5, 0]], wait=5.0, bytes_read=180_000_000, setting={"cache": "on"}),
            "read",
            "read-bound: 1 of 1 readers 90 % busy in read at 20 MB/s each; keep the cache in memory (cache='ram') or on"
            " a faster disk, or add readers (num_workers=2)",
        ),
        (
            figures(by_reader=[[0, 0, 0, 9.9], [0, 0, 0, 0.1]], wait=5.0, setting={"feed": "dataset", "cache": "none"}),
            "transform",
            "transform-bound: 1 of 2 readers 99 % busy in transform; add readers (num_workers=3), or make the dataset's"
            " methods and collate_fn faster",
        ),
        (
            figures(by_reader=[[0, 0, 6.0, 0]], readers=0),
            "scatter",
            "scatter-bound: this process, which reads itself, is 60 % busy in scatter; read in the background"
            " (num_workers=2), or store the files with larger chunks",
        ),
        (
            figures(by_reader=[[0, 0, 0.1, 0], [0, 0, 0.1, 0], [0, 0, 0.1, 0]], wait=0.1),
            "consumer",
            "consumer-bound: the loop waits 1.0 % of its time for batches, and 3 readers are 1 % busy; the feed keeps"
            " up, and would with num_workers=1",
        ),
        (
            figures(by_reader=[[0, 0, 0.1, 0.3]], readers=0, transfer=0.2),
            "consumer",
            "consumer-bound: the loop itself takes 94 % of the time, and the feed 6 %; the feed keeps up",
        ),
        (
            figures(by_reader=[[0, 2.0, 0, 0]], wait=1.0, transfer=6.1, setting={"delivery_fn": True}),
            "transfer",
            "transfer-bound: this process is 61 % busy handing batches over; do in the readers what delivery_fn does"
            " (process_fn=, outputs=)",
        ),
        (
            figures(by_reader=[[0, 2.0, 0, 0]], wait=6.0, starting=4.5),
            "start",
            "start-bound: 75 % of the wait was for readers and their memory; keep the readers from epoch to"
            " epoch (persistent_workers=True)",
        ),
        (
            figures(by_reader=[[0, 2.0, 0, 0]], wait=6.0, restarts=5),
            "restarts",
            "readers die: 5 were replaced, and what they did was done again; look for lack of memory, or for a crash in"
            " a function of yours; num_workers=0 shows it in this process",
        ),
        (
            figures(by_reader=[[0, 2.0, 0, 0]] * 2, wait=6.0, no_room=6.0),
            "ring",
            "ring-bound: in 100 % of the wait all slots ahead were taken, and readers had nothing to do; let"
            " readers work further ahead (prefetch_factor=4)",
        ),
        (
            figures(by_reader=[[0, 0, 0, 0]] * 2, wait=10.0, events=0, batches=0),
            "stall",
            "stalled: nothing came from 2 readers for 10.0 s; look at the file system and at functions of yours;"
            " timeout= replaces readers that hang",
        ),
        (
            figures(by_reader=[[0, 0.3, 0, 0]] * 2, wait=9.0),
            "stall",
            "stalled: the loop waited for 9.0 s, and in no reader more than 3 % of the time went to work that is done;"
            " look at the file system and at functions of yours; timeout= replaces readers that hang",
        ),
        (
            figures(by_reader=[[0, 0.3, 0, 0]] * 2, wait=1.0, transfer=8.0, copies=48),
            "transfer",
            "transfer-bound: this process is 80 % busy handing batches over; let go of earlier batches: 48 of 50 were"
            " copied because the loop keeps them, or make fewer, larger batches (batch_size=)",
        ),
        (
            figures(
                by_reader=INFLATING,
                wait=9.0,
                cache_hits=1500,
                cache_misses=500,
                setting={"cache": "on", "processors": 2},
            ),
            "inflate",
            "inflate-bound: 2 of 2 readers 97 % busy in inflate; look at later epochs alone (stats().since(earlier)):"
            " 25 % of the events were not in the cache yet, or use more processors: the 2 that this process may use are"
            " busy",
        ),
        (
            figures(by_reader=[[0, 2.0, 0, 0]], readers=0, wait=6.0, starting=6.0),
            "start",
            "start-bound: 100 % of the wait was for readers and their memory; it happens once, and matters less the"
            " longer the training",
        ),
        (
            figures(by_reader=[[0, 6.0, 0, 0]], readers=0, wait=2.0, starting=2.0, setting={"cache": "none"}),
            "inflate",
            "inflate-bound: this process, which reads itself, is 60 % busy in inflate; read in the background"
            " (num_workers=2), or store the files with less compression",
        ),
        (figures(seconds=0.0, events=0, batches=0), "none", "no batch was asked for"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_the_bottleneck_is_named_with_what_can_be_done(stats, name, advice):
    assert stats["bottleneck"] == name
    assert stats["advice"] == advice


def test_no_cache_is_advised_where_it_saves_nothing():
    for cache in ("needless", "none"):
        assert "cache" not in figures(by_reader=INFLATING, wait=5.0, setting={"cache": cache})["advice"]


def test_reading_takes_no_processor_where_files_are_slow():
    busy = {"by_reader": [[9.5, 0, 0, 0]] * 4, "wait": 5.0, "setting": {"processors": 4}}
    assert "num_workers" in figures(**busy, bytes_read=100_000_000)["advice"]
    assert "num_workers" not in figures(**busy, bytes_read=100_000_000_000)["advice"]


def test_parts_of_the_time_are_what_they_say():
    stats = figures(by_reader=[[1.0, 2.0, 3.0, 0.0], [1.0, 0.0, 0.0, 0.0]], wait=2.5, bytes_read=30_000_000)
    assert stats["waiting"] == pytest.approx(13.0)
    assert stats["busy"] == pytest.approx(0.35)
    assert stats["busy_by_stage"] == pytest.approx({"read": 0.1, "inflate": 0.1, "scatter": 0.15, "transform": 0})
    assert (stats["wait_fraction"], stats["mb_read_per_s"], stats["events_per_s"]) == (0.25, 3.0, 500.0)


def test_readers_that_work_while_no_epoch_runs_are_not_busy_for_more_than_their_time():
    stats = figures(by_reader=[[0.0, 12.0, 0.0, 0.0]])
    assert (stats["busy"], stats["waiting"], stats["busy_by_stage"]["inflate"]) == (1.0, 0.0, 1.0)


def test_a_quota_of_the_control_group_limits_the_processors(tmp_path):
    limit = tmp_path / "cpu.max"
    allowed = usable_processors(str(limit))
    assert allowed >= 1
    assert allowed == int(allowed)
    limit.write_text("50000 100000\n")
    assert usable_processors(str(limit)) == 0.5
    limit.write_text("max 100000\n")
    assert usable_processors(str(limit)) == allowed


def test_listeners_are_told_every_half_second_that_an_epoch_runs():
    now, told = [100.0], []
    clock = StageClock(lambda: now[0], listeners=[lambda of: told.append(now[0])])
    clock.begin()
    for _ in range(3):
        clock.start()
        for _ in range(4):
            now[0] += 0.25
            clock.begin()
        clock.end()
        now[0] += 0.25
    assert told == [100.5, 101.0, 101.5, 102.0, 102.75, 103.25]
    assert clock.seconds == 3.0
