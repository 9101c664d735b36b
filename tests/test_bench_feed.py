"""``hepfeed bench feed``: what is fed, how it is verified, and what becomes of sides that are wrong, slow or die."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cloudpickle
import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hepfeed.bench import feeds
from hepfeed.bench.feed_view import figures, sheets
from hepfeed.bench.feeds import jets, lcd
from hepfeed.bench.feeds.bench import held_notes, mixing_notes, relate
from hepfeed.bench.feeds.checking import Checker, Expected, Findings, checksums
from hepfeed.bench.feeds.events import EventSet
from hepfeed.bench.feeds.floor import Copying, Inflating, floor_seconds
from hepfeed.bench.feeds.ftag import Ftag
from hepfeed.bench.feeds.gather import Gather
from hepfeed.bench.feeds.hepfeed_sides import Hepfeed, HepfeedFull, HepfeedHere, HepfeedWide
from hepfeed.bench.feeds.inputs import INPUTS, given, input_of
from hepfeed.bench.feeds.meter import Meter, tree_pss
from hepfeed.bench.feeds.mixing import Mixing, compare
from hepfeed.bench.feeds.process import Setup, SideServer
from hepfeed.bench.feeds.row import Row
from hepfeed.bench.feeds.side import Feed
from hepfeed.bench.feeds.sides import all_sides, sides_of
from hepfeed.bench.feeds.torch_sides import TorchBatched, TorchBlock, TorchMap, TorchMapHere
from hepfeed.bench.feeds.weaver import Weaver
from hepfeed.bench.record import Record
from hepfeed.cli import app
from hepfeed.errors import SpecError
from hepfeed.spec import SampleSpec
from hepfeed.tensors import Jagged
from hepfeed.transforms import Cast

FILES, EVENTS, BATCH = 2, 60, 16
MAKERS = {"columns": jets.make_columns, "table": jets.make_tables, "ragged": jets.make_ragged, "hits": jets.make_hits}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Each layout: two classes (hits: one) x two files x 60 events (hits: 12)."""
    folder = tmp_path_factory.mktemp("sets")
    made = {}
    for name, make in MAKERS.items():
        each = EVENTS if name != "hits" else 12  # which are large
        made[name] = EventSet.of(name, name, SampleSpec(make(folder, FILES, each)))
    (folder / "plain").mkdir()
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        with h5py.File(folder / "plain" / f"{name}.h5", "w") as file:
            file["x"] = random.random((EVENTS, 3, 4)).astype(np.float32)
            file["y"] = random.integers(0, 9, EVENTS)
    entries = [[str(folder / "plain" / f"{name}.h5"), ["x", "y"], name, 1.0] for name in ("a", "b")]
    return {**made, "plain": EventSet.of("plain", "plain", SampleSpec(entries))}


def run(*arguments):
    return CliRunner().invoke(app, ["bench", "feed", *map(str, arguments)])


def checked(events, feed, batches=None):
    """The findings of an epoch."""
    checker = Checker(events, Expected.of(events), BATCH)
    for batch in feed.epoch(0) if batches is None else batches:
        checker.add(batch)
    return checker.findings(complete=True)


# ---- the events


def test_events_are_numbered_file_after_file_and_labelled_by_class(sets):
    events = sets["columns"]
    assert len(events) == 2 * FILES * EVENTS
    assert events.classes == ("qcd", "top")
    assert events.file_events == [EVENTS] * 4
    assert events.file_labels.tolist() == [0, 0, 1, 1]
    assert events.place(np.array([0, 59, 60, 239])).tolist() == [[0, 0], [0, 59], [1, 0], [3, 59]]
    numbers = [rows["number"] for _, _, rows in events.blocks(50)]
    assert np.array_equal(np.concatenate(numbers), np.arange(240))


def test_events_are_read_as_h5py_has_them(sets):
    source = sets["ragged"].sources[1]
    with h5py.File(source.path) as file:
        rows = source.read(file, 5, 9)
        offsets, values = file["particles/offsets"][5:10], file["particles/part_px"][:]
    found = rows["particles/part_px"]
    assert np.array_equal(found.offsets, offsets - offsets[0])
    assert np.array_equal(found.values, values[offsets[0] : offsets[-1]])
    source = sets["table"].sources[0]
    with h5py.File(source.path) as file:
        rows, tracks = source.read(file, 0, 3), file["tracks"][:3]
    assert rows["tracks"].shape == (3, 40, 4)
    assert np.array_equal(rows["tracks"][..., 1], tracks["z0SinTheta"])


def test_filters_and_steps_of_a_specification_are_left_out(sets):
    spec = SampleSpec(
        [[sets["plain"].files[0], ["x", "y"], "a", 1.0]], filter="y < 3", transforms=[Cast(dtype="f2", keys="x")]
    )
    events = EventSet.of("given", "given", spec)
    assert len(events) == EVENTS
    assert events.shapes["x"] == (np.dtype("f4"), (3, 4))


# ---- verification


def test_checksums_are_weighted_sums_for_dense_padded_and_jagged_events():
    weights = 1 + np.modf(np.arange(4) * 0.6180339887498949)[0]
    dense = np.array([[1.0, 2.0, 0.0, 0.0], [3.0, -4.0, 5.0, 0.0]])
    sums, sizes = checksums(dense)
    assert np.allclose(sums, [1 * weights[0] + 2 * weights[1], 3 * weights[0] - 4 * weights[1] + 5 * weights[2]])
    assert np.allclose(sizes[1], 3 * weights[0] + 4 * weights[1] + 5 * weights[2])
    jagged = Jagged(np.array([1.0, 2.0, 3.0, -4.0, 5.0]), np.array([0, 2, 5]))
    assert np.allclose(checksums(jagged)[0], sums)
    assert np.allclose(checksums(Jagged(torch.from_numpy(jagged.values), torch.tensor([0, 0, 2, 5])))[0], [0, *sums])
    assert not np.allclose(checksums(dense[:, ::-1])[0], sums)


def lie_about_a_value(batches):
    batches[2]["x"][3, 1, 2] *= 1 + 1e-6


def swap_two_items(batches):
    batches[0]["x"][0, 0, :2] = batches[0]["x"][0, 0, [1, 0]]


def drop_an_event(batches):
    batches[1] = {key: value[1:] for key, value in batches[1].items()}


def repeat_an_event(batches):
    batches[3] = {key: value[[0, *range(15)]] for key, value in batches[3].items()}


def lie_about_a_label(batches):
    batches[0]["label"][5] ^= 1


def forget_a_key(batches):
    del batches[1]["y"]


def flatten_the_images(batches):
    batches[0]["x"] = batches[0]["x"].reshape(BATCH, 12)


def invent_an_event(batches):
    batches[0]["event"][0] = [1, EVENTS]


def join_two_batches(batches):
    batches[:2] = [{key: np.concatenate([value, batches[1][key]]) for key, value in batches[0].items()}]


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        (None, ""),
        (lie_about_a_value, "values of x are wrong"),
        (swap_two_items, "values of x are wrong"),
        (drop_an_event, "1 of 120 events are missing"),
        (repeat_an_event, "1 events came more than once; 1 of 120 events are missing"),
        (lie_about_a_label, "labels are wrong"),
        (forget_a_key, "y is not delivered"),
        (flatten_the_images, "x has shape (12,) an event, not (3, 4)"),
        (invent_an_event, "there are events that no file has"),
        (join_two_batches, "a batch has 32 events, more than 16"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_kind_of_lie_is_found_out(sets, lie, fault):
    events = sets["plain"]
    with Closing(Gather().open(events, None, 0, BATCH, 0)) as feed:
        batches = [{key: value.copy() for key, value in batch.items()} for batch in feed.epoch(0)]
    if lie is not None:
        lie(batches)
    assert "; ".join(checked(events, None, batches).faults) == fault


class Closing:
    """Closes a feed."""

    def __init__(self, feed):
        self.feed = feed

    def __enter__(self):
        return self.feed

    def __exit__(self, *_):
        self.feed.close()


@pytest.mark.parametrize("layout", ["table", "ragged", "hits", "plain"])
@pytest.mark.parametrize("side", [HepfeedHere, TorchMapHere, TorchBatched, TorchBlock])
def test_every_side_delivers_each_event_once_in_another_order_each_epoch(sets, layout, side, tmp_path):
    check_two_epochs(sets[layout], side(), tmp_path)


@pytest.mark.parametrize("side", [HepfeedFull, HepfeedWide])
def test_hepfeed_delivers_a_random_order(sets, tmp_path, side):
    found = check_two_epochs(sets["columns"], side(), tmp_path)
    assert Mixing.of(sets["columns"], found, BATCH).distance == pytest.approx(1, abs=0.2)


def test_the_gather_delivers_contiguous_files_alone(sets, tmp_path):
    assert "can be mapped" in Gather().takes(sets["table"])
    check_two_epochs(sets["plain"], Gather(), tmp_path)


def test_ftag_delivers_tables_alone(sets, tmp_path):
    assert "compound tables" in Ftag().takes(sets["plain"])
    pytest.importorskip("ftag", reason="atlas-ftag-tools is not installed")
    check_two_epochs(sets["table"], Ftag(), tmp_path)


def test_weaver_delivers_columns_alone(sets, tmp_path):
    assert "float32 columns" in Weaver().takes(sets["table"])
    if (reason := Weaver().missing()) is not None:
        pytest.skip(f"weaver: {reason}")
    check_two_epochs(sets["columns"], Weaver(), tmp_path)


def check_two_epochs(events, side, folder):
    assert side.takes(events) is None
    with Closing(side.open(events, folder, 0, BATCH, 0)) as feed:
        first, second = checked(events, feed), checked(events, feed, feed.epoch(1))
    assert first.faults == second.faults == []
    assert first.delivered == len(events)
    assert not np.array_equal(first.events, second.events)
    return first


def test_sides_take_the_inputs_that_they_are_for(sets):
    cached = replace(sets["plain"], prepared=True)
    assert TorchMap().fits(sets["plain"])
    assert not TorchMap().fits(cached)
    assert "formats that are written once" in TorchMap().takes(cached)
    assert Hepfeed().fits(cached)
    assert Hepfeed().takes(cached) is None
    assert not HepfeedFull().fits(cached)


def test_what_is_not_installed_says_how_to_install_it():
    class Nowhere(Hepfeed):
        package = "hepfeed-no-such-package"

    assert Nowhere().missing() == "it is not installed: pip install hepfeed-no-such-package"


# ---- mixing


def findings(events, numbers):
    numbers = np.asarray(numbers)
    return Findings(
        len(numbers), True, [], events.place(numbers), np.diff([*range(0, len(numbers), BATCH), len(numbers)])
    )


def test_mixing_tells_random_from_stored_order(sets):
    events = sets["columns"]
    stored = Mixing.of(events, findings(events, np.arange(240)), BATCH)
    # 7 batches of class 0, one of 8 + 8, 7 of class 1, each 8 from the mean; the variance of a random one is
    # 16 (1/2) (1/2) (240 - 16) / (240 - 1)
    assert stored.class_spread == pytest.approx(np.sqrt(14 / 15 * 64 / (4 * 224 / 239)))
    assert (stored.classes_least, stored.classes_most) == (0, 16)
    assert stored.distance == pytest.approx(1 / (240 * (1 - np.sqrt(0.5))))
    assert [source.block for source in events.sources] == [60] * 4
    # batches of 16 that reach over the end of a file: 12 + 4, 8 + 8, 4 + 12; the others have pairs of one file only
    assert stored.one_block == pytest.approx((12 * 240 + 2 * (132 + 12) + 112) / (15 * 240))
    assert stored.one_block_random == pytest.approx(59 / 239)
    spreads = [
        Mixing.of(events, findings(events, np.random.default_rng(seed).permutation(240)), BATCH).class_spread
        for seed in range(20)
    ]
    assert np.mean(spreads) == pytest.approx(1, abs=0.1)
    alternating = np.arange(240).reshape(2, 120).T.ravel()
    assert Mixing.of(events, findings(events, alternating), BATCH).class_spread == 0


def test_who_shuffles_less_is_named():
    good = Mixing(1.0, 4, 12, 1.0, 0.1, 0.1)
    near = replace(good, distance=0.2)
    runs = replace(good, class_spread=4.0)
    assert compare("a", good, "b", good) == []
    assert compare("a", near, "b", good) == [
        "a shuffles less than b (distance of neighbours 0.200 against 1.000): the rate of a is flattered"
    ]
    assert "the rate of b is flattered" in compare("a", good, "b", near)[0]
    assert "a mixes classes worse than b (spread 4.00 against 1.00 of random)" in compare("a", runs, "b", good)[0]
    rows = [Row("in", "in", name, name, "b", mixing=vars(mixing)) for name, mixing in (("a", near), ("b", good))]
    assert [note.partition(":")[0] for note in mixing_notes(rows)] == ["in"]


# ---- floors and meters


@pytest.mark.parametrize("checksum", [None, "behind", "before"])
def test_the_floor_inflates_every_chunk(tmp_path, checksum):
    values = np.random.default_rng(0).integers(0, 9, (50, 7))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10, 7))
        if checksum == "before":
            plist.set_fletcher32()
        plist.set_deflate(4)
        if checksum == "behind":
            plist.set_fletcher32()
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT64, space, plist).write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        file["y"] = values
    part = Inflating([str(tmp_path / "a.h5")], ["x", "y"], written=1000, folder=str(tmp_path))
    part.run()
    part.close()
    packed = values.nbytes + (4 * 5 if checksum == "before" else 0)
    assert part._target[packed : packed + values.nbytes].tobytes() == values.tobytes()
    assert part._target[: values[:10].nbytes].tobytes() == values[:10].tobytes()
    assert sum(path.stat().st_size for path in tmp_path.glob("floor-*")) == 1000


def test_the_floor_of_memory_copies_or_clears_every_byte():
    for clear in (False, True):
        part = Copying(1000, clear)
        part._target[:] = 7
        part.run()
        assert (part._target == (0 if clear else 1)).all()
        assert len(part._target) == 1000


def test_the_floor_has_a_rate(sets):
    assert floor_seconds(sets["plain"].files, ["x", "y"], processes=1, rounds=1) > 0


def test_the_meter_counts_children():
    program = "import sys; data = bytearray(b'x') * 50_000_000; print('ready', flush=True); sys.stdin.read()"
    before = tree_pss(os.getpid())
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        with Meter(os.getpid()) as meter:
            child.stdout.readline()
        assert tree_pss(child.pid) >= 50_000_000
        assert meter.peak_bytes >= before + 40_000_000
        child.stdin.close()
    assert meter.cpu_s > 0


# ---- the whole


class LyingFeed(Feed):
    """Leaves out the last batch."""

    def __init__(self, feed):
        self.feed = feed

    def epoch(self, number):
        yield from list(self.feed.epoch(number))[:-1]

    def close(self):
        self.feed.close()


class Lying(HepfeedHere):
    name = "lying"

    def open(self, *arguments):
        return LyingFeed(super().open(*arguments))


class Dying(HepfeedHere):
    name = "dying"

    def __setstate__(self, state):
        print("out of luck", flush=True)
        os._exit(3)

    def __reduce__(self):
        return Dying, (), {"any": "state"}


class Right(HepfeedHere):
    name = "hepfeed"


def test_the_command_writes_all_and_gives_no_rate_to_sides_that_lie_or_die(sets, tmp_path, monkeypatch):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    known = {side.name: side for side in (Right(), Lying(), Dying(), Ftag())}
    monkeypatch.setattr("hepfeed.bench.feeds.sides.all_sides", lambda: known)
    spec, results = tmp_path / "mine.yaml", tmp_path / "feed.json"
    sets["plain"].spec.save(spec)
    options = ("--workers", 1, "--batch-size", BATCH, "--rounds", 1, "--seconds", 20)
    done = run(
        spec, *options, "--json", results, "--plot", tmp_path / "feed.svg", "--sides", "hepfeed,lying,dying,ftag"
    )
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert done.exit_code == 0, done.output
    record = json.loads(results.read_text())
    rows = {row["side"]: row for row in record["rows"]}
    assert list(rows) == ["hepfeed", "lying", "dying", "ftag", "floor"]
    right = rows["hepfeed"]
    assert right["fault"] is None
    assert (right["verified"], right["complete"], right["stopped"]) == (120, True, False)
    assert len(right["rates"]) == len(right["cpu_s"]) == 1
    assert right["of_floor"] == [
        ours / least for ours, least in zip(right["rates"], rows["floor"]["rates"], strict=True)
    ]
    assert right["peak_bytes"] > 50_000_000
    assert rows["lying"]["fault"] == "8 of 120 events are missing"
    assert "out of luck" in rows["dying"]["fault"]
    assert rows["lying"]["rates"] == rows["dying"]["rates"] == []
    notes = [note for note in record["notes"] if note.startswith(("lying is left out", "dying is", "ftag did not"))]
    assert len(notes) == 3
    assert record["settings"]["batch_size"] == BATCH
    assert "worker" in done.output
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["feed-2.svg", "feed.svg"]


class InterruptingFeed(LyingFeed):
    """Delivers all, and stops the command once a file is there."""

    def __init__(self, feed, results):
        super().__init__(feed)
        self.results, self.asked = results, False

    def epoch(self, number):
        if self.results.exists() and not self.asked:
            self.asked = True
            os.kill(os.getppid(), signal.SIGINT)
        yield from self.feed.epoch(number)


class Interrupting(HepfeedHere):
    name = "hepfeed"

    def __init__(self, results):
        self.results = results

    def open(self, *arguments):
        return InterruptingFeed(super().open(*arguments), self.results)


def test_a_run_that_is_interrupted_leaves_the_rounds_that_were_over(sets, tmp_path, monkeypatch):
    results, spec = tmp_path / "feed.json", tmp_path / "mine.yaml"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("hepfeed.bench.feeds.sides.all_sides", lambda: {"hepfeed": Interrupting(results)})
    sets["plain"].spec.save(spec)
    options = ("--workers", 1, "--batch-size", BATCH, "--rounds", 9, "--seconds", 0.1)
    done = run(spec, *options, "--json", results)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert done.exit_code != 0
    record = Record.load(results)
    assert record.title.startswith("Incomplete: ")
    assert "incomplete: 0 of 1 inputs, and 1 of 9 rounds of mine" in record.notes[0]
    assert [len(row["rates"]) for row in record.rows] == [1, 1]
    assert record.title.split(":")[0] in done.output


def test_who_need_not_inflate_a_small_set_again_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((100, 1000)), chunks=(7, 1000), compression="gzip")  # 15 chunks: 840 kB
        file.create_dataset("y", data=np.zeros((100, 105)), chunks=(50, 105), compression="gzip")  # 84 kB
        file["z"] = np.zeros((100, 9))  # contiguous
    events = EventSet.of("a", "a", SampleSpec([[str(tmp_path / "a.h5"), ["x", "y", "z"], "a", 1.0]]))
    parts = {size: events.in_chunk_caches(size) for size in (840_000, 839_999, 84_000, 83_999)}
    assert parts == {840_000: 1, 839_999: 84 / 924, 84_000: 84 / 924, 83_999: 0}
    assert (TorchMap().held(events), TorchBlock().held(events)) == (1, 0)
    rows = [
        Row("a", "a", "torch-map", "", "", rates=[1.0], held=1.0),
        Row("a", "a", "few", "", "", rates=[1.0], held=0.05),
    ]
    (note,) = held_notes(rows)
    assert note.startswith("a: torch-map keeps 100 % of the events inflated")


def test_ratios_are_formed_round_by_round():
    rows = [
        Row("in", "in", "hepfeed", "hepfeed", "hepfeed", rates=[100.0, 400.0]),
        Row("in", "in", "slow", "slow", "hepfeed", rates=[50.0, 100.0]),
        Row("in", "in", "dead", "dead", "hepfeed"),
        Row("in", "in", "floor", "floor", "floor", rates=[200.0, 800.0]),
    ]
    relate(rows, rows[-1])
    assert [row.ratios for row in rows] == [[], [2.0, 4.0], [], []]
    assert [row.of_floor for row in rows] == [[0.5, 0.5], [0.25, 0.125], [], [1.0, 1.0]]
    rows[1].rates.clear()  # it has died in a later round
    relate(rows, rows[-1])
    assert (rows[1].ratios, rows[1].of_floor) == ([], [])


class SlowFeed(LyingFeed):
    """Delivers all, in time."""

    def epoch(self, number):
        for batch in self.feed.epoch(number):
            yield batch
            time.sleep(0.05)


def test_a_slow_side_is_verified_and_timed_as_far_as_it_comes(sets, tmp_path):
    class Slow(HepfeedHere):
        def open(self, *arguments):
            return SlowFeed(super().open(*arguments))

    events = sets["plain"]
    server = SideServer(Setup(Slow(), events, tmp_path, 0, BATCH, 0))
    with Closing(server):
        first = server.first(Expected.of(events), 0.06)
        assert first.findings.faults == []
        assert not first.findings.complete
        assert BATCH <= first.findings.delivered < len(events)
        assert Mixing.of(events, first.findings, BATCH).distance is None
        turn = server.turn(0.01, 0.06)
        assert not turn.complete
        assert 0 < turn.events < len(events)
        assert server.turn(0.0, 60.0).events == len(events)


def test_a_prepared_input_comes_from_the_cache(tmp_path, sets):
    sets["plain"].spec.save(tmp_path / "mine.yaml")
    events = given(tmp_path / "mine.yaml", prepared=True)
    assert (events.name, events.prepared, events.sparse) == ("mine-cached", True, False)
    Hepfeed().prepare(events, tmp_path)
    assert list(tmp_path.rglob("*.h5"))
    with Closing(HepfeedHere().open(events, tmp_path, 0, BATCH, 0)) as feed:
        assert checked(events, feed).faults == []
        assert feed._loader.filler.order == "full"


def test_results_are_shown_with_what_is_not_known_left_out():
    mixing = vars(Mixing(None, None, None, None, 0.5, 0.25))
    known = {
        "rates": [10.0, 30.0, 20.0],
        "cpu_s": [5.0] * 3,
        "of_floor": [0.1] * 3,
        "first_batch_s": 0.5,
        "peak_bytes": 5,
    }
    slow = {"stopped": True, "ratios": [2.0, 4.0, 3.0], "mixing": mixing, **known}
    rows = [
        vars(Row("in", "Input", "hepfeed", "hepfeed", "hepfeed", mixing=mixing, verified=7, complete=True, **known)),
        vars(Row("in", "Input", "slow", "Slow", "hepfeed", **slow)),
        vars(Row("in", "Input", "gone", "Gone", "hepfeed", missing="it is not installed")),
        vars(Row("in", "Input", "floor", "floor", "floor", rates=[100.0])),
    ]
    record = Record.now("feed", "title", {}, rows, [])
    rates, costs, shuffled, settings = sheets(record)
    assert rates.rows[1] == ["", "Slow", "20* (10 - 30)", "3.00 x (2.00 - 4.00)", "10 %"]
    assert rates.rows[2] == ["", "floor", "100 (100 - 100)", "", ""]
    assert rates.caption
    assert len(costs.rows) == len(settings.rows) == 2
    assert shuffled.rows[1][2:] == ["0 (stopped)", "", "", "", "50.0 %", "25.0 %"]
    assert len(figures(record)) == 2
    assert figures(Record.now("feed", "title", {}, [], [])) == []


# ---- names and options


def test_inputs_and_sides_are_listed():
    done = run("--list")
    assert done.exit_code == 0, done.output
    for name in (*INPUTS, *all_sides()):
        assert name in done.output
    assert [side.name for side in sides_of(["torch-map", "hepfeed"])] == ["hepfeed", "torch-map"]
    assert all(side.name == name and side.title and side.advice for name, side in all_sides().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--inputs", "lcd-atuo"), "there is no input 'lcd-atuo': did you mean 'lcd-auto'"),
        (("--inputs", ","), "--inputs ',' names none: see --list"),
        (("--prepared",), "--prepared is for the events of a specification"),
        (("--sides", "hepfed"), "there is no side 'hepfed': did you mean 'hepfeed'"),
    ],
)
def test_wrong_options_are_errors_that_say_what_to_do(arguments, message):
    done = run(*arguments)
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception)


def test_an_input_without_events_to_shuffle_is_an_error(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((1, 3))
    spec = tmp_path / "one.yaml"
    SampleSpec([[str(tmp_path / "a.h5"), ["x"], "a", 1.0]]).save(spec)
    done = run(spec)
    assert isinstance(done.exception, SpecError)
    assert "has 1 events" in str(done.exception)


def test_sets_are_written_once_and_have_what_they_say(tmp_path):
    suppressed = lcd.make_suppressed_set(tmp_path, "contiguous", 1, 3)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert lcd.make_suppressed_set(tmp_path, "contiguous", 1, 3) == suppressed
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    for path in lcd.files_of(suppressed):
        with h5py.File(path) as file:
            cells = file["ECAL"][:]
            assert ((cells == 0) | (cells >= lcd.THRESHOLD)).all()
    for path in lcd.files_of(lcd.make_filled_set(tmp_path, "contiguous", 1, 3)):
        with h5py.File(path) as file:
            assert (file["ECAL"][:] >= lcd.OFFSET).all()
    SampleSpec(suppressed).save(tmp_path / "suppressed.yaml")
    assert given(tmp_path / "suppressed.yaml", prepared=True).sparse
    made = input_of("jets-table").make(tmp_path, 40, 2)
    assert (len(made), len(made.files), made.title) == (40, 4, INPUTS["jets-table"].title)


def test_no_rival_is_imported_before_it_is_opened():
    rivals = {"ftag", "weaver", "spdl", "grain", "litdata", "streaming", "webdataset", "tables", "awkward"}
    for path in Path(feeds.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not rivals & {name.partition(".")[0] for name in names}, path.name
