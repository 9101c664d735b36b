"""Few descriptors, many files, many epochs: nothing runs out and nothing grows."""

import gc
import os

import psutil
import pytest
from events import write_classes, write_file

import hepfeed as hf

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def test_six_hundred_files_are_fed_with_256_descriptors(tmp_path, run_script):
    content = write_file(tmp_path / "first.h5", 3).read_bytes()
    (tmp_path / "many").mkdir()
    for number in range(600):
        (tmp_path / "many" / f"{number}.h5").write_bytes(content)
    script = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        import hepfeed as hf

        dataset = hf.EventDataset([[sys.argv[1] + "/many", ["image", "id"], "a"]])
        for num_workers in (0, 2):
            with hf.DataLoader(dataset, 500, True, num_workers=num_workers, seed=1) as loader:
                events = [tuple(event) for batch in loader for event in batch["event"].tolist()]
            print(len(events), len(set(events)), len(dataset.files))
    """
    assert run_script(script, tmp_path).split() == ["1800", "1800", "600"] * 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_memory_and_descriptors_stay_flat_over_fifteen_epochs(tmp_path, num_workers):
    samples = write_classes(tmp_path, {"a": [300, 200], "b": [400]}, layout="all_filters", shape=(40, 50))
    options = {"num_workers": num_workers, "persistent_workers": num_workers > 0, "seed": 1}
    with hf.DataLoader(hf.EventDataset(samples), 64, True, **options) as loader:
        used = []
        for _ in range(15):
            assert sum(len(batch["label"]) for batch in loader) == 900
            gc.collect()
            processes = [psutil.Process(), *psutil.Process().children()]
            memory = sum(process.memory_info().rss for process in processes)
            used.append((memory, sum(process.num_fds() for process in processes)))
    memory, descriptors = zip(*used[3:], strict=True)
    assert len(set(descriptors)) == 1
    assert max(memory[-5:]) - max(memory[:5]) < 4 << 20  # an epoch is 7 MB


def test_readers_that_come_and_go_leave_no_descriptor(tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"a": [40]}))
    counts = []
    for _ in range(5):
        list(hf.DataLoader(dataset, 16, num_workers=2))
        counts.append(len(os.listdir("/proc/self/fd")))
    assert len(set(counts)) == 1


def test_a_consumer_that_keeps_every_batch_needs_a_bounded_ring(tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"a": [640]}))
    with hf.DataLoader(dataset, 8, num_workers=1, persistent_workers=True) as loader:
        kept = list(loader)
        assert len(kept) == 80
        assert loader.stats()["copies"] >= 70  # beyond a few leases, batches are copied out of the ring
