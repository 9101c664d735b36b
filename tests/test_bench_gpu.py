"""``hepfeed bench gpu``: devices, sides, models, the sweep, and what is printed of them."""

import gc
import itertools
import json
import sys
import time
import weakref
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from events import write_classes
from typer.testing import CliRunner

import hepfeed as hf
from hepfeed.bench import gpu_sides, nvml
from hepfeed.bench.gpu import Row, bench_gpu, headline
from hepfeed.bench.gpu_devices import CpuDevice, Trainer
from hepfeed.bench.gpu_loop import Limits, Loops
from hepfeed.bench.gpu_models import MODELS, fitting, make_model
from hepfeed.bench.gpu_place import Place
from hepfeed.bench.gpu_sides import FirstEpoch, Hepfeed, Replay, Source, Torch
from hepfeed.bench.h5py_events import H5pyEvents, SameBatches
from hepfeed.bench.record import Record
from hepfeed.bench.simulated import SimulatedDevice, batch_bytes
from hepfeed.bench.simulated_bus import SimulatedBus
from hepfeed.bench.simulated_engine import SimulatedEngine
from hepfeed.bench.sweep import Grid, Setting, SweepRow, best_of, tuned
from hepfeed.bench.timeline import Timeline
from hepfeed.bench.views import view_of
from hepfeed.cli import app
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import Jagged, Padded, Sparse
from hepfeed.transfer import Transfer

QUICK = Limits(steps=4, seconds=None, warm_up=2, rounds=2)
TINY = Place("simulated", step_s=1e-4)

# torch's workers are forked, and newer Pythons warn of that where there are threads
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


class VirtualTime:
    """A clock that only sleeping moves on, and by more than it was asked for where ``late`` says so."""

    def __init__(self, late=0.0):
        self.now, self.late = 0.0, late

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds + self.late


def device(clock, **options):
    """Steps of 1 s, and a bus of 64 bytes a second: a batch of two events takes 0.25 s."""
    settings = {"step_s": 1.0, "bus_bytes_s": 64.0} | options
    bus = SimulatedBus(settings.pop("bus_bytes_s"), clock=clock, sleep=clock.sleep)
    return SimulatedDevice(bus=bus, **settings)


def batch(events=2):
    return {"label": torch.zeros(events, dtype=torch.int64)}


@pytest.fixture
def spec(tmp_path):
    """Two classes of 30 events."""
    return hf.SampleSpec(write_classes(tmp_path / "set", {"a": [20, 10], "b": [30]}, layout="hundred_event_chunks"))


@pytest.fixture
def source(spec, tmp_path):
    return Source(spec, batch_size=6, num_workers=0, cache=tmp_path / "cache")


# ---- the simulated device


def test_the_times_of_a_simulated_device_are_those_worked_out_by_hand():
    clock = VirtualTime()
    simulated = device(clock)
    simulated.step(batch())  # copied at 0.25, ends at 1.25
    simulated.step(batch())  # copied at 0.5, begins at 1.25 and ends at 2.25; the loop goes on at 1.25
    assert clock.now == 1.25
    clock.now = 3.0
    simulated.step(batch())  # copied at 3.25: 1 s after the end of the step before; ends at 4.25
    simulated.step(batch(4))  # copied at 3.75 and begins at 4.25; the loop goes on then
    assert clock.now == 4.25
    line = simulated.take()
    assert clock.now == 5.25
    assert line == Timeline([0.0, 0.0, 1.0, 0.0], [1.0] * 4, [2, 2, 2, 4])
    assert (line.seconds, line.busy, line.events_per_s) == (5.0, 0.8, 2.0)
    assert line.fractions.tolist() == [0.0, 0.0, 0.5, 0.0]


def test_waits_and_steps_add_up_to_the_time_from_the_first_step_to_the_last():
    clock = VirtualTime()
    simulated = device(clock)
    for late in (0.0, 0.5, 2.5, 0.125, 1.75, 0.0):
        clock.now += late
        simulated.step(batch())
    line = simulated.take()
    assert line.seconds == clock.now - 0.25  # the first step begins once its batch is there
    assert sum(line.wait_s) > 0


def test_a_loop_that_waits_for_each_loss_shows_every_copy():
    clock = VirtualTime()
    simulated = device(clock, ahead=0)
    for _ in range(4):
        simulated.step(batch())
    assert simulated.take().wait_s == [0.0, 0.25, 0.25, 0.25]


def test_a_slow_bus_is_a_wait_however_fast_the_feed_is():
    clock = VirtualTime()
    simulated = device(clock, bus_bytes_s=8.0)  # 2 s a batch
    for _ in range(4):
        simulated.step(batch())
    assert simulated.take().wait_s == [0.0, 1.0, 1.0, 1.0]


def test_what_lies_on_the_device_is_not_copied():
    clock = VirtualTime()
    simulated = device(clock, bus_bytes_s=8.0)
    for _ in range(4):
        simulated.step(batch(), resident=True)
    assert simulated.take().wait_s == [0.0] * 4
    assert clock.now == 4.0


def test_a_batch_that_was_sent_ahead_is_waited_for_until_its_copy_has_ended():
    clock = VirtualTime()
    bus = SimulatedBus(32.0, clock=clock, sleep=clock.sleep)  # 2 s a batch, whose numbers take 64 bytes in a shipment
    simulated = SimulatedDevice(3.0, bus)
    loader = Transfer(torch.device("cpu"), lambda _: SimulatedEngine(bus))
    events = [torch.tensor([number, number]) for number in range(3)]
    sent = [loader.send({"label": events[0]})]
    arrived = []
    for number in range(3):
        arrived.append(loader.receive(sent[number]))
        if number < 2:
            sent.append(loader.send({"label": events[number + 1]}))
        simulated.step(arrived[-1], resident=True)
    # Copies end at 2, 4 and 6 s: before the first step, and while the first and the second compute.
    assert bus.free_at == 6.0
    assert simulated.take() == Timeline([0.0, 0.0, 0.0], [3.0] * 3, [2] * 3)
    assert clock.now == 2.0 + 3 * 3.0
    for number, batch_of in enumerate(arrived):
        assert torch.equal(batch_of["label"], events[number])


def test_a_loader_is_held_while_two_copies_to_a_simulated_device_are_under_way():
    clock = VirtualTime()
    bus = SimulatedBus(32.0, clock=clock, sleep=clock.sleep)  # 2 s a batch
    loader = Transfer(torch.device("cpu"), lambda _: SimulatedEngine(bus))
    for _ in range(3):
        loader.send(batch())
    assert clock.now == 2.0  # the third one waited for the first
    loader.finish()
    assert clock.now == 6.0


def test_large_tensors_of_a_slot_are_not_moved_to_a_simulated_device():
    memory = np.arange(1 << 20, dtype=np.uint8)
    image = torch.from_numpy(memory).view(torch.float32)
    locked = []
    loader = Transfer(torch.device("cpu"), lambda _: SimulatedEngine(SimulatedBus()))
    sent = loader.send({"image": image}, memory, lambda locks, _: locked.append(locks.lock(0, 1)) or True)
    assert loader.receive(sent)["image"].data_ptr() == memory.ctypes.data
    assert (sent.bytes, locked) == (memory.nbytes, [True])


def test_sleeping_too_long_is_no_wait_and_does_not_add_up():
    clock = VirtualTime(late=0.5)
    simulated = device(clock)
    for _ in range(50):
        simulated.step(batch())
    line = simulated.take()
    assert sum(line.wait_s) == 0
    assert 50.25 <= clock.now <= 50.25 + 0.5


def test_a_batch_is_held_until_it_is_copied_and_no_longer():
    clock = VirtualTime()
    simulated = device(clock, bus_bytes_s=2.0)  # 8 s a batch
    lent = batch()
    alive = weakref.ref(lent["label"])
    simulated.step(lent)
    del lent
    gc.collect()
    assert alive() is not None
    clock.now = 9.0
    simulated.step(batch())
    assert alive() is None
    simulated.take()


def test_a_device_begins_anew_after_its_report():
    clock = VirtualTime()
    simulated = device(clock)
    simulated.step(batch())
    assert len(simulated.take()) == 1
    clock.now += 100
    simulated.step(batch())
    assert simulated.take() == Timeline([0.0], [1.0], [2])
    assert simulated.take() == Timeline()
    assert (Timeline().busy, Timeline().events_per_s) == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_s": 0.0}, "must take some time"),
        ({"step_s": float("inf")}, "an hour at most"),
        ({"bus_bytes_s": 0.0}, "bytes a second"),
        ({"ahead": -1}, "0 steps ahead"),
    ],
)
def test_impossible_devices_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        device(VirtualTime(), **options)


def test_the_bytes_of_a_batch_are_those_of_all_its_tensors():
    sites = Sparse(torch.zeros(5, 2), torch.zeros((5, 4), dtype=torch.int32), (3, 3, 3), 2)
    assert batch_bytes({"image": sites, "label": torch.zeros(2, dtype=torch.int64), "name": "x"}) == 40 + 80 + 16


# ---- other devices


def test_on_the_cpu_the_wait_is_the_time_outside_of_the_model():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3))
    processor = CpuDevice(Trainer(_OnImages(model)))
    begun = time.perf_counter()
    for _ in range(3):
        processor.step({"image": torch.randn(4, 2, 4), "label": torch.tensor([0, 1, 2, 0])})
        time.sleep(0.002)
    whole = time.perf_counter() - begun
    line = processor.take()
    assert line.wait_s[0] == 0
    assert min(line.wait_s[1:]) >= 0.002
    assert line.seconds < whole
    assert line.events == [4, 4, 4]


class _OnImages(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, given):
        return self.inner(given["image"])


def test_a_trainer_learns_from_class_numbers_and_from_probabilities():
    for label in (torch.tensor([0, 1, 0, 1]), torch.tensor([[1.0, 0], [0, 1], [0.9, 0.1], [0.2, 0.8]])):
        torch.manual_seed(0)
        trainer = Trainer(_OnImages(torch.nn.Linear(2, 2)))
        given = {"image": torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]), "label": label}
        losses = [float(trainer.step(given)) for _ in range(50)]
        assert losses[-1] < losses[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(SpecError, match="CUDA"):
        Place("cuda")


def test_nvml_says_why_it_measures_nothing(monkeypatch):
    assert nvml.open_meter(torch.device("cpu")) == (None, "NVML measures CUDA devices, not cpu")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter, trouble = nvml.open_meter(torch.device("cuda"))
    assert meter is None
    assert "pip install 'hepfeed[gpu]'" in trouble


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_errors_of_nvml_are_told_and_leave_the_benchmark_alone():
    pynvml = pytest.importorskip("pynvml")
    meter, trouble = nvml.open_meter(torch.device("cuda"))
    assert meter is None
    assert trouble.startswith("NVML ")
    meter = nvml.Meter(pynvml, None)  # a library that was never initialised
    meter.start()
    time.sleep(0.15)
    usage = meter.stop()
    assert (usage.utilisation, usage.energy_j) == (None, None)
    assert "no energy: " in usage.trouble
    assert "no utilisation: " in usage.trouble


# ---- models


def batches_of_all_kinds():
    label = torch.tensor([0, 1, 2])
    sites = torch.tensor([[0, 1, 2, 3], [1, 0, 0, 0], [2, 3, 3, 3]], dtype=torch.int32)
    jagged = Jagged(torch.randn(4, 2), torch.tensor([0, 1, 4, 4]))
    padded = Padded(torch.randn(3, 5, 2), torch.rand(3, 5) > 0.5)
    images = {"flat": torch.randn(3, 6, 7), "deep": torch.rand(3, 9, 8, 7), "colour": torch.rand(3, 2, 5, 4, 3)}
    mixed = {"jagged": jagged, "padded": padded, "number": torch.randn(3).double()}
    sparse = {
        "a": Sparse(torch.ones(3, 1), sites, (4, 4, 4), 3),
        "b": Sparse(torch.ones(3, 2).double(), sites, (9, 4, 5), 3),
    }
    return {"cnn": images | {"label": label}, "mlp": mixed | {"label": label}, "sparse": sparse | {"label": label}}


@pytest.mark.parametrize("name", [*MODELS])
def test_every_model_learns_from_batches_that_it_takes(name):
    taken = 0
    for kind, given in batches_of_all_kinds().items():
        if name in ("cnn", "sparse") and kind != name:
            with pytest.raises(SpecError, match=f"--model {name} needs"):
                make_model(name, given, 3)
            continue
        model = make_model(name, given, 3, seed=5)
        before = [weight.detach().clone() for weight in model.parameters()]
        assert model(given).shape == (3, 3)
        assert torch.isfinite(Trainer(model).step(given))
        assert any((new != old).any() for new, old in zip(model.parameters(), before, strict=True))
        again = make_model(name, given, 3, seed=5)
        assert all(torch.equal(new, old) for new, old in zip(again.parameters(), before, strict=True))
        taken += 1
    assert taken


def test_batches_get_the_model_that_suits_them():
    assert {kind: fitting(given) for kind, given in batches_of_all_kinds().items()} == {
        "cnn": "cnn",
        "mlp": "mlp",
        "sparse": "sparse",
    }


def test_events_of_different_lengths_are_summed():
    given = {"hits": Jagged(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1, 3, 3])), "label": torch.zeros(3)}
    model = make_model("linear", given, 2)
    expected = model.head(torch.tensor([[1.0], [6.0], [0.0]]))
    assert torch.equal(model(given), expected)


def test_a_model_of_the_users_own_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "nets_of_mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.bias = torch.nn.Parameter(torch.zeros(classes))\n"
        "    def forward(self, batch):\n"
        "        return self.bias.expand(len(batch['label']), -1)\n"
        "def make(batch, classes):\n"
        "    return Net(classes)\n"
        "def wrong(batch, classes):\n"
        "    return 7\n"
    )
    assert make_model("nets_of_mine:make", batch(), 5)(batch()).shape == (2, 5)
    with pytest.raises(SpecError, match=r"must return a torch\.nn\.Module, not a int"):
        make_model("nets_of_mine:wrong", batch(), 5)
    with pytest.raises(SpecError, match="can't be imported"):
        make_model("nets_of_mine:none", batch(), 5)
    with pytest.raises(SpecError, match="did you mean 'linear'"):
        make_model("liner", batch(), 5)


# ---- sides


def test_h5py_events_are_the_batches_of_hepfeed_bit_for_bit(tmp_path):
    samples = write_classes(
        tmp_path / "set", {"a": [20, 10], "b": [30]}, layout="big_endian", rates={"a": 1.0, "b": 2.0}
    )
    spec = hf.SampleSpec(
        samples,
        filter="energy < 1015",
        dtypes={"energy": "float32"},
        transforms=[{"flip": {"keys": "image", "axes": [0, 1]}}, {"sparsify": {"keys": "image"}}],
        weights={"classes": {"a": 2.0}},
    )
    source = Source(spec, batch_size=7, num_workers=0, cache=None, seed=3)
    with closing(Hepfeed(source)) as ours, closing(H5pyEvents(ours.dataset, seed=3)) as events:
        specs = itertools.islice(ours.filler().batches(1), 3)
        with closing(ours.batches()) as batches:
            for number, (given, spec_of) in enumerate(zip(batches, specs)):
                expected = events.batch(spec_of)
                assert isinstance(expected["image"], Sparse)
                assert expected["weight"].dtype == torch.float32
                ours.verify(given, number, expected)
        assert all(dataset.id.valid for _, datasets in events._open.values() for dataset in datasets.values())
        caches = {file.id.get_access_plist().get_cache()[2] for file, _ in events._open.values()}
        assert caches == {events.chunk_bytes} == {16 << 20}


def test_a_batch_that_is_not_what_h5py_reads_is_an_error(source):
    with closing(Hepfeed(source)) as ours, closing(ours.batches()) as batches:
        first, second = (next(batches) for _ in range(2))
        ours.verify(first, 0, dict(first))
        with pytest.raises(ProcessError, match="hepfeed does not deliver in batch 4 of epoch 1") as caught:
            ours.verify(first, 4, {**first, "image": second["image"]})
        assert caught.value.key == "image"
        with pytest.raises(ProcessError):
            ours.verify(first, 4, {name: value for name, value in first.items() if name != "label"})


def test_torch_gets_the_batches_of_hepfeed_in_the_same_order_over_epochs(source):
    with closing(Hepfeed(source)) as ours:
        assert ours.caches
        theirs = Torch(source, ours.dataset, ours.filler())
        with closing(ours.batches()) as mine, closing(theirs.batches()) as others:
            count = 2 * ours.filler().batches_in(1) + 1
            for number, (one, other) in enumerate(itertools.islice(zip(mine, others), count)):
                theirs.verify(other, number, one)
        sampler = SameBatches(ours.filler(), 1)
        iter(sampler)  # torch makes one that it never uses
        epochs = [list(sampler) for _ in range(2)]
    assert len(sampler) == len(epochs[0]) == 10
    assert {place[0] for places in epochs[0] for place in places} == {1}
    assert {place[0] for places in epochs[1] for place in places} == {2}
    assert sorted(place[2] for places in epochs[1] for place in places) == list(range(60))


def test_the_replay_repeats_what_fits_into_its_memory(source):
    with closing(Hepfeed(source)) as ours, closing(ours.batches()) as batches:
        first = next(batches)
        whole = Replay(ours, source)
        some = Replay(ours, Source(source.spec, 6, 0, cache=source.cache, replay_bytes=2.5 * batch_bytes(first)))
    assert (len(whole), len(some)) == (10, 2)
    one, two, three = itertools.islice(some.batches(), 3)
    assert one is three
    some.verify(one, 0, first)
    assert one["image"].data_ptr() != first["image"].data_ptr()
    assert not torch.equal(one["event"], two["event"])


def test_the_first_epoch_writes_a_cache_of_its_own_and_ends(source, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    first = FirstEpoch(source, caches=True)
    with closing(first.batches()) as batches:
        seen = [next(batches)]
        (folder,) = (tmp_path / "scratch").iterdir()
        seen += batches
    assert len(seen) == first.length() == 10
    assert not folder.exists()
    assert not source.cache.exists()


def test_too_few_events_for_the_batches_are_an_error(source):
    with pytest.raises(SpecError, match="60 events, fewer than 4 batches of 16"):
        Hepfeed(Source(source.spec, 16, 0, cache=None))


# ---- the benchmark


def test_all_sides_train_and_are_compared_with_the_replay(source):
    result = bench_gpu(source, TINY, QUICK)
    rows = {row.side: row for row in result.rows}
    assert list(rows) == ["hepfeed, first epoch", "hepfeed", "torch DataLoader", "replay"]
    for row in rows.values():
        assert row.steps == [4, 4]
        assert row.of_replay == [a / b for a, b in zip(row.events_per_s, rows["replay"].events_per_s, strict=True)]
        assert row.wait["mean"] == pytest.approx(1 - np.median(row.busy))
        assert len(row.timeline["wait_ms"]) == 4
        assert row.timeline["busy_ms"] == [0.1] * 4
        assert not row.absent
        assert not row.utilisation
    assert rows["replay"].of_replay == [1, 1]
    assert rows["hepfeed"].stats["events"] == 24  # the four measured steps, without those before
    assert rows["torch DataLoader"].stats is None
    assert (result.model, result.epoch_events, result.replayed) == ("", 60, 10)


def test_hepfeed_that_delivers_something_else_is_never_timed(source, monkeypatch):
    right = gpu_sides.Hepfeed.batches

    def wrong(side):
        for given in right(side):
            yield {**given, "label": given["label"] + 1}

    monkeypatch.setattr(gpu_sides.Hepfeed, "batches", wrong)
    with pytest.raises(ProcessError, match="hepfeed does not deliver in batch 0 of epoch 1"):
        bench_gpu(source, TINY, QUICK)


def test_events_that_the_cache_does_not_have_are_told(source):
    told = "events were not in the cache, and came from the files"
    left_out = replace(source, batch_size=13)  # the first epoch has 52 of 60 events
    assert any(told in note for note in bench_gpu(left_out, TINY, QUICK).notes)
    assert not any(told in note for note in bench_gpu(source, TINY, QUICK).notes)


def test_a_rival_that_fails_is_absent_with_its_reason(source, monkeypatch):
    def broken(self, place):
        raise OSError("no such filter")

    expected = H5pyEvents.batch
    monkeypatch.setattr(H5pyEvents, "batch", lambda self, spec: _read_with(self, spec, expected, read))
    read, H5pyEvents.__getitem__ = H5pyEvents.__getitem__, broken
    try:
        result = bench_gpu(source, TINY, QUICK)
    finally:
        H5pyEvents.__getitem__ = read
    (row,) = [row for row in result.rows if row.side == "torch DataLoader"]
    assert row.absent == "OSError: no such filter"
    assert not row.events_per_s
    assert headline(result.rows).startswith("hepfeed reaches ")
    assert "torch" not in headline(result.rows)


def _read_with(events, spec, batch_of, read):
    broken, H5pyEvents.__getitem__ = H5pyEvents.__getitem__, read
    try:
        return batch_of(events, spec)
    finally:
        H5pyEvents.__getitem__ = broken


def test_a_loop_ends_after_its_seconds_and_whole_turns_of_the_workers(source):
    loops = Loops(TINY, Limits(steps=None, seconds=0.01, warm_up=1, rounds=1), 4, None, 2)
    loops.prepare({})
    with closing(Hepfeed(source)) as ours:
        line = loops.run(Replay(ours, source)).timeline
    assert len(line) > 0
    assert len(line) % 4 == 0


def test_the_headline_is_the_median_part_of_the_replay_speed():
    rows = [Row("hepfeed", of_replay=[0.5, 0.98, 0.99]), Row("torch DataLoader", of_replay=[0.031])]
    assert headline(rows) == "hepfeed reaches 98 % of the replay speed; torch's DataLoader 3.1 %"


def run(*arguments, **options):
    return CliRunner().invoke(app, ["bench", "gpu", *map(str, arguments)], env={"COLUMNS": "200"}, **options)


@pytest.fixture
def file(spec, tmp_path):
    path = tmp_path / "set.yaml"
    spec.with_loader({"window_events": 30, "num_workers": 0, "cache": str(tmp_path / "cache")}).save(path)
    return path


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SHORT = ("--steps", 3, "--warm-up", 1, "--rounds", 1)


def test_the_command_prints_draws_and_writes_its_figures(file, tmp_path, threads):
    path, plot = tmp_path / "gpu.json", tmp_path / "gpu.svg"
    done = run(
        file,
        "--device",
        "cpu",
        "--model",
        "linear",
        "--threads",
        1,
        "--batch-size",
        6,
        *SHORT,
        "--json",
        path,
        "--plot",
        plot,
    )
    assert done.exit_code == 0, done.output
    assert done.output.startswith("hepfeed reaches ")
    assert "hepfeed's own report" in done.output
    record = Record.load(path)
    assert record.kind == "gpu"
    assert record.settings["model"] == "linear"
    assert record.settings["num_workers"] == 0
    names = [measure.name for measure in view_of(record).measures(record)]
    assert len(set(names)) == len(names) == 8
    assert "of the replay speed" in plot.read_text()
    assert (tmp_path / "gpu-2.svg").exists()
    assert json.loads(path.read_text())["rows"][3]["side"] == "replay"


def test_an_epoch_is_as_many_steps_as_it_has(file, tmp_path):
    path = tmp_path / "gpu.json"
    done = run(
        file, "--device", "simulated", "--step-ms", 0.1, "--batch-size", 6, "--epoch", "--rounds", 1, "--json", path
    )
    assert done.exit_code == 0, done.output
    steps = {row["side"]: row["steps"] for row in Record.load(path).rows}
    assert steps == {"hepfeed, first epoch": [8], "hepfeed": [10], "torch DataLoader": [10], "replay": [10]}
    assert "8 measured steps, for it is one epoch" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "simulated", "--model", "cnn"), "--model can only be given with --device cuda or cpu"),
        (("--device", "cpu", "--step-ms", "5"), "--step-ms can only be given with --device simulated"),
        (("--device", "cpu", "--ahead", "2"), "--ahead can only be given"),
        (("--device", "simulated", "--threads", "2"), "--threads can only be given with --device cpu"),
        (("--device", "simulated", "--step-ms", "0"), "must take some time"),
        (("--epoch", "--steps", "3"), "leave out --steps"),
        (("--write",), "--write can only be given with --sweep"),
        (("--sweep-workers", "1", "--yes"), "--sweep-workers and --yes can only be given with --sweep"),
        (("--sweep", "--write", "--output", "x.yaml"), "give one of them"),
        (("--sweep", "--output", "no/x.yaml"), "there is no folder 'no'"),
        (("--sweep", "--output", "x.txt"), "saved as .yaml, .yml or .json"),
        (("--sweep", "--workers", "2", "--sweep-workers", "1,2"), "--workers fixes what --sweep-workers varies"),
        (("--sweep", "--sweep-prefetch", "many"), "--sweep-prefetch must be integers"),
    ],
)
def test_options_that_mean_nothing_are_refused(file, arguments, message):
    done = run(file, *arguments)
    assert isinstance(done.exception, SpecError), done.output
    assert message in str(done.exception)


# ---- the sweep


def setting(workers=1, prefetch=2, cache=None, batch_size=8):
    return {"num_workers": workers, "batch_size": batch_size, "prefetch_factor": prefetch, "cache": cache}


def test_the_best_setting_is_the_cheapest_of_those_that_are_as_fast():
    fast = SweepRow(setting(4, 2), [100.0, 90.0, 110.0])
    same = SweepRow(setting(2, 4), [98.0])
    less = SweepRow(setting(2, 2, "auto"), [98.0])
    slow = SweepRow(setting(1, 2), [96.0])
    assert best_of([fast, same, less, slow]) is less
    assert best_of([fast, slow]) is fast


def test_a_grid_has_each_combination_once():
    grid = Grid([1, 2], [8], [2, 2], ["auto", None])
    assert [(s.num_workers, s.cache) for s in grid.settings()] == [(1, "auto"), (1, None), (2, "auto"), (2, None)]
    assert grid.settings()[0] == Setting(1, 8, 2, "auto")


def test_the_best_setting_goes_into_the_section_loader_and_other_options_stay(file):
    spec = hf.SampleSpec.load(file)
    kept = tuned(spec, SweepRow(setting(3, 4, None), [1.0])).loader.given
    assert kept == {"window_events": 30, **setting(3, 4, None)}


def test_a_sweep_measures_all_settings_and_asks_before_it_writes(file, tmp_path):
    path, plot, before = tmp_path / "sweep.json", tmp_path / "sweep.png", file.read_text()
    arguments = (file, "--device", "simulated", "--step-ms", 0.1, "--batch-size", 6, *SHORT, "--sweep")
    few = ("--sweep-workers", 1, "--sweep-prefetch", 2)
    done = run(*arguments, *few, "--write", "--json", path, "--plot", plot, input="n\n")
    assert done.exit_code == 0, done.output
    assert "is as it was" in done.output
    assert file.read_text() == before
    assert plot.read_bytes().startswith(b"\x89PNG")
    record = Record.load(path)
    speeds = [float(np.median(row["events_per_s"])) for row in record.rows]
    assert speeds == sorted(speeds, reverse=True)
    assert [row["setting"]["cache"] for row in record.rows if row["best"]] != []
    assert {row["setting"]["cache"] for row in record.rows} == {str(tmp_path / "cache"), None}
    assert len(view_of(record).measures(record)) == 2
    done = run(*arguments, *few[:2], "--prefetch", 3, "--cache", "none", "--output", tmp_path / "tuned.yaml")
    assert done.exit_code == 0, done.output
    assert hf.SampleSpec.load(tmp_path / "tuned.yaml").loader.given == {
        "window_events": 30,
        **setting(1, 3, None, batch_size=6),
    }
