"""Predicting the speed of specifications: excerpts, forms, measurements, and ``hepfeed check --advice``."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from hepfeed.advice import advise
from hepfeed.advice.alternatives import CacheCost
from hepfeed.advice.choices import Choices
from hepfeed.advice.disk import disk_rate
from hepfeed.advice.excerpt import Excerpt, heavy_datasets
from hepfeed.advice.meter import Meter
from hepfeed.advice.sentences import sentences
from hepfeed.check.forms import FORMS, chunk_of, repack_command
from hepfeed.cli import app
from hepfeed.dataset import EventDataset
from hepfeed.errors import SpecError
from hepfeed.index import EventIndex
from hepfeed.prediction import EventCost, Host
from hepfeed.spec import SampleSpec

BY_NAME = {form.name: form for form in FORMS}
CONTIGUOUS = BY_NAME["contiguous, no compression"]
MEGABYTE = BY_NAME["chunks of 1 MB, gzip-4"]
FAST = EventCost(read=1e-4, inflate=0, scatter=0, transform=0, other=0, consumer=1e-5, bytes_read=0)
SLOW = EventCost(read=1e-4, inflate=9e-4, scatter=0, transform=0, other=0, consumer=1e-5, bytes_read=0)


def write(path, events=40, image=(8, 8), occupied=0.02, **options):
    """Write images of which few cells are not 0, and energies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(events)
    images = random.exponential(1.0, (events, *image)).astype(np.float32)
    images[random.random(images.shape) > occupied] = 0
    with h5py.File(path, "w") as file:
        file.create_dataset("ECAL", data=images, **options)
        file["energy"] = random.random(events).astype(np.float32)


@pytest.fixture
def images(tmp_path):
    """The file of a specification of two classes, of 40 events in chunks of 16 each."""
    for label in ("electron", "pion"):
        write(tmp_path / label / "1.h5", chunks=(16, 8, 8), compression="gzip")
    path = tmp_path / "images.yaml"
    SampleSpec([[str(tmp_path / label), ["ECAL", "energy"], label] for label in ("electron", "pion")]).save(path)
    return path


def events_of(spec):
    """All events of a specification, in the order of its files."""
    dataset = EventDataset(spec)
    names = [key.name for key in dataset.index.keys]
    return [{name: event[name].numpy() for name in [*names, "label"]} for event in dataset]


# ---- forms


def info(tmp_path, shape, **options):
    """Describe a float32 data set."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ECAL", shape, np.float32, **options)
    return EventIndex(SampleSpec([[str(tmp_path / "a.h5"), ["ECAL"], "a"]])).sources[0].dataset("ECAL")


def test_forms_have_their_chunks(tmp_path):
    found = info(tmp_path, (500, 50, 50))  # 10 kB an event
    chunks = {form.chunks: chunk_of(form, found) for form in FORMS}
    assert (chunks["contiguous"], chunks["one"], chunks["megabyte"]) == ((), (1, 50, 50), (104, 50, 50))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        assert chunks["auto"] == file.create_dataset("x", (500, 50, 50), np.float32, chunks=True).chunks


def test_a_chunk_has_no_more_events_than_the_file(tmp_path):
    assert chunk_of(MEGABYTE, info(tmp_path, (3, 2))) == (3, 2)


def test_the_form_that_files_have_is_known(tmp_path):
    known = [form.name for form in FORMS if form.is_that_of(info(tmp_path, (500, 50, 50)))]
    assert known == ["contiguous, no compression"]
    stored = info(tmp_path, (500, 50, 50), chunks=(104, 50, 50), compression="gzip", shuffle=True)
    assert [form.name for form in FORMS if form.is_that_of(stored)] == ["chunks of 1 MB, shuffle+gzip-4"]


def test_commands_rewrite_files(tmp_path):
    found = info(tmp_path, (500, 50, 50))
    assert repack_command(MEGABYTE, [found]) == "h5repack -l ECAL:CHUNK=104x50x50 -f ECAL:GZIP=4 OLD.h5 NEW.h5"
    assert repack_command(CONTIGUOUS, [found]) == "h5repack -l ECAL:CONTI -f ECAL:NONE OLD.h5 NEW.h5"
    assert "-f ECAL:SHUF -f ECAL:GZIP=4" in repack_command(BY_NAME["chunks of 1 MB, shuffle+gzip-4"], [found])
    assert "compression='lzf' (ECAL: chunks=(104, 50, 50))" in repack_command(BY_NAME["chunks of 1 MB, lzf"], [found])


# ---- excerpts


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_excerpt_gives_the_events_in_any_form(images, tmp_path, form):
    spec = SampleSpec.load(images)
    excerpt = Excerpt(EventIndex(spec), 40)
    written = events_of(excerpt.write(tmp_path / "excerpt", form))
    for ours, theirs in zip(written, events_of(spec), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    with h5py.File(tmp_path / "excerpt" / "1.h5") as file:
        assert file["dense/ECAL"].chunks == (chunk_of(form, excerpt.heavy[0]) or None)


def test_an_excerpt_keeps_jagged_and_compound_events(tmp_path):
    hits = np.zeros(9, [("q", "f4"), ("t", "f8")])
    hits["q"], hits["t"] = np.arange(9), np.arange(9) / 2
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["hits"] = hits
        file["first"], file["many"] = np.array([4, 0, 4, 6]), np.array([2, 4, 0, 3])
    layout = {"rows": {"hits": {"start": "first", "count": "many"}}}
    entry = {"files": str(tmp_path / "a.h5"), "keys": ["hits[q, t]", "hits.q", "many"], "label": 3, "layout": layout}
    spec = SampleSpec([entry], dtypes={"many": "int32"})
    written = events_of(Excerpt(EventIndex(spec), 3).write(tmp_path / "excerpt", MEGABYTE))
    for ours, theirs in zip(written, events_of(spec)[:3], strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert written[0]["hits.q"].tolist() == [4, 5]


@pytest.mark.parametrize(("linked", "own_bytes"), [(True, 1), (False, 3)])
def test_copies_of_an_excerpt_share_their_bytes_only_where_that_is_wanted(images, tmp_path, linked, own_bytes):
    excerpt = Excerpt(EventIndex(SampleSpec.load(images)), 5)
    written = excerpt.write(tmp_path / "excerpt", CONTIGUOUS, copies=3, linked=linked)
    paths = [path for sample in written.samples for path in sample.files]
    assert len(paths) == len(set(paths)) == 3 * len(written.samples)
    assert len({os.stat(path).st_ino for path in paths}) == own_bytes * len(written.samples)
    for sample in written.samples:
        assert len({Path(path).read_bytes() for path in sample.files}) == 1


def test_an_excerpt_has_the_events_that_the_filter_keeps(images, tmp_path):
    spec = SampleSpec(SampleSpec.load(images).samples, filter="energy > 0.5")
    excerpt = Excerpt(EventIndex(spec), 40)
    assert excerpt.events == len(EventIndex(spec)) < 80
    assert all(event["energy"] > 0.5 for event in events_of(excerpt.write(tmp_path / "excerpt", CONTIGUOUS)))


def test_room_in_chunks_and_events_that_are_left_out_are_counted(tmp_path):
    write(tmp_path / "a.h5", 40)
    half = SampleSpec([[str(tmp_path / "a.h5"), ["ECAL", "energy"], "a"]])
    whole = Excerpt(EventIndex(half), 40)
    assert whole.surplus(CONTIGUOUS) == whole.surplus(BY_NAME["1 event a chunk, gzip-4"]) == 1
    assert whole.surplus(MEGABYTE) == 1  # all 40 events in one chunk, in the file as in the excerpt
    assert Excerpt(EventIndex(half), 10).surplus(MEGABYTE) == pytest.approx(1 / 4)  # of the excerpt's 40 places 10 used
    index = EventIndex(SampleSpec(half.samples, filter="energy > 0.5"))
    kept = len(index) / 40
    room = 40 / len(index)  # places for each event of the excerpt
    assert Excerpt(index, 40).surplus(MEGABYTE) == pytest.approx((1 - (1 - kept) ** 40) / kept / room)


def test_events_of_variable_length_are_not_written_again(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (3,), h5py.vlen_dtype(np.float32))[:] = [np.ones(n, np.float32) for n in (1, 2, 3)]
    index = EventIndex(SampleSpec([[str(tmp_path / "a.h5"), ["x"], "a"]]))
    with pytest.raises(SpecError, match="key 'x' is stored in a way that is not written again here"):
        Excerpt(index, 3)


def test_small_data_sets_do_not_matter(images):
    index = EventIndex(SampleSpec.load(images))
    assert [found.key for found in heavy_datasets(index)] == ["ECAL"]
    assert Excerpt(index, 40).occupancy("ECAL") == pytest.approx(0.02, abs=0.01)


# ---- measurements


def test_the_meter_counts_bytes_of_whole_chunks(images):
    dataset = EventDataset(images)
    stored = sum(int(dataset.index.source_table(file).keys["ECAL"].chunks.size.sum()) for file in (0, 1))
    with Meter(1, batch_size=8) as meter:
        cost = meter.sources(dataset, 0.0)
    assert cost.bytes_read == pytest.approx((stored + 80 * 4) / 80)
    assert min(cost.read, cost.inflate, cost.scatter, cost.consumer) > 0
    assert cost.transform == 0


def test_chunks_that_the_last_window_cuts_count_for_the_events_that_it_took(tmp_path):
    random = np.random.default_rng(0)  # all chunks are of about the same size
    with h5py.File(tmp_path / "a.h5", "w") as file:
        values = random.random((1000, 8, 8)).astype(np.float32)
        file.create_dataset("x", data=values, chunks=(100, 8, 8), compression="gzip")
    dataset = EventDataset([[str(tmp_path / "a.h5"), ["x"], "a"]])
    stored = int(dataset.index.source_table(0).keys["x"].chunks.size.sum())
    with Meter(1, batch_size=50, window_events=250) as meter:  # a window has parts of three chunks
        assert meter.filler(dataset).window_batches == 5
        cost = meter.sources(dataset, 0.0)
    assert cost.bytes_read == pytest.approx(stored / 1000, rel=0.05)


def test_the_disk_is_measured_or_said_to_be_unknown(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    rate = disk_rate([str(tmp_path / "a")], 1.0)
    assert rate is None or rate > 0
    (tmp_path / "empty").touch()
    assert disk_rate([str(tmp_path / "empty")], 1.0) is None
    assert disk_rate([str(tmp_path / "gone")], 1.0) is None


# ---- what is said


def choices(step_s=None, cores=2, readers=1):
    found = Choices(Host(cores), readers, 100, 1000, step_s)
    found.today(SLOW)
    return found


def test_more_readers_are_advised_where_there_are_cores():
    found = choices(cores=4).found
    assert [(choice.kind, choice.readers) for choice in found] == [
        ("today", 1),
        ("readers", 2),
        ("readers", 3),
        ("readers", 4),
    ]
    said = sentences(found)
    assert said[0] == "Today 1 reader delivers 1,000 events/s; the limit is decompression."
    assert said[1] == "With num_workers=4: 4.0 x today's, 3,960 events/s."


def test_a_feed_that_is_too_slow_is_said_to_starve_the_device(tmp_path):
    found = choices(step_s=0.05, cores=1)  # 100 events in 50 ms; they take 100 ms of a reader and 1 ms of the consumer
    found.form(CONTIGUOUS, FAST, 7, [info(tmp_path, (500, 50, 50))])
    said = sentences(found.found)
    assert said[1] == (
        "A device that takes 50 ms a step asks for 2,000 events/s and starves: it waits 51 ms for a batch, "
        "50.5% of the time."
    )
    assert said[2] == (
        "Write the files anew (contiguous, no compression): 9.2 x today's, 9,091 events/s. "
        "h5repack -l ECAL:CONTI -f ECAL:NONE OLD.h5 NEW.h5"
    )
    assert said[-1] == "This keeps it busy: files: contiguous, no compression."


def test_a_feed_that_is_fast_enough_keeps_the_device_busy():
    said = sentences(choices(step_s=0.2).found)  # 100 events take 1 ms of the consumer
    assert "and is kept busy: it waits 0 ms for a batch, 0.0% of the time." in said[1]
    assert not any("waits for the end of each step" in sentence for sentence in said)


def test_what_a_loop_adds_that_waits_for_each_step_is_said():
    said = sentences(choices(step_s=0.01, readers=32, cores=64).found)
    assert "and is kept busy: it waits 0 ms for a batch, 0.0% of the time." in said[1]
    assert "waits for the end of each step, to look at its loss for instance, adds the 1 ms" in said[2]


def test_where_nothing_helps_that_is_said():
    assert sentences(choices(cores=1).found)[-1] == "Nothing that was tried is more than 10% faster."


def test_a_full_shuffle_of_shared_chunks_is_advised_against():
    found = choices(cores=1)
    found.shuffled(SLOW, 100)  # 100 of 1,000 events: of ten blocks all are decoded for each batch
    (full,) = [choice for choice in found.found if choice.kind == "shuffle"]
    assert full.cost.inflate == pytest.approx(10 * SLOW.inflate, rel=0.01)
    assert sentences(found.found)[-1].startswith("shuffle='full' would decode chunks again and again: 1")


def test_a_cache_pays_once_it_has_saved_what_it_took_to_fill():
    found = choices(cores=1)  # 1,000 events of 1.01 ms
    filling = EventCost(read=1e-4, inflate=9e-4, scatter=0, transform=9e-4, other=0, consumer=1e-4, bytes_read=0)
    found.cache(CacheCost(filling, FAST, bytes=10.0, end_s=0.5), memory=1 << 20, command="build it")
    first, later = found.found[1:]
    assert (first.kind, first.needs) == ("filling", "takes 2.5 s")  # 1,000 of 2 ms and the end
    assert first.events_per_s == pytest.approx(400)
    assert (later.kind, later.bytes, later.command) == ("cache", 10_000, "build it")
    # 2.5 s, then 0.11 s an epoch, against 1.01 s an epoch: 2.61 > 2.02, but 2.72 < 3.03.
    assert (later.pays_from, later.needs) == (3, "10.0 kB, in the free memory; pays from epoch 3 on")
    found.cache(CacheCost(filling, SLOW, bytes=10.0, end_s=0.5), memory=100, command="build it")
    assert found.found[-1].needs == "10.0 kB, more than the free memory; never pays"


# ---- predictions


def test_what_can_not_be_written_again_is_noted_and_broken_files_are_left_out(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (30,), h5py.vlen_dtype(np.float32))[:] = [
            np.ones(n + 1, np.float32) for n in range(30)
        ]
    (tmp_path / "b.h5").write_text("<html>not found</html>")
    advice = advise(SampleSpec([[str(tmp_path), ["x"], "a"]]), batch_size=8, readers=2, seconds=0.05)
    assert advice.events == 30
    assert {choice.kind for choice in advice.choices} <= {"today", "readers", "shuffle"}
    assert any(note.startswith("Neither other files nor a cache are predicted: key 'x'") for note in advice.notes)
    assert any(
        "The start of an epoch is not predicted, and counts where one has so few batches (4)" in it
        for it in advice.notes
    )


def test_memory_for_the_slots_of_few_large_events_is_not_counted(tmp_path):
    write(tmp_path / "a.h5", events=2, image=(512, 1024))
    dataset = EventDataset(SampleSpec([[str(tmp_path / "a.h5"), ["ECAL"], "a"]]))
    with Meter(1, batch_size=64) as meter:  # a slot has 134 MB, of which a batch takes 4
        cost = meter.sources(dataset, seconds=1e-9)  # of the first window, for which slots are made
        assert 2 * cost.consumer < meter._pool.ring.made_s / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds must be above 0"),
        ({"step_s": -1.0}, "the time of a step must be above 0"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"readers": -1}, "the number of readers must be above -1"),
        ({"seconds": float("inf")}, "seconds must be above 0 and finite, not inf"),
        ({"step_s": float("nan")}, "the time of a step must be above 0, not nan"),
    ],
    ids=["seconds", "step", "batch", "readers", "endless", "no number"],
)
def test_options_out_of_their_range_are_errors(images, options, message):
    with pytest.raises(SpecError, match=message):
        advise(images, **options)


# ---- the command


@pytest.fixture
def run(monkeypatch):
    """Call ``hepfeed check``, wide enough to keep each line whole."""
    monkeypatch.setenv("COLUMNS", "300")
    return lambda *arguments: CliRunner().invoke(app, ["check", *map(str, arguments)])


def test_the_command_shows_a_table_and_what_to_do(run, images):
    path = images.parent / "steps.yaml"
    SampleSpec(SampleSpec.load(images).samples, transforms=[{"log": {"keys": "ECAL"}}]).save(path)
    result = run(path, "--advice", "--batch-size", "8", "--workers", "1", "--step-ms", "60000", "--seconds", "0.05")
    assert result.exit_code == 0, result.output
    assert "Classes" in result.output
    assert "│ today: 1 reader " in result.output
    assert "│ cache: later epochs " in result.output
    assert "the device waits" in result.output
    assert "- A device that takes 60000 ms a step asks for 0 events/s and is kept busy" in result.output
    assert "Sparse images are not predicted, because the specification has steps already." in result.output
    assert "--cold predicts for files that come from the disk" in result.output


def test_the_prediction_as_json_has_all_choices(run, images):
    (images.parent / "pion/2.h5").write_bytes(b"")
    options = ("--batch-size", "8", "--workers", "1", "--seconds", "0.05", "--no-measure", "--cold")
    result = run(images, "--advice", "--json", *options)
    assert result.exit_code == 1  # for the fault
    report = json.loads(result.stdout)
    assert report["cost"] is None
    found = report["prediction"]
    first, *others = found["choices"]
    assert (found["order"], found["block"], found["batch_size"], found["readers"]) == ("window", 16, 8, 1)
    assert (first["kind"], first["gain"], first["demand"]) == ("today", 1, None)
    assert {"shuffle", "form", "filling", "cache", "sparse"} <= {choice["kind"] for choice in others}
    assert all(choice["events_per_s"] > 0 and choice["needs"] for choice in others)
    sizes = {choice["what"]: choice["bytes"] for choice in found["choices"]}
    # Of 64 float32 cells and one energy.
    assert sizes["files: contiguous, no compression"] == found["events"] * found["event_bytes"] == 80 * 65 * 4
    assert sizes["cache of sparse ECAL: later epochs"] > 0
    assert found["disk_bytes_per_s"] or "can't read past the page cache" in found["notes"][0]


def test_without_a_readable_file_nothing_is_predicted(run, images):
    for label in ("electron", "pion"):
        (images.parent / label / "1.h5").write_bytes(b"")
    result = run(images, "--advice", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["prediction"] is None


@pytest.mark.parametrize("option", [["--step-ms", "5"], ["--cold"], ["--workers", "2"]], ids=lambda option: option[0])
def test_options_of_the_prediction_need_it(run, images, option):
    result = run(images, *option)
    assert result.exit_code == 2
    assert f"{option[0]}: of the prediction, which --advice asks for" in " ".join(result.output.split())


def test_files_are_not_predicted(run, images):
    result = run(images.parent / "pion/1.h5", "--advice")
    assert result.exit_code == 2
    assert "--advice is for a specification" in " ".join(result.output.split())
