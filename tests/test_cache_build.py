"""The standalone builder: what it writes is what training would have written, whatever happens to it meanwhile."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from cached import KEYS, assert_same, cached_epochs, epochs, parts_of, stored_events, write_set
from layout_files import FILES

import hepfeed as hf
from hepfeed.cache.build import build_cache
from hepfeed.cache.describe import describe_cache
from hepfeed.cache.export import export_cache
from hepfeed.cache.inventory import caches_below
from hepfeed.cache.lock import writer_lock
from hepfeed.cache.merge import merge_cache
from hepfeed.cache.plan import batch_edges, block_numbers, task_edges
from hepfeed.cache.shards import Shard
from hepfeed.cache.verify import mark, verify_cache
from hepfeed.errors import FileFormatError, KeyMissingError, ProcessError, ResourceError, SourceError, SpecError
from hepfeed.index import EventIndex
from hepfeed.spec import SampleSpec

COMMAND = [sys.executable, "-c", "from hepfeed.cli import main; main()", "cache", "build"]
STEPS = [{"log": {"keys": "ECAL"}}, {"sparsify": {"keys": "ECAL"}}]


@pytest.fixture
def spec(tmp_path):
    return write_set(tmp_path / "data")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A set of 24 tasks: 384 events of 1 MiB, nearly all of it 0, in the file of a specification."""
    folder = tmp_path_factory.mktemp("large")
    image = np.zeros((64, 64, 64, 64), np.float32)
    for file in range(6):
        image[:] = 0
        image[np.arange(64), file, :, 3] = np.arange(64)[:, None] + 1 + 100 * file
        (folder / str(file % 2)).mkdir(exist_ok=True)
        with h5py.File(folder / str(file % 2) / f"{file}.h5", "w") as opened:
            opened.create_dataset("image", data=image, chunks=(4, 64, 64, 64), compression=1)
            opened["row"] = np.arange(64)
    path = folder / "large.yaml"
    SampleSpec([[str(folder / str(label) / "*.h5"), ["image", "row"], label] for label in (0, 1)]).save(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(large, tmp_path_factory):
    """What its cache holds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    report = build_cache(large, folder / "cache", workers=2, index=folder / "index.sqlite")
    assert report.complete
    return exported(report.directory, folder / "all.h5")


def exported(directory, path):
    """Return all arrays of a cache, in the order of the sources."""
    export_cache(str(directory), path, force=True)
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.update({name: node[...]}) if isinstance(node, h5py.Dataset) else None)
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def without_sources(spec):
    """Overwrite the files with zeros; their size and time stay, so that nothing but their contents tells."""
    for path in SampleSpec(spec).files:
        status = os.stat(path)
        Path(path).write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def command(spec, out, *more, **options):
    """Start ``hepfeed cache build`` in a session of its own."""
    arguments = [*COMMAND, str(spec), "-o", str(out), *map(str, more)]
    options.setdefault("cwd", "/")  # not where the sources lie, which python -c would import
    return subprocess.Popen(
        arguments, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err + out
    return out + err


# ---- training reads it


@pytest.mark.parametrize("transform", [None, STEPS], ids=["as_read", "steps"])
def test_training_finds_a_built_cache_complete(tmp_path, spec, transform):
    (expected,) = epochs(spec, transform=transform)
    report = build_cache(spec, tmp_path / "cache", transform=transform, workers=2)
    assert (report.events, report.processed, report.missing, report.complete) == (240, 240, 0, True)
    before = parts_of(tmp_path / "cache")
    without_sources(spec)
    (found,) = cached_epochs(spec, tmp_path / "cache", transform=transform)
    assert_same(found, expected)
    assert parts_of(tmp_path / "cache") == before


def test_a_provider_reads_a_built_cache_in_its_first_epoch(tmp_path, spec):
    build_cache(spec, tmp_path / "cache", workers=1, transform=STEPS)
    without_sources(spec)
    with hf.DataProvider(
        spec,
        16,
        cache=tmp_path / "cache",
        num_workers=2,
        transform=[*STEPS, "cache", {"flip": {"keys": "HCAL", "axes": 0}}],
    ) as provider:
        assert sum(len(batch["label"]) for name in provider for batch in provider[name]) == 240


@pytest.mark.parametrize("name", FILES)
def test_every_layout_is_built_as_it_is_fed(tmp_path, name):
    events = FILES[name](tmp_path / "events.h5")
    sample = {"files": str(tmp_path / "events.h5"), "keys": events.keys, "label": "x"}
    if events.layout is not None:
        sample["layout"] = events.layout
    (expected,) = epochs([sample])
    build_cache([sample], tmp_path / "cache", workers=1)
    before = parts_of(tmp_path / "cache")
    (found,) = cached_epochs([sample], tmp_path / "cache")
    assert_same(found, expected)
    assert parts_of(tmp_path / "cache") == before


def test_functions_filters_and_weights_are_the_same_as_in_training(tmp_path, spec):
    def halve(batch):
        return {**batch, "half": batch["energy"] / 2}

    made = SampleSpec(spec, filter="energy > 1.05", weights="energy")
    (expected,) = epochs(made, transform=halve)
    report = build_cache(made, tmp_path / "cache", transform=halve, workers=2)
    assert report.events == len(expected)
    (found,) = cached_epochs(made, tmp_path / "cache", transform=halve)
    assert_same(found, expected)


def test_training_continues_what_a_build_began_and_a_build_what_training_began(tmp_path, spec):
    build_cache(spec, tmp_path / "a", workers=1, shard=Shard(0, 1))
    (expected,) = epochs(spec)
    (found,) = cached_epochs(spec, tmp_path / "a")
    assert_same(found, expected)
    one = spec[:1]
    cached_epochs(one, tmp_path / "b")
    report = build_cache(one, tmp_path / "b", workers=1)
    assert report.complete
    assert report.processed == 0
    assert verify_cache(report.directory).faults == []


def test_files_known_by_contents_may_be_moved(tmp_path, spec):
    (expected,) = epochs(spec)
    build_cache(spec, tmp_path / "cache", workers=1, identity="content")
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    moved = [[files.replace("/data/", "/elsewhere/"), keys, label] for files, keys, label in spec]
    before = parts_of(tmp_path / "cache")
    (found,) = cached_epochs(moved, tmp_path / "cache")
    assert_same(found, expected)
    assert parts_of(tmp_path / "cache") == before


def test_the_command_imports_no_torch(tmp_path, spec, run_script):
    SampleSpec(spec).save(tmp_path / "spec.yaml")
    script = """
        import sys
        from hepfeed.cli import app
        app(["cache", "build", sys.argv[1], "-o", sys.argv[2], "--workers", "1"], standalone_mode=False)
        print("torch" in sys.modules)
    """
    assert run_script(script, tmp_path / "spec.yaml", tmp_path / "cache").split()[-1] == "False"


# ---- how it is cut


def test_tasks_depend_on_the_events_alone_and_keep_blocks_whole(large):
    index = EventIndex(SampleSpec.load(large))
    edges = task_edges(index)
    assert edges[[0, -1]].tolist() == [0, 384]
    assert np.diff(edges).tolist() == [16] * 24
    assert (edges % index.sources[0].block == 0).all()
    assert block_numbers(index, np.array([0, 0, 1]), np.array([3, 4, 0])).tolist() == [0, 1, 16]


def test_batches_are_runs_of_whole_blocks():
    mib = 1 << 20
    sizes, block = np.full(8, 3 * mib), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert batch_edges(sizes, block).tolist() == [0, 4, 6, 8]
    assert batch_edges(np.full(3, 40 * mib), np.zeros(3, np.int64)).tolist() == [0, 2, 3]
    assert batch_edges(np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == [0]


# ---- options


def test_a_complete_cache_is_left_as_it_is(tmp_path, spec):
    report = build_cache(spec, tmp_path / "cache", workers=1)
    before = {path: path.stat().st_mtime_ns for path in Path(report.directory).iterdir()}
    again = build_cache(spec, tmp_path / "cache", workers=1, resume=True)
    assert (again.processed, again.complete, again.bytes) == (0, True, report.bytes)
    assert {path: path.stat().st_mtime_ns for path in Path(report.directory).iterdir()} == before


def test_fresh_begins_anew(tmp_path, spec):
    build_cache(spec, tmp_path / "cache", workers=1)
    before = set(parts_of(tmp_path / "cache"))
    assert build_cache(spec, tmp_path / "cache", workers=1, fresh=True).processed == 240
    assert not before & set(parts_of(tmp_path / "cache"))


def test_resuming_nothing_is_an_error_that_says_what_differs(tmp_path, spec):
    with pytest.raises(SpecError, match="nothing to resume"):
        build_cache(spec, tmp_path / "cache", workers=1, resume=True)
    build_cache(spec, tmp_path / "cache", workers=1)
    with pytest.raises(SpecError, match="differs in steps"):
        build_cache(spec, tmp_path / "cache", workers=1, resume=True, transform=STEPS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True, "fresh": True}, "exclude"),
        ({"shard": Shard(0, 2), "verify": True}, "no part in"),
        ({"max_bytes": 0}, "no size"),
        ({"part_bytes": 0}, "no size"),
        ({"workers": 0}, "there must be one"),
        ({"identity": "name"}, "unknown"),
    ],
)
def test_wrong_options_are_errors(tmp_path, spec, options, message):
    with pytest.raises(SpecError, match=message):
        build_cache(spec, tmp_path / "cache", **options)


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", ""])
def test_a_wrong_shard_is_an_error(text):
    with pytest.raises(SpecError, match="shard"):
        Shard.parse(text)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_that_raises_names_file_and_event_or_is_counted(tmp_path, large, workers):
    def refuse(batch):
        if (batch["row"] == 33).any():
            raise ValueError("no 33")
        return batch

    with pytest.raises(ProcessError, match=r"no 33.*event 33 of") as caught:
        build_cache(large, tmp_path / "cache", transform=refuse, workers=workers)
    assert caught.value.event == 33
    report = build_cache(large, tmp_path / "cache", transform=refuse, workers=workers, on_error="skip")
    assert (report.skipped, report.missing, report.complete) == (6, 6, False)
    assert len(report.faults) == 6
    assert "no 33" in report.faults[0]
    found = verify_cache(report.directory)
    assert (found.events, found.skipped, found.faults) == (378, 6, [])
    again = build_cache(large, tmp_path / "cache", transform=refuse, workers=workers, on_error="skip")
    assert (again.processed, again.skipped) == (0, 6)


def test_events_that_steps_take_out_count_as_done(tmp_path, spec):
    def some(batch):
        keep = np.flatnonzero(batch["event"][:, 1] % 4 != 1)
        return {name: hf_take(value, keep) for name, value in batch.items()}

    report = build_cache(spec, tmp_path / "cache", transform=some, workers=1)
    assert (report.removed, report.missing, report.complete) == (60, 0, True)
    assert build_cache(spec, tmp_path / "cache", transform=some, workers=1).processed == 0


def hf_take(value, events):
    from hepfeed.tensors import take

    return take(value, events)


def test_what_cannot_be_cached_is_an_error(tmp_path, spec):
    with pytest.raises(ProcessError, match="put 'cache' before"):
        build_cache(spec, tmp_path / "cache", workers=1, transform=lambda batch: {**batch, "names": ["a"]})
    with pytest.raises(ProcessError, match="draws random numbers"):
        build_cache(spec, tmp_path / "r", workers=1, transform=lambda b: {**b, "r": np.random.rand(len(b["label"]))})  # noqa: NPY002


def test_a_cache_of_limited_size_never_exceeds_it(tmp_path, large, undisturbed):
    whole = build_cache(large, tmp_path / "whole", workers=2).bytes
    report = build_cache(large, tmp_path / "cache", workers=2, max_bytes=whole / 2)
    assert report.full
    assert not report.complete
    assert 0 < report.bytes <= whole / 2
    assert sum(path.stat().st_size for path in parts_of(report.directory)) == report.bytes
    report = build_cache(large, tmp_path / "cache", workers=2, resume=True)
    assert report.complete
    assert_equal(exported(report.directory, tmp_path / "all.h5"), undisturbed)


def test_statistics_are_those_of_the_values(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.array([1.0, 0.0, 3.0, np.nan])
        image = np.zeros((4, 10, 10), np.float32)
        image[1, 2, 3], image[2, 0, 0] = 2, 4
        file["image"] = image
    report = build_cache([[str(tmp_path / "a.h5"), ["x", "image"], "a"]], tmp_path / "cache", workers=1)
    arrays = {array.name: array for array in describe_cache(report.directory).arrays}
    x, image = arrays["x"].statistics, arrays["image"].statistics
    assert (x["values"], x["zeros"], x["nonfinite"]) == (4, 1, 1)
    assert (x["mean"], x["minimum"], x["maximum"]) == (pytest.approx(4 / 3), 0, 3)
    assert x["active"] == {"count": 2, "mean": 2.0, "std": 1.0, "minimum": 1.0, "maximum": 3.0}
    assert (image["values"], image["zeros"], image["occupancy"]) == (400, 398, 2 / 400)
    assert image["mean"] == pytest.approx(6 / 400)
    assert arrays["image"].storage == {"cells": 4}
    assert arrays["image"].occupancy == 2 / 400


# ---- interrupted


def test_killed_at_any_moment_it_is_continued(tmp_path, large, undisturbed):
    moments = random.Random(11)
    kills = int(os.environ.get("HEPFEED_KILLS", "16"))
    partial = 0
    while kills:
        before = len(parts_of(tmp_path / "cache")) if (tmp_path / "cache").exists() else 0
        process = command(large, tmp_path / "cache", "--workers", 2)
        try:
            if kills % 2:  # in the midst of the work, and otherwise at any time, the start too
                while process.poll() is None and len(list(tmp_path.glob("cache/*/part-*.h5"))) <= before:
                    time.sleep(0.005)
                process.wait(moments.uniform(0, 0.2))
            else:
                process.wait(moments.uniform(0.1, 1.5))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills -= 1
            events = stored_events(tmp_path / "cache") if (tmp_path / "cache").exists() else []
            assert len(set(map(tuple, events))) == len(events)
            partial += 0 < len(events) < 384
        else:
            finish(process)
            shutil.rmtree(tmp_path / "cache")
    assert partial, "no moment was in the middle"
    finish(command(large, tmp_path / "cache", "--workers", 2, "--verify"))
    (directory,) = caches_below(tmp_path / "cache")
    found = verify_cache(directory, 1)
    assert (found.events, found.damaged, found.faults) == (384, {}, [])
    assert_equal(exported(directory, tmp_path / "all.h5"), undisturbed)


def test_an_interrupt_keeps_what_was_done(tmp_path, large):
    process = command(large, tmp_path / "cache", "--workers", 2)
    deadline = time.monotonic() + 60
    while not parts_of(tmp_path / "cache") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    (directory,) = caches_below(tmp_path / "cache")
    found = verify_cache(directory, 1)
    assert found.events > 0
    assert found.damaged == {}
    assert [fault for fault in found.faults if "missing" not in fault] == []


def test_two_builders_at_once_process_each_event_once(tmp_path, large, undisturbed):
    both = [command(large, tmp_path / "cache", "--workers", 1) for _ in range(2)]
    outputs = [finish(process) for process in both]
    assert sum("waiting until it ends" in output for output in outputs) <= 1
    (directory,) = caches_below(tmp_path / "cache")
    found = verify_cache(directory, 1)
    assert (found.events, found.faults) == (384, [])
    assert_equal(exported(directory, tmp_path / "all.h5"), undisturbed)


# ---- shards


def test_shards_run_at_once_and_merge_to_the_whole(tmp_path, large, undisturbed):
    shards = [command(large, tmp_path / "cache", "--workers", 1, "--shard", f"{i}/3") for i in range(3)]
    for process in shards:
        assert "hepfeed cache merge" in finish(process)
    (directory,) = caches_below(tmp_path / "cache")
    merged = merge_cache(directory)
    assert (merged.events, merged.expected, merged.twice, merged.missing) == (384, 384, 0, {})
    assert merged.shards == ("0/3", "1/3", "2/3")
    assert verify_cache(directory, 1).faults == []
    assert describe_cache(directory).arrays[0].statistics["values"] == 384 * 64**3
    assert_equal(exported(directory, tmp_path / "all.h5"), undisturbed)


def test_a_merge_says_what_is_missing(tmp_path, large):
    report = build_cache(large, tmp_path / "cache", workers=2, shard=Shard(1, 2))
    assert (report.complete, report.missing, report.processed) == (True, 192, 192)
    merged = merge_cache(report.directory)
    assert not merged.complete
    assert sum(merged.missing.values()) == 192
    assert set(merged.missing.values()) == {32}
    assert len(describe_cache(report.directory).arrays) == 3
    assert merge_cache(report.directory, partial=True).events == 192
    assert build_cache(large, tmp_path / "cache", workers=2, shard=Shard(0, 2)).processed == 192
    assert merge_cache(report.directory).complete


def test_a_merge_refuses_while_a_shard_is_at_work_and_parts_of_another_cache(tmp_path, spec):
    one = build_cache(spec, tmp_path / "cache", workers=1, shard=Shard(0, 1))
    with writer_lock(one.directory, shared=True), pytest.raises(SourceError, match="another process writes"):
        merge_cache(one.directory)
    other = build_cache(spec[:1], tmp_path / "cache", workers=1)
    shutil.copy(parts_of(other.directory)[0], one.directory)
    with pytest.raises(FileFormatError, match="belongs to another cache"):
        merge_cache(one.directory)


def test_a_part_that_came_twice_is_found_and_deleted(tmp_path, spec):
    report = build_cache(spec, tmp_path / "cache", workers=1)
    (part,) = parts_of(report.directory)
    shutil.copy(part, part.with_name("part-00000000000000aa.h5"))
    assert any("more than once" in fault for fault in verify_cache(report.directory).faults)
    assert merge_cache(report.directory).twice == 240
    assert build_cache(spec, tmp_path / "cache", workers=1).complete
    assert verify_cache(report.directory).faults == []
    assert len(parts_of(report.directory)) == 1


# ---- damage


def flip(path, dataset):
    """Flip a bit of a data set of a part."""
    with h5py.File(path) as part:
        offset = part[dataset].id.get_offset()
    with open(path, "r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("dataset", ["HCAL", "hits/charge/offsets", "event", "_cache/checksums"])
def test_a_flipped_bit_is_found_and_what_it_spoiled_is_built_again(tmp_path, spec, dataset):
    (expected,) = epochs(spec)
    report = build_cache(spec, tmp_path / "cache", workers=1)
    (part,) = parts_of(report.directory)
    flip(part, dataset)
    found = verify_cache(report.directory)
    assert list(found.damaged) == [part.name]
    assert found.faults
    assert parts_of(report.directory) == [part]
    again = build_cache(spec, tmp_path / "cache", workers=1, verify=True)
    assert again.complete
    assert not part.exists()
    assert verify_cache(report.directory).faults == []
    (served,) = cached_epochs(spec, tmp_path / "cache")
    assert_same(served, expected)


def test_marked_blocks_are_built_again_without_comparing_all(tmp_path, spec):
    report = build_cache(spec, tmp_path / "cache", workers=1)
    flip(parts_of(report.directory)[0], "HCAL")
    assert mark(verify_cache(report.directory)) == 1
    assert build_cache(spec, tmp_path / "cache", workers=1).complete
    assert verify_cache(report.directory).faults == []


def test_parts_that_are_gone_or_cut_short_and_strays_are_found(tmp_path, large):
    report = build_cache(large, tmp_path / "cache", workers=2)
    first, second = parts_of(report.directory)[:2]
    first.unlink()
    os.truncate(second, 5000)
    (Path(report.directory) / "notes.txt").write_text("mine")
    text = " | ".join(verify_cache(report.directory).faults)
    assert f"part {first.name} is gone" in text
    assert f"{second.name}' is cut short" in text
    assert "notes.txt is no file of a cache" in text
    assert "32 of 384 events are missing" in text
    again = build_cache(large, tmp_path / "cache", workers=2)
    assert (again.processed, again.complete) == (32, True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1m", "hepfeed-test", str(place)]
    if os.geteuid() or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path, large, small_disk):
    message = finish(command(large, small_disk, "--workers", 2), code=1)
    assert "ResourceError" in message
    assert "make room" in message
    assert not list(small_disk.rglob("*.tmp"))
    (directory,) = caches_below(small_disk)
    assert verify_cache(directory).damaged == {}
    shutil.copytree(directory, tmp_path / "cache" / Path(directory).name)
    assert build_cache(large, tmp_path / "cache", workers=2).complete


def test_a_directory_that_cannot_be_written_is_one_error(tmp_path, spec):
    SampleSpec(spec).save(tmp_path / "spec.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="can't be written"):
        build_cache(spec, tmp_path / "file", workers=1)
    report = build_cache(spec, tmp_path / "cache", workers=1)
    with read_only(tmp_path / "cache"):
        assert build_cache(spec, tmp_path / "cache", workers=1).complete
        with pytest.raises(SourceError, match="can't be written"):
            build_cache(spec[:2], tmp_path / "cache", workers=1)
    assert verify_cache(report.directory).faults == []


@contextlib.contextmanager
def read_only(path):
    """Make a directory read-only: for root by a mount, for others by its mode."""
    if os.geteuid():
        path.chmod(0o555)
        yield
        path.chmod(0o755)
        return
    bound = subprocess.run(["mount", "--bind", str(path), str(path)], capture_output=True).returncode == 0
    if not bound:
        pytest.skip("a read-only directory needs a mount for root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


# ---- export


@pytest.mark.parametrize("compress", [False, True])
def test_what_is_exported_is_read_again_as_a_source(tmp_path, spec, compress):
    (expected,) = epochs(spec, shuffle=False)
    report = build_cache(spec, tmp_path / "cache", workers=1)
    export_cache(report.directory, tmp_path / "all.h5", dense=True, compress=compress)
    names = {"ECAL": "ECAL", "HCAL": "HCAL", "energy": "energy"}
    names |= {"hits/xyz": "hits/xyz/values", "hits/charge": "hits/charge/values"}
    keys = {name: [path] for name, path in names.items()}
    assert set(keys) == set(KEYS)
    (found,) = epochs([{"files": str(tmp_path / "all.h5"), "keys": keys, "label": "x"}], shuffle=False)
    assert len(found) == len(expected)
    for (_, row), arrays in found.items():
        before = expected[sorted(expected)[row]]
        assert {name: arrays[name] for name in KEYS} == {name: before[name] for name in KEYS}


def test_cells_are_exported_as_the_cache_has_them(tmp_path, spec):
    report = build_cache(spec, tmp_path / "cache", workers=1)
    export_cache(report.directory, tmp_path / "some", keys=["ECAL"], events_per_file=100)
    assert sorted(path.name for path in tmp_path.glob("some*")) == ["some_0.h5", "some_1.h5", "some_2.h5"]
    export_cache(report.directory, tmp_path / "dense.h5", keys=["ECAL"], dense=True)
    with h5py.File(tmp_path / "some_1.h5") as some, h5py.File(tmp_path / "dense.h5") as dense:
        offsets, shape = some["ECAL/offsets"][:], tuple(some["ECAL"].attrs["shape"])
        image = np.zeros((100, int(np.prod(shape))), np.float32)
        image[np.repeat(np.arange(100), np.diff(offsets)), some["ECAL/coords"][:]] = some["ECAL/values"][:]
        np.testing.assert_array_equal(image.reshape(100, *shape), dense["ECAL"][100:200])
        np.testing.assert_array_equal(some["event"][:], dense["event"][100:200])


@pytest.mark.parametrize("compress", [False, True])
def test_npz_has_the_same_arrays_as_hdf5(tmp_path, spec, compress):
    transform = [{"sparsify": {"keys": "ECAL"}}, {"pad_rows": {"keys": "hits/xyz", "length": 40}}]
    report = build_cache(spec, tmp_path / "cache", workers=1, transform=transform)
    for dense in (False, True):
        expected = exported_with(report.directory, tmp_path / "all.h5", dense)
        export_cache(report.directory, tmp_path / "all.npz", format="npz", dense=dense, compress=compress, force=True)
        with np.load(tmp_path / "all.npz") as found:
            for name, values in expected.items():
                group, _, last = name.rpartition("/")
                member = f"{group}.{last}" if f"{group}.{last}" in found else name
                np.testing.assert_array_equal(found[member], values, err_msg=name)


def exported_with(directory, path, dense):
    export_cache(directory, path, dense=dense, force=True)
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.update({name: node[...]}) if isinstance(node, h5py.Dataset) else None)
    return found


def test_an_export_replaces_nothing_unasked_and_leaves_no_half_file(tmp_path, spec):
    report = build_cache(spec, tmp_path / "cache", workers=1)
    (tmp_path / "all.h5").write_text("mine")
    with pytest.raises(SpecError, match="--force"):
        export_cache(report.directory, tmp_path / "all.h5")
    with pytest.raises(KeyMissingError, match="did you mean 'ECAL'"):
        export_cache(report.directory, tmp_path / "e.h5", keys=["ECALL"])
    flip(parts_of(report.directory)[0], "HCAL")
    with pytest.raises(SourceError, match="is damaged"):
        export_cache(report.directory, tmp_path / "other.h5")
    with pytest.raises(ResourceError, match="could not write"):
        export_cache(report.directory, tmp_path / "nowhere" / "other.npz", format="npz")
    assert not list(tmp_path.glob("*other*"))
    assert (tmp_path / "all.h5").read_text() == "mine"


# ---- dask


def test_a_dask_cluster_builds_the_same(tmp_path, large, undisturbed):
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    finish(command(large, tmp_path / "cache", "--dask", "local", "--workers", 2))
    (directory,) = caches_below(tmp_path / "cache")
    assert verify_cache(directory, 1).faults == []
    assert_equal(exported(directory, tmp_path / "all.h5"), undisturbed)
