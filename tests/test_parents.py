"""The process that feeds may itself be started by fork, spawn or forkserver, and be daemonic or threaded."""

import hashlib
import sys

import pytest
from events import KEYS, write_classes

import hepfeed as hf

SCRIPT = """
    import hashlib, multiprocessing, sys
    import hepfeed as hf

    FEED = {feed}

    def epoch(folder, num_workers):
        samples = [[folder + "/" + label, FEED, label] for label in ("a", "b")]
        digest = hashlib.sha256()
        loader = hf.DataLoader(hf.EventDataset(samples), 16, True, num_workers=num_workers, seed=4)
        for batch in loader:
            for name in sorted(batch):
                digest.update(batch[name].numpy().tobytes())
        return digest.hexdigest()

    def report(folder, num_workers, results):
        results.put(epoch(folder, num_workers))

    if __name__ == "__main__":
        {main}
"""

STARTED = """
        context = multiprocessing.get_context(sys.argv[2])
        results = context.Queue()
        if sys.argv[2] == "fork":
            before = epoch(sys.argv[1], 0)  # the parent fed, too
        child = context.Process(target=report, args=(sys.argv[1], 2, results))
        child.start()
        print(results.get(timeout=60))
        child.join()
        sys.exit(child.exitcode)
"""

THREADED = """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(3) as pool:
            print(*set(pool.map(lambda _: epoch(sys.argv[1], 2), range(3))))
"""

INHERITED = """
        import os
        samples = [[sys.argv[1] + "/" + label, FEED, label] for label in ("a", "b")]
        loader = hf.DataLoader(hf.EventDataset(samples), 16, True, num_workers=2, persistent_workers=True, seed=4)
        iterator = iter(loader)
        next(iterator)
        if os.fork() == 0:  # the child's copy of the loader starts readers of its own
            loader.set_epoch(0)
            digest = hashlib.sha256()
            for batch in loader:
                for name in sorted(batch):
                    digest.update(batch[name].numpy().tobytes())
            print(digest.hexdigest(), flush=True)
            loader.close()
            os._exit(0)
        assert os.wait()[1] == 0
        assert len(list(iterator)) == len(loader) - 1  # and leaves the parent's alone
"""


def script(main):
    return SCRIPT.format(feed=KEYS, main=main.strip())


@pytest.fixture
def files(tmp_path):
    """Two classes, in the directories ``a`` and ``b`` of the one that is returned."""
    write_classes(tmp_path, {"a": [60, 40], "b": [90]}, layout="all_filters")
    return tmp_path


@pytest.fixture
def expected(files):
    """The digest of an epoch that this process reads itself."""
    samples = [[str(files / label), KEYS, label] for label in "ab"]
    digest = hashlib.sha256()
    for batch in hf.DataLoader(hf.EventDataset(samples), 16, True, seed=4):
        for name in sorted(batch):
            digest.update(batch[name].numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_parent_started_in_any_way_feeds_the_same_bits(files, run_script, expected, method):
    assert run_script(script(STARTED), files, method).split() == [expected]


def test_several_threads_may_feed_at_once(files, run_script, expected):
    assert run_script(script(THREADED), files).split() == [expected]


def test_a_forked_copy_of_a_loader_feeds_the_same_bits(files, run_script, expected):
    assert run_script(script(INHERITED), files).split() == [expected]


def test_functions_of_the_main_script_reach_the_readers(files, run_script):
    main = """
        import numpy as np
        SCALE = 3

        def scale(batch):
            return {"energy": batch["energy"] * SCALE, "power": np.float32(1).dtype.itemsize}

        samples = [[sys.argv[1] + "/a", FEED, "a"]]
        loader = hf.DataLoader(hf.EventDataset(samples), 100, num_workers=1, process_fn=scale)
        print(next(iter(loader))["energy"][:3].tolist())
    """
    assert run_script(script(main), files).strip() == "[0.0, 3.0, 6.0]"


def test_a_script_without_a_main_guard_does_not_start_itself_again(files, run_script):
    unguarded = """
        import sys
        import hepfeed as hf

        print("started")
        loader = hf.DataLoader(hf.EventDataset([[sys.argv[1] + "/a", ["image"], "a"]]), 100, num_workers=2)
        print(len(list(loader)))
    """
    assert run_script(unguarded, files).split() == ["started", "1"]


def test_the_interpreter_of_the_readers_is_that_of_the_parent(files):
    def which(batch):
        import sys

        return {"executable": sys.executable, "version": list(sys.version_info[:3])}

    dataset = hf.EventDataset([[str(files / "a"), KEYS, "a"]])
    with hf.DataLoader(dataset, 100, num_workers=1, process_fn=which) as loader:
        (batch,) = loader
    assert batch["executable"] == sys.executable
    assert batch["version"].tolist() == list(sys.version_info[:3])
