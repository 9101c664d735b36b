"""What goes wrong: dead processes, interrupts, and files at fault; each ends soon and says what and where."""

import os
import signal
import sys
import types

import h5py
import numpy as np
import psutil
import pytest
from events import KEYS, all_events, bits, events_of, write_classes, write_file
from processes import children_of, in_shared_memory

import hepfeed as hf
from hepfeed.errors import (
    CodecMissingError,
    CorruptDataError,
    FeedTimeoutError,
    FileFormatError,
    FilterError,
    KeyMissingError,
    ProcessError,
    ReaderError,
    SourceError,
    SpecError,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.timeout(120),  # a fault is an error, never a hang
]

GONE_TIMEOUT_S = 2.0


def assert_gone(processes):
    """Processes end within two seconds."""
    _, alive = psutil.wait_procs(processes, GONE_TIMEOUT_S)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


# ---- dead readers


@pytest.fixture
def spec(tmp_path):
    return write_classes(tmp_path, {"electron": [150, 60], "pion": [190]}, layout="all_filters")


@pytest.mark.parametrize("moment", [0, 1, 7, 20, 24])
def test_an_epoch_is_complete_and_the_same_when_a_reader_is_killed(spec, moment):
    options = {"batch_size": 16, "shuffle": True, "seed": 1, "window_events": 48}
    dataset = hf.EventDataset(spec)
    undisturbed = bits(hf.DataLoader(dataset, **options))
    with hf.DataLoader(dataset, **options, num_workers=2, persistent_workers=True) as loader:
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(moment)]
        victim = children_of(os.getpid())[0]
        victim.kill()
        batches += iterator
        assert bits(batches) == undisturbed
        assert set(events_of(loader)) == all_events(dataset)
        assert loader.stats()["restarts"] <= 1
    assert_gone([victim])


def test_an_epoch_is_complete_and_the_same_when_all_readers_are_killed_again_and_again(spec):
    dataset = hf.EventDataset(spec)
    undisturbed = bits(hf.DataLoader(dataset, 40, True, seed=1))
    with hf.DataLoader(dataset, 40, True, seed=1, num_workers=2) as loader:
        batches = []
        for batch in loader:
            batches.append(batch)
            for reader in children_of(os.getpid()):
                reader.kill()
        assert bits(batches) == undisturbed


def test_a_stopped_reader_is_a_time_out_and_not_a_hang(spec):
    def stop(batch):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSTOP)
        return batch

    with (
        hf.DataLoader(hf.EventDataset(spec), 16, num_workers=1, process_fn=stop, timeout=0.5) as loader,
        pytest.raises(FeedTimeoutError),
    ):
        next(iter(loader))


def test_an_event_that_kills_its_reader_every_time_is_named(spec):
    def crash(batch):
        import os
        import signal

        if (batch["energy"] == 1033.0).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    dataset = hf.EventDataset(spec)
    with (
        hf.DataLoader(dataset, 1, num_workers=2, process_fn=crash) as loader,
        pytest.raises(ReaderError, match=r"was killed by signal 9 3 times on 1 events") as caught,
    ):
        list(loader)
    assert caught.value.file == dataset.files[1]
    assert caught.value.event == 33


def test_a_reader_that_exits_is_named_with_its_code(spec):
    def leave(batch):
        import os

        os._exit(17)

    with (
        hf.DataLoader(hf.EventDataset(spec), 16, num_workers=1, process_fn=leave) as loader,
        pytest.raises(ReaderError, match="ended with code 17 3 times"),
    ):
        list(loader)


# ---- the consumer ends


FEED = """
    import sys, time
    import psutil
    import hepfeed as hf

    dataset = hf.EventDataset([[sys.argv[1], ["image", "energy"], "a"]])
    loader = hf.DataLoader(dataset, 8, True, num_workers=2, infinite=True)
    for number, batch in enumerate(loader):
        if number == 3:
            print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        time.sleep(0.005)
"""


@pytest.fixture
def feed(tmp_path, start_script):
    """A script that feeds for ever, and its readers."""
    path = write_file(tmp_path / "a.h5", 200, layout="one_event_chunks")
    process = start_script(FEED, path)
    readers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    assert len(readers) == 2
    return process, readers


def test_no_reader_outlives_a_consumer_that_was_killed(feed):
    process, readers = feed
    os.kill(process.pid, signal.SIGKILL)
    assert_gone(readers)
    assert process.wait(10) == -signal.SIGKILL
    assert in_shared_memory([process.pid, *(reader.pid for reader in readers)]) == []


def test_the_interrupt_of_a_terminal_ends_consumer_and_readers(feed):
    process, readers = feed
    os.killpg(process.pid, signal.SIGINT)
    assert_gone(readers)
    _, err = process.communicate(timeout=10)
    assert process.returncode in (1, 130, -signal.SIGINT)
    assert err.strip().endswith("KeyboardInterrupt")


def test_the_end_of_the_script_ends_the_readers(tmp_path, run_script):
    path = write_file(tmp_path / "a.h5", 40)
    script = """
        import sys
        import psutil
        import hepfeed as hf

        loader = hf.DataLoader(hf.EventDataset([[sys.argv[1], ["image"], "a"]]), 4, num_workers=2)
        iterator = iter(loader)
        held = next(iterator)
        print(*(child.pid for child in psutil.Process().children(recursive=True)))
    """
    pids = [int(pid) for pid in run_script(script, path).split()]
    assert len(pids) == 2
    assert_gone([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])


def test_leaving_the_loop_early_ends_the_readers(spec):
    for _ in hf.DataLoader(hf.EventDataset(spec), 8, num_workers=2):
        readers = children_of(os.getpid())
        assert len(readers) == 2
        break
    assert_gone(readers)


def test_an_exception_in_the_loop_ends_the_readers(spec):
    def train():
        for _ in hf.DataLoader(hf.EventDataset(spec), 8, num_workers=2):
            readers.extend(children_of(os.getpid()))
            raise ArithmeticError("loss is NaN")

    readers = []
    with pytest.raises(ArithmeticError):
        train()
    assert len(readers) == 2
    assert_gone(readers)


def test_a_full_shared_memory_is_an_error_and_not_a_bus_error(tmp_path, run_script):
    write_file(tmp_path / "a.h5", 100)
    script = """
        import resource, sys
        import hepfeed as hf
        from hepfeed.errors import ResourceError

        dataset = hf.EventDataset([[sys.argv[1], ["image"], "a"]])
        loader = hf.DataLoader(dataset, 100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            next(iter(loader))
        except ResourceError as error:
            print(error)
    """
    assert "shared memory" in run_script(script, tmp_path / "a.h5")


# ---- files at fault when they are indexed


def refusal(error, samples, **options):
    """Return the error that a dataset raises, which is of exactly this class."""
    with pytest.raises(error) as caught:
        hf.EventDataset(samples, **options)
    assert type(caught.value) is error
    return caught.value


@pytest.fixture
def good(tmp_path):
    return write_file(tmp_path / "good.h5", 30)


def assert_skipped(good, bad, error, keys=("image",)):
    """A bad file beside a good one is left out, counted and named."""
    dataset = hf.EventDataset([[[str(good), str(bad)], list(keys), "a"]], on_error="skip")
    assert len(dataset) == 30
    assert dataset.files == [str(good)]
    (reported,) = dataset.skipped
    assert type(reported) is error
    assert str(bad) in str(reported)
    assert events_of(hf.DataLoader(dataset, 8)) == [(0, row) for row in range(30)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty (zero bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "the file is a Git LFS pointer"),
        (b"root" + bytes(100), "the file is a ROOT file"),
        (b"\x1f\x8b" + bytes(100), "the file is a gzip file"),
        (b"PK\x03\x04" + bytes(100), "the file is a zip or npz archive"),
        (b"<!DOCTYPE html>", "the file is a text (HTML or XML) file"),
        (b"12 34 56 78", "does not begin with the HDF5 signature but with b'12 34 56'"),
    ],
)
def test_a_file_that_is_not_hdf5_is_named_for_what_it_is(tmp_path, good, content, message):
    bad = tmp_path / "bad.h5"
    bad.write_bytes(content)
    error = refusal(FileFormatError, [[str(bad), ["image"], "a"]])
    assert message in str(error)
    assert error.file == str(bad)
    assert_skipped(good, bad, FileFormatError)


def test_a_truncated_file_is_named(tmp_path, good):
    bad = write_file(tmp_path / "bad.h5", 500)
    os.truncate(bad, bad.stat().st_size // 2)
    error = refusal(FileFormatError, [[str(bad), ["image"], "a"]])
    assert f"{str(bad)!r} is truncated ({bad.stat().st_size} bytes on disk)" in str(error)
    assert_skipped(good, bad, FileFormatError)


def test_a_missing_key_is_named_with_what_there_is(tmp_path, good):
    bad = tmp_path / "bad.h5"
    with h5py.File(bad, "w") as file:
        file["HCAL"] = np.zeros((3, 2))
    error = refusal(KeyMissingError, [[str(bad), ["image"], "a"]])
    assert "key 'image' does not exist" in str(error)
    assert "there are 'HCAL'" in str(error)
    assert (error.file, error.key) == (str(bad), "image")
    assert_skipped(good, bad, KeyMissingError)


def test_a_misspelt_key_is_named_with_the_nearest(good):
    error = refusal(KeyMissingError, [[str(good), ["imgae"], "a"]])
    assert "did you mean 'image'" in str(error)
    assert error.file == str(good)


def test_a_group_instead_of_a_data_set_is_named(tmp_path):
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["image/pixels"] = np.zeros((3, 2))
    error = refusal(KeyMissingError, [[str(tmp_path / "bad.h5"), ["image"], "a"]])
    assert "'image/pixels'" in str(error)


def test_another_shape_is_named_with_both(tmp_path, good):
    bad = write_file(tmp_path / "bad.h5", 10, shape=(5, 3))
    error = refusal(SpecError, [[[str(good), str(bad)], ["image"], "a"]])
    assert f"events of shape (5, 3) in {str(bad)!r}, but (5, 4) in {str(good)!r}" in str(error)
    assert (error.file, error.key) == (str(bad), "image")


def test_another_dtype_is_named_with_what_to_write(tmp_path, good):
    bad = write_file(tmp_path / "bad.h5", 10, layout="half")
    error = refusal(SpecError, [[[str(good), str(bad)], ["image"], "a"]])
    assert "is float16" in str(error)
    assert "dtypes={'image': 'float32'}" in str(error)
    assert (error.file, error.key) == (str(bad), "image")


def test_keys_of_different_lengths_are_named(tmp_path):
    bad = write_file(tmp_path / "bad.h5", 10, extra={"hits": np.zeros(400)})
    error = refusal(SpecError, [[str(bad), ["image", "hits"], "a"]])
    assert "'image' has 10, 'hits' has 400" in str(error)
    assert error.file == str(bad)


def test_a_file_without_events_is_named(tmp_path, good):
    bad = write_file(tmp_path / "bad.h5", 0)
    error = refusal(SpecError, [[str(bad), ["image"], "a"]])
    assert "holds no events" in str(error)
    assert error.file == str(bad)
    assert_skipped(good, bad, SpecError)


def test_a_single_value_and_text_are_no_events(tmp_path):
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["run"] = 6229
        file["name"] = np.array([b"electron", b"pion"])
        file["hits"] = np.zeros(3, [("x", "f4"), ("q", "f4")])
    for key, what in [("run", "a single value"), ("name", "dtype text"), ("hits", "fields x, q")]:
        error = refusal(SpecError, [[str(tmp_path / "bad.h5"), [key], "a"]])
        assert what in str(error)
        assert error.key == key


def test_an_unknown_filter_is_named_with_its_number(tmp_path, good):
    bad = tmp_path / "bad.h5"
    with h5py.File(bad, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10, 5, 4))
        plist.set_filter(333, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((10, 5, 4))
        node = h5py.h5d.create(file.id, b"image", h5py.h5t.IEEE_F32LE, space, plist)
        node.write_direct_chunk((0, 0, 0), bytes(800))
    error = refusal(CodecMissingError, [[str(bad), ["image"], "a"]])
    assert "HDF5 filter 333 (unknown), which is not installed" in str(error)
    assert (error.file, error.key) == (str(bad), "image")
    assert_skipped(good, bad, CodecMissingError)


def test_a_file_without_permission_is_named(tmp_path):
    if os.getuid() == 0:
        pytest.skip("root may read everything")
    bad = write_file(tmp_path / "bad.h5", 10)
    bad.chmod(0)
    error = refusal(SourceError, [[str(bad), ["image"], "a"]])
    assert "ask for read permission" in str(error)


@pytest.mark.parametrize("rate", [0, -1.5, float("nan"), float("inf"), "1", True])
def test_a_rate_that_is_not_above_zero_is_refused(good, rate):
    with pytest.raises(SpecError, match="rate must be a finite number above 0"):
        hf.SampleSpec([[str(good), ["image"], "a", rate]])


def test_nan_in_a_filter_key_names_its_event(tmp_path):
    ratio = np.array([0.1, 0.2, np.nan, 0.9, np.nan])
    bad = write_file(tmp_path / "bad.h5", 5, extra={"ratio": ratio})
    error = refusal(FilterError, hf.SampleSpec([[str(bad), KEYS, "a"]], filter="ratio < 0.5"))
    assert (error.file, error.key, error.event) == (str(bad), "ratio", 2)
    dataset = hf.EventDataset(hf.SampleSpec([[str(bad), KEYS, "a"]], filter="ratio < 0.5"), on_error="skip")
    assert dataset.index.rows.tolist() == [0, 1]
    assert "2 events" in str(dataset.skipped[0])
    assert str(bad) in str(dataset.skipped[0])


# ---- files at fault when they are read


def corrupt(path, chunk, position):
    """Change one byte of a chunk of ``image``."""
    with h5py.File(path) as file:
        info = file["image"].id.get_chunk_info(chunk)
    with open(path, "r+b") as stream:
        stream.seek(info.byte_offset + position % info.size)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 0x5A]))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("layout", "position", "message"),
    [
        ("one_event_chunks", 0, "does not inflate"),
        ("hundred_event_chunks", -1, "does not inflate"),
        ("all_filters", 40, "fails its fletcher32 checksum"),
        ("all_filters", -1, "fails its fletcher32 checksum"),
    ],
)
def test_a_corrupt_chunk_names_file_key_and_event(tmp_path, layout, position, message, num_workers):
    spec = write_classes(tmp_path, {"a": [300, 40]}, layout=layout)
    bad = tmp_path / "a" / "a_0.h5"
    corrupt(bad, 2, position)
    events_of_a_chunk = {"one_event_chunks": 1, "hundred_event_chunks": 100, "all_filters": 16}[layout]
    lost = {(0, 2 * events_of_a_chunk + i) for i in range(events_of_a_chunk)}

    dataset = hf.EventDataset(spec)
    with (
        hf.DataLoader(dataset, 16, True, num_workers=num_workers, seed=1) as loader,
        pytest.raises(CorruptDataError, match=message) as caught,
    ):
        list(loader)
    assert (caught.value.file, caught.value.key) == (str(bad), "image")
    assert (0, caught.value.event) in lost

    dataset = hf.EventDataset(spec, on_error="skip")
    with hf.DataLoader(dataset, 16, True, num_workers=num_workers, seed=1) as loader:
        events = events_of(loader)
        assert loader.stats()["skipped"] == len(lost)
    assert len(events) == len(set(events))
    assert set(events) == all_events(dataset) - lost


def test_a_corrupt_chunk_that_h5py_reads_names_its_event(tmp_path):
    spec = write_classes(tmp_path, {"a": [40]}, layout="lzf")
    corrupt(tmp_path / "a" / "a_0.h5", 2, 0)
    with pytest.raises(CorruptDataError, match="HDF5 can't read event") as caught:
        list(hf.DataLoader(hf.EventDataset(spec), 16))
    assert caught.value.event in range(16, 24)
    dataset = hf.EventDataset(spec, on_error="skip")
    assert set(events_of(hf.DataLoader(dataset, 16))) == all_events(dataset) - {(0, i) for i in range(16, 24)}


def test_a_corrupt_chunk_is_an_error_of_a_single_event_too(tmp_path):
    spec = write_classes(tmp_path, {"a": [40]}, layout="all_filters")
    corrupt(tmp_path / "a" / "a_0.h5", 2, 10)
    dataset = hf.EventDataset(spec)
    assert dataset[31]["id"].tolist() == [0, 0, 31]
    with pytest.raises(CorruptDataError) as caught:
        dataset[35]
    assert caught.value.event == 35


def deleted(path):
    path.unlink()


def changed(path):
    write_file(path, 41, number=5)


def cut(path):
    os.truncate(path, path.stat().st_size - 100)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("harm", "message"),
    [(deleted, "was it moved or deleted"), (changed, "has changed since it was indexed"), (cut, "has changed")],
)
def test_a_file_that_changes_after_indexing_is_named(tmp_path, harm, message, num_workers, caplog):
    spec = write_classes(tmp_path, {"a": [40, 30]})
    bad = tmp_path / "a" / "a_0.h5"
    strict, lenient = hf.EventDataset(spec), hf.EventDataset(spec, on_error="skip")
    harm(bad)
    with (
        hf.DataLoader(strict, 16, True, num_workers=num_workers) as loader,
        pytest.raises(SourceError, match=message) as caught,
    ):
        list(loader)
    assert caught.value.file == str(bad)
    with hf.DataLoader(lenient, 16, True, num_workers=num_workers) as loader:
        assert set(events_of(loader)) == {(1, row) for row in range(30)}
        assert loader.stats()["skipped"] == 40
    assert caplog.text.count("an event was left out") == 20
    assert "only counted" in caplog.text


def test_a_file_that_is_cut_while_it_is_read_is_named(tmp_path):
    spec = write_classes(tmp_path, {"a": [4000]})
    dataset = hf.EventDataset(spec)
    with hf.DataLoader(dataset, 16) as loader:
        iterator = iter(loader)
        next(iterator)
        os.truncate(tmp_path / "a" / "a_0.h5", 100_000)
        with pytest.raises(CorruptDataError, match="was cut short") as caught:
            list(iterator)
    assert caught.value.file == dataset.files[0]
    assert caught.value.event > 0


def test_a_function_that_a_reader_can_not_load_is_an_error(spec, monkeypatch):
    module = types.ModuleType("only_here")
    exec("def function(batch):\n    return batch", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with (
        hf.DataLoader(hf.EventDataset(spec), 8, num_workers=1, process_fn=module.function) as loader,
        pytest.raises(ProcessError, match=r"can't load process_fn or transform \(ModuleNotFoundError"),
    ):
        next(iter(loader))
