"""What goes wrong with a cache: damage, dead processes, full disks; never a wrong number, and each event once."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
from cached import (
    assert_same,
    cached_epochs,
    contents,
    directories,
    epochs,
    parts_of,
    stored_events,
    write_set,
)

import hepfeed as hf
from hepfeed.errors import SourceError, SpecError

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.timeout(120),
]


@pytest.fixture
def spec(tmp_path):
    return write_set(tmp_path / "data")


@pytest.fixture
def expected(spec):
    return epochs(spec)[0]


@pytest.fixture
def root(spec, tmp_path):
    """A complete cache."""
    cached_epochs(spec, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "hepfeed")
    return caplog


def small_parts(monkeypatch):
    """Let parts have few events, and blocks fewer."""
    monkeypatch.setattr("hepfeed.loader.PART_BYTES", 8_000)
    monkeypatch.setattr("hepfeed.parts.buffer._BLOCK_BYTES", 1_000)


@pytest.fixture
def many(spec, tmp_path, monkeypatch):
    """A complete cache of many parts and blocks."""
    small_parts(monkeypatch)
    cached_epochs(spec, tmp_path / "cache", batch_size=8)
    assert len(parts_of(tmp_path / "cache")) > 5
    return tmp_path / "cache"


def flip(path, at, bit):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def places_in(path):
    """Return data set -> (first byte, bytes)."""
    found = {}

    def visit(name, node):
        if isinstance(node, h5py.Dataset) and node.id.get_storage_size():
            found[name] = node.id.get_offset(), node.id.get_storage_size()

    with h5py.File(path, "r") as part:
        part.visititems(visit)
    return found


def assert_repaired(spec, root, expected, warnings, readers=0, named=None):
    """The next run is right and warns, the one after it is right and silent."""
    warnings.clear()
    for found in cached_epochs(spec, root, 2, readers=readers):
        assert_same(found, expected)
    assert warnings.messages
    assert all("processed again" in message or "one by one" in message for message in warnings.messages)
    assert named is None or named in warnings.messages[0]
    warnings.clear()
    for found in cached_epochs(spec, root, 2):
        assert_same(found, expected)
    assert warnings.messages == []
    assert set(stored_whole_events(root)) >= expected.keys()


def stored_whole_events(root):
    """Return the events of those parts that HDF5 can read."""
    found = []
    for path in parts_of(root):
        with contextlib.suppress(OSError, KeyError, RuntimeError), h5py.File(path, "r") as part:
            found += map(tuple, part["event"][()].tolist())
    return found


# ---- damage


DATA_SETS = [
    "ECAL/coords",
    "ECAL/values",
    "ECAL/offsets",
    "HCAL",
    "energy",
    "event",
    "hits/charge/offsets",
    "hits/xyz/values",
    "label",
    "_cache/checksums",
]


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_flipped_bit_is_found_and_what_it_is_in_made_again(spec, root, expected, warnings, name):
    (part,) = parts_of(root)
    start, size = places_in(part)[name]
    random = np.random.default_rng(len(name))
    flip(part, start + int(random.integers(size)), int(random.integers(8)))
    assert_repaired(spec, root, expected, warnings, named=part.name)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_of_many_blocks_are_found_by_readers(spec, many, expected, warnings, seed):
    random = np.random.default_rng(seed)
    flipped = []
    for part in random.choice(parts_of(many), 4, replace=False).tolist():
        start, size = random.choice(list(places_in(part).values()))
        flip(part, int(start + random.integers(size)), int(random.integers(8)))
        flipped.append(part.name)
    assert_repaired(spec, many, expected, warnings, readers=2)


def test_a_warning_names_file_and_block(spec, many, warnings):
    part = parts_of(many)[0]
    start, size = places_in(part)["energy"]
    flip(part, start + size - 1, 0)
    cached_epochs(spec, many)
    (message,) = warnings.messages
    assert str(part) in message
    assert re.search(r"block [1-9]\d* fails its checksum", message)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_head_of_a_part_is_found_where_it_is_needed(spec, root, expected, warnings, seed):
    (part,) = parts_of(root)
    head = min(start for start, _ in places_in(part).values())
    flip(part, int(np.random.default_rng(seed).integers(head)), seed % 8)
    (manifest,) = root.rglob("manifest.json")
    manifest.unlink()
    for _ in range(2):
        assert_same(cached_epochs(spec, root, 2)[1], expected)
    warnings.clear()
    assert_same(cached_epochs(spec, root)[0], expected)
    assert warnings.messages == []


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_in_the_manifest_is_found(spec, root, expected, warnings, seed):
    (manifest,) = root.rglob("manifest.json")
    random = np.random.default_rng(seed)
    flip(manifest, int(random.integers(manifest.stat().st_size)), int(random.integers(8)))
    assert_repaired(spec, root, expected, warnings)
    assert len(stored_events(root)) == 240


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 99}', "not json"])
def test_a_manifest_that_is_none_is_made_again_from_the_parts(spec, root, expected, warnings, text):
    (manifest,) = root.rglob("manifest.json")
    manifest.write_text(text)
    assert_repaired(spec, root, expected, warnings)
    manifest.unlink()
    assert_same(cached_epochs(spec, root)[0], expected)
    assert json.loads(manifest.read_text())["events"] == 240
    assert len(stored_events(root)) == 240


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("act", ["truncate", "delete", "empty"])
def test_parts_that_were_cut_or_deleted_are_made_again(spec, many, expected, warnings, act, readers):
    for part in parts_of(many)[1:4]:
        if act == "delete":
            part.unlink()
        else:
            os.truncate(part, 0 if act == "empty" else part.stat().st_size // 2)
    assert_repaired(spec, many, expected, warnings, readers=readers)


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("act", ["truncate", "delete"])
def test_parts_that_are_cut_while_they_are_read_are_made_again(spec, many, expected, warnings, act, readers):
    dataset = hf.EventDataset(spec, cache=many)
    options = {"num_workers": readers, "persistent_workers": readers > 0, "seed": 7}
    with hf.DataLoader(dataset, 16, True, **options) as loader:
        assert_same(contents(loader), expected)
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(3)]
        for part in parts_of(many):
            if act == "delete":
                part.unlink()
            else:
                os.truncate(part, 4096)
        batches += iterator
        assert_same(contents(batches), expected)
        assert_same(contents(loader), expected)
        assert loader.stats()["restarts"] == 0
    for found in cached_epochs(spec, many, 2):
        assert_same(found, expected)
    warnings.clear()
    assert_same(cached_epochs(spec, many)[0], expected)
    assert warnings.messages == []


def test_what_a_killed_writer_left_is_not_taken(spec, root, expected):
    (part,) = parts_of(root)
    left = part.with_name(f".{part.name}.tmp")
    part.rename(left)
    (manifest,) = root.rglob("manifest.json")
    manifest.unlink()
    for found in cached_epochs(spec, root, 2):
        assert_same(found, expected)
    assert left.exists()  # another process may be at it
    os.utime(left, (1, 1))
    parts_of(root)[0].unlink()
    cached_epochs(spec, root)
    assert not left.exists()


# ---- dead processes


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("moment", [0, 4, 11])
def test_nothing_is_lost_when_a_reader_is_killed(spec, tmp_path, monkeypatch, expected, epoch, moment):
    small_parts(monkeypatch)
    dataset = hf.EventDataset(spec, cache=tmp_path / "cache")
    with hf.DataLoader(dataset, 16, True, num_workers=2, persistent_workers=True, seed=7) as loader:
        for number in range(4):
            batches = []
            for place, batch in enumerate(loader):
                batches.append(batch)
                if (number, place) == (epoch, moment):
                    os.kill(loader._own_pool.pids[0], signal.SIGKILL)
            assert_same(contents(batches), expected)
            del batches, batch
        assert loader.stats()["restarts"] == 1
    assert set(stored_events(tmp_path / "cache")) == expected.keys()
    assert_same(cached_epochs(spec, tmp_path / "cache")[0], expected)


TRAIN = """
    import json, os, sys, threading, time
    import hepfeed as hf
    import hepfeed.loader, hepfeed.parts.buffer

    hepfeed.loader.PART_BYTES, hepfeed.parts.buffer._BLOCK_BYTES = 8_000, 1_000
    spec, root, epochs = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    dataset = hf.EventDataset(spec, cache=root)
    print("begins", flush=True)
    with hf.DataLoader(dataset, 8, True, num_workers=1, seed=7) as loader:
        for _ in range(epochs):
            seen = set()
            for batch in loader:
                seen |= {tuple(event) for event in batch["event"].tolist()}
                time.sleep(float(sys.argv[4]))
            print(len(seen), flush=True)
"""


KILL = """
    import json, os, signal, sys, time
    import numpy as np
    import psutil
    import hepfeed as hf
    import hepfeed.loader, hepfeed.parts.buffer

    hepfeed.loader.PART_BYTES, hepfeed.parts.buffer._BLOCK_BYTES = 8_000, 1_000

    def train():
        dataset = hf.EventDataset(json.loads(sys.argv[1]), cache=sys.argv[2])
        with hf.DataLoader(dataset, 8, True, num_workers=1, seed=7) as loader:
            for _ in loader:
                time.sleep(0.01)

    def alive(process):
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    random = np.random.default_rng(3)
    for _ in range(15):
        pid = os.fork()
        if pid == 0:
            train()
            os._exit(0)
        time.sleep(random.uniform(0.0, 0.8))
        os.kill(pid, signal.SIGSTOP)  # so that it starts no reader between the next two lines
        readers = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while any(alive(each) for each in readers):
            time.sleep(0.01)
"""


def test_a_training_that_is_killed_again_and_again_ends_with_a_whole_cache(spec, tmp_path, run_script, expected):
    root = tmp_path / "cache"
    run_script(KILL, json.dumps(spec), root)
    assert stored_events(root)
    for found in cached_epochs(spec, root, 3):
        assert_same(found, expected)
    stored = stored_events(root)
    assert len(stored) == len(set(stored)) == 240


def test_two_trainings_at_once_share_a_cache(spec, tmp_path, start_script, expected):
    two = [start_script(TRAIN, json.dumps(spec), tmp_path / "cache", 3, 0.01) for _ in range(2)]
    for process in two:
        out, err = process.communicate(timeout=100)
        assert out.split() == ["begins", "240", "240", "240"], err
        assert process.returncode == 0
        assert err == ""
    stored = stored_events(tmp_path / "cache")
    assert len(stored) == len(set(stored)) == 240
    assert_same(cached_epochs(spec, tmp_path / "cache")[0], expected)


def test_another_training_reads_what_the_first_has_written(spec, tmp_path, expected):
    """Two stores, as in two processes: the second has no right to write, and takes in what appears."""
    root = tmp_path / "cache"
    first = hf.DataLoader(hf.EventDataset(spec, cache=root), 16, True, seed=1)
    iterator = iter(first)
    batches = [next(iterator) for _ in range(3)]
    second = """
        import json, sys
        import hepfeed as hf

        dataset = hf.EventDataset(json.loads(sys.argv[1]), cache=sys.argv[2])
        print(sum(len(batch["label"]) for batch in hf.DataLoader(dataset, 16, True, seed=7)))
    """
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, textwrap; exec(textwrap.dedent(sys.argv.pop(1)))",
            second,
            json.dumps(spec),
            root,
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",  # not where the sources lie, which python -c would import
    )
    assert out.stdout == "240\n"
    assert parts_of(root) == []  # it has not written beside the first
    assert_same(contents([*batches, *iterator]), expected)
    first.close()
    stored = stored_events(root)
    assert len(stored) == len(set(stored)) == 240


# ---- places


def test_a_complete_cache_feeds_after_its_sources_went_away(spec, root, expected, tmp_path):
    dataset = hf.EventDataset(spec, cache=root)
    shutil.rmtree(tmp_path / "data")
    with hf.DataLoader(dataset, 16, True, seed=7, num_workers=1) as loader:
        assert_same(contents(loader), expected)
    with pytest.raises(SpecError, match="no file matches"):
        hf.EventDataset(spec, cache=root)


def test_a_cache_may_be_moved(spec, root, expected, tmp_path):
    shutil.copytree(root, tmp_path / "elsewhere")
    (directory,) = directories(tmp_path / "elsewhere")
    assert_same(cached_epochs(spec, tmp_path / "elsewhere")[0], expected)
    directory.rename(tmp_path / "one")
    shutil.rmtree(root)
    before = parts_of(tmp_path / "one")
    assert_same(cached_epochs(spec, tmp_path / "one")[0], expected)
    assert parts_of(tmp_path / "one") == before
    assert directories(tmp_path / "one") == []


def test_a_cache_that_has_its_limit_goes_on_from_the_sources(spec, tmp_path, monkeypatch, expected, warnings):
    small_parts(monkeypatch)
    for found in cached_epochs(
        spec, tmp_path / "cache", 3, batch_size=8, window_events=8, dataset={"cache_size": 50e3}
    ):
        assert_same(found, expected)
    (warning,) = warnings.messages
    assert "has reached its limit of 5e-05 GB" in warning
    assert 0 < len(stored_events(tmp_path / "cache")) < 240
    for found in cached_epochs(spec, tmp_path / "cache", 2):
        assert_same(found, expected)
    stored = stored_events(tmp_path / "cache")
    assert len(stored) == len(set(stored)) == 240


def test_a_directory_below_a_file_is_refused_at_once(spec, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"can't be in .*file' is a file"):
        hf.DataLoader(hf.EventDataset(spec, cache=tmp_path / "file" / "cache"), 16)


FEED = """
    import json, logging, sys
    import hepfeed as hf
    from hepfeed.errors import SourceError, SpecError

    logging.basicConfig(stream=sys.stdout, format="warning: %(message)s")
    for cache in sys.argv[2:]:
        dataset = hf.EventDataset(json.loads(sys.argv[1]), cache=cache)
        options = {"num_workers": 1, "persistent_workers": True, "seed": 7, "window_events": 8}
        try:
            with hf.DataLoader(dataset, 8, True, **options) as loader:
                for _ in range(3):
                    print(len({tuple(event) for batch in loader for event in batch["event"].tolist()}))
        except SourceError as error:
            print("refused:", error)
"""


@pytest.fixture
def in_namespace(tmp_path, run_script):
    """Run a script after commands of a shell that may mount; skipped where that is not allowed."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount, as root has")

    def run(mounts, script, *args, **options):
        starter = """
            import subprocess, sys
            subprocess.run(["unshare", "-m", "sh", "-ec", sys.argv[1], "sh", sys.executable, *sys.argv[2:]], check=True)
        """
        path = tmp_path / "mounted.py"
        path.write_text(textwrap.dedent(script))
        return run_script(starter, mounts + '; exec "$@"', path, *args, **options)

    return run


def test_a_full_disk_is_a_warning_and_what_was_written_stays(spec, tmp_path, in_namespace, expected):
    full, kept = tmp_path / "full", tmp_path / "kept"
    full.mkdir()
    script = "import hepfeed.loader\nhepfeed.loader.PART_BYTES = 8_000\n" + textwrap.dedent(FEED)
    script += f"\nimport shutil; shutil.copytree({str(full)!r}, {str(kept)!r})\n"
    out = in_namespace(f"mount -t tmpfs -o size=1100k none {full}", script, json.dumps(spec), full)
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith("warning")] == ["240", "240", "240"]
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert "No space left" in warning
    assert "what it has is kept" in warning
    stored = stored_events(kept)
    assert 0 < len(stored) == len(set(stored)) < 240
    for found in cached_epochs(spec, kept, 2):
        assert_same(found, expected)


def test_a_directory_that_can_only_be_read_feeds_if_it_is_complete(spec, root, in_namespace):
    part_gone = root.with_name("part_gone")
    shutil.copytree(root, part_gone)
    parts_of(part_gone)[0].unlink()
    read_only = " && ".join(
        f"mount --bind {each} {each} && mount -o remount,bind,ro {each}" for each in (root, part_gone)
    )
    environment = {"HEPFEED_CACHE": str(part_gone)}
    out = in_namespace(read_only, FEED, json.dumps(spec), root, part_gone, "auto", env=environment)
    lines = [line for line in out.splitlines() if not line.startswith("warning")]
    assert lines[:3] == ["240", "240", "240"]
    assert lines[3].startswith("refused: ")
    assert "name a directory that you may write to" in lines[3]
    assert lines[4:] == ["240", "240", "240"]


def test_a_reader_that_dies_gives_its_memory_back(spec, expected, monkeypatch, tmp_path):
    """The budget allows for one part: it is written although the reader that was to write it was killed."""
    monkeypatch.setenv("HEPFEED_CACHE", str(tmp_path / "none"))
    dataset = hf.EventDataset(spec, cache="ram", cache_size=48 << 20)
    with hf.DataLoader(dataset, 16, True, num_workers=1, persistent_workers=True, seed=7) as loader:
        iterator = iter(loader)
        batches = [next(iterator)]
        os.kill(loader._own_pool.pids[0], signal.SIGKILL)
        batches += list(iterator)
        assert_same(contents(batches), expected)
        assert parts_of(tmp_path) == []
        for _ in range(2):
            assert_same(contents(loader), expected)
        assert parts_of(tmp_path) == []
