"""Memory of hepfeed's loader over any data set: batches are views of slots that stay theirs while they live."""

import gc
import itertools
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from conftest import HOME
from loader_datasets import Images, only_list
from same_batches import assert_same

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(120),
]


# ---- batches that are kept


@pytest.mark.parametrize("persistent", [False, True])
def test_batches_that_are_kept_never_change(persistent):
    loader = hf.DataLoader(Images(300), 2, num_workers=2, persistent_workers=persistent)
    kept = list(loader)
    for _ in loader:
        pass
    for number, (images, numbers) in enumerate(kept):
        assert numbers.tolist() == [2 * number, 2 * number + 1]
        assert images.unique().tolist() == [2 * number, 2 * number + 1]


def contents(view):
    """Return the bytes that a view shows now."""
    if isinstance(view, torch.Tensor):
        view = view.numpy()
    return bytes(view) if isinstance(view, torch.UntypedStorage) else np.array(view).tobytes()


@pytest.mark.parametrize(
    "part",
    [
        lambda batch: batch[0][1:, ::2],
        lambda batch: batch[0].numpy(),
        lambda batch: batch[0].untyped_storage(),
        lambda batch: batch[0].view(-1).unbind()[-1],
        lambda batch: memoryview(batch[0].numpy()),
    ],
    ids=["view", "array", "storage", "number", "buffer"],
)
def test_any_view_keeps_the_memory_of_its_batch(part):
    iterator = iter(hf.DataLoader(Images(80, (4, 6)), 2, num_workers=2))
    kept = part(next(iterator))
    before = contents(kept)
    for _ in iterator:
        pass
    assert contents(kept) == before


def test_arrays_that_are_kept_never_change():
    loader = hf.DataLoader([np.full(500, index) for index in range(200)], collate_fn=only_list, num_workers=2)
    for index, (array,) in enumerate(list(loader)):
        assert array.flags.writeable
        assert np.unique(array).tolist() == [index]


def test_batches_outlive_the_loader():
    loader = hf.DataLoader(Images(20), 5, num_workers=2)
    kept = list(loader)
    del loader
    gc.collect()
    assert [numbers.tolist() for _, numbers in kept] == [list(range(first, first + 5)) for first in (0, 5, 10, 15)]


def test_batches_of_very_different_sizes_come_whole():
    sizes = [1, 100_000, 3, 0, 2_000_000, 17]
    loader = hf.DataLoader([torch.full((size,), float(size)) for size in sizes], None, num_workers=2)
    for _ in range(2):
        assert_same(list(loader), [torch.full((size,), float(size)) for size in sizes])


def test_epochs_leave_no_memory_behind():
    loader = hf.DataLoader(Images(16, (64, 64)), 4, num_workers=1, persistent_workers=True)

    def size_after(epochs):
        for _ in range(epochs):
            for _ in loader:
                pass
        gc.collect()
        return psutil.Process().memory_full_info().uss

    before = size_after(30)
    assert size_after(30) - before < 30 << 20  # 30 epochs of 256 kB a batch


# ---- shared memory and descriptors


SCRIPT_HEAD = """
    import os, resource, sys
    import torch
    from hepfeed import DataLoader

    class Big(torch.utils.data.Dataset):
        def __init__(self, n, numbers):
            self.n, self.numbers = n, numbers

        def __len__(self):
            return self.n

        def __getitem__(self, index):
            return torch.full((self.numbers,), float(index))

    def collate(events):
        return {"stacked": torch.utils.data.default_collate(events), "own": torch.stack(events)}
"""

BIG = (
    SCRIPT_HEAD
    + """
    def main():
        total = 0.0
        for collate_fn in (None, collate):
            iterator = iter(DataLoader(Big(12, 500_000), 2, num_workers=2, collate_fn=collate_fn))
            pids = [os.getpid(), *(worker.pid for worker in iterator._workers)]
            for number, batch in enumerate(iterator):
                if number < 3:
                    assert not any("/dev/shm" in open(f"/proc/{pid}/maps").read() for pid in pids)
                    assert not any(f"_{pid}_" in name for pid in pids for name in os.listdir("/dev/shm"))
                for tensor in batch.values() if collate_fn else [batch]:
                    total += float(tensor.sum())
        print(total / 500_000)

    if __name__ == "__main__":
        main()
    """
)


def test_large_batches_take_no_room_in_dev_shm(run_script):
    assert run_script(BIG).split() == [str(3 * 66.0)]


def test_a_dev_shm_of_one_mebibyte_is_enough(tmp_path):
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no file systems can be mounted here: {probe.stderr.strip()}")
    script = tmp_path / "script.py"
    script.write_text("if True:\n" + BIG)
    command = f"{mount} && exec {sys.executable} {script}"
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, cwd="/", env=environment(), timeout=100
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(3 * 66.0)]


def environment():
    """This environment, with hepfeed on the path."""
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join([HOME, *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_twenty_readers_and_many_kept_batches_need_few_descriptors(run_script):
    script = (
        SCRIPT_HEAD
        + """
    def main():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        kept = list(DataLoader(Big(600, 10), num_workers=20))
        print(sum(int(batch[0, 0]) for batch in kept), len(kept))

    if __name__ == "__main__":
        import warnings
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        main()
    """
    )
    assert run_script(script).split() == [str(600 * 599 // 2), "600"]


def test_descriptors_do_not_grow_with_the_epochs():
    loader = hf.DataLoader(Images(8), 2, num_workers=2, persistent_workers=True)
    counts = []
    for _ in range(20):
        for _ in itertools.islice(loader, 3):
            pass
        counts.append(psutil.Process().num_fds())
    assert max(counts) < counts[0] + 8  # slots that the first epoch did not need
