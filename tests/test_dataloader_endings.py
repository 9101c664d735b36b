"""However the consumer ends, hepfeed's readers are gone within two seconds, and nobody hears of it."""

import os
import signal

import psutil
import pytest
from loader_datasets import Images
from processes import in_shared_memory

import hepfeed as hf

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(120),
]

GONE_TIMEOUT_S = 2.0

LOOP = """
    import os, sys, time
    import torch
    from hepfeed import DataLoader

    class Endless(torch.utils.data.Dataset):
        def __len__(self):
            return 10**6

        def __getitem__(self, index):
            if index == int(os.environ.get("SLOW_INDEX", -1)):
                time.sleep(1000)
            return torch.full((1000,), float(index))

    def main():
        loader = DataLoader(Endless(), 4, num_workers=2, persistent_workers=sys.argv[1] == "persistent")
        iterator = iter(loader)
        for number, batch in enumerate(iterator):
            if number == 3:
                print(*(worker.pid for worker in iterator._workers), flush=True)
                {action}
            time.sleep(0.001)

    if __name__ == "__main__":
        main()
"""


@pytest.fixture
def start_loop(start_script):
    """Start a script with an endless loop that does something once it runs; its process, and its readers."""

    def start(action="pass", kind="fresh", **options):
        process = start_script(LOOP.replace("{action}", action), kind, **options)
        readers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(readers) == 2, process.communicate()[1]
        return process, [psutil.Process(pid) for pid in readers if psutil.pid_exists(pid)]

    return start


def assert_gone(processes):
    """Processes have ended within two seconds; an orphan may wait as a zombie for the init process."""
    _, alive = psutil.wait_procs(processes, GONE_TIMEOUT_S)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("kind", ["fresh", "persistent"])
def test_no_reader_outlives_a_consumer_that_was_killed(start_loop, kind):
    process, readers = start_loop(kind=kind)
    os.kill(process.pid, signal.SIGKILL)
    assert_gone(readers)
    assert process.wait(10) == -signal.SIGKILL
    assert in_shared_memory([process.pid, *(reader.pid for reader in readers)]) == []


def test_no_reader_that_is_busy_outlives_a_consumer_that_was_killed(start_loop):
    process, readers = start_loop(env={"SLOW_INDEX": "20"})
    os.kill(process.pid, signal.SIGKILL)
    assert_gone(readers)


@pytest.mark.parametrize("kind", ["fresh", "persistent"])
def test_the_interrupt_of_a_terminal_ends_all_with_one_traceback(start_loop, kind):
    process, readers = start_loop(kind=kind)
    os.killpg(process.pid, signal.SIGINT)
    assert_gone(readers)
    _, err = process.communicate(timeout=10)
    assert process.returncode in (1, 130, -signal.SIGINT)
    assert err.strip().endswith("KeyboardInterrupt")
    assert err.count("Traceback (most recent call last)") == 1


def test_the_end_of_a_supervisor_ends_all(start_loop):
    process, readers = start_loop()
    os.kill(process.pid, signal.SIGTERM)
    assert_gone(readers)
    assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("action", "kind", "code", "last_line"),
    [
        ("break", "persistent", 0, ""),
        ("sys.exit(5)", "persistent", 5, ""),
        ("os._exit(7)", "fresh", 7, ""),
        ("raise ArithmeticError('loss is NaN')", "fresh", 1, "ArithmeticError: loss is NaN"),
    ],
    ids=["break", "exit", "hard exit", "error"],
)
def test_a_script_that_leaves_its_loop_ends_in_silence(start_loop, action, kind, code, last_line):
    process, readers = start_loop(action, kind)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert_gone(readers)
    lines = err.splitlines()
    assert (lines[-1:] or [""])[0] == last_line
    assert err.count("Traceback") == (1 if last_line else 0)
    assert last_line or not lines


# ---- within a process that goes on


def children():
    """The child processes that run, and those that nobody has asked for."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_a_loop_that_is_left_early_leaves_no_process_and_no_zombie():
    before = children()
    for _ in hf.DataLoader(Images(50), num_workers=2):
        assert len(children() - before) == 2
        break
    assert children() == before


def test_a_loader_that_is_deleted_takes_its_persistent_readers_along():
    before = children()
    loader = hf.DataLoader(Images(4), num_workers=2, persistent_workers=True)
    assert len(list(loader)) == 4
    assert len(children() - before) == 2
    del loader
    assert children() == before


def test_a_loader_that_is_closed_has_no_readers():
    before = children()
    with hf.DataLoader(Images(4), num_workers=2, persistent_workers=True) as loader:
        assert len(list(loader)) == 4
        assert len(children() - before) == 2
    assert children() == before


def test_an_iterator_that_is_deleted_ends_its_readers():
    before = children()
    iterator = iter(hf.DataLoader(Images(50), num_workers=2))
    kept = next(iterator)
    del iterator
    assert children() == before
    assert kept[1].tolist() == [0]


@pytest.mark.usefixtures("multiprocessing_helpers")
def test_a_failed_start_leaves_nothing():
    before = children()

    class Unwilling(Images):
        def __reduce__(self):
            raise TypeError("not me")

    loader = hf.DataLoader(Unwilling(4), num_workers=2, multiprocessing_context="spawn")
    with pytest.warns(UserWarning, match="pickle error"), pytest.raises(TypeError, match="not me"):
        iter(loader)
    assert children() == before
