"""What every test shares: an index file and caches of its own, and the check that it left nothing behind."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests import their helper `events`

import hepfeed

HOME = str(Path(hepfeed.__file__).parents[1])


_THREAD_GRACE_S = 2


class Possessions:
    """The descriptors, child processes, threads, mapped rings and shared-memory files of this process."""

    def __init__(self):
        self.descriptors = {fd: target for fd in os.listdir("/proc/self/fd") if (target := _target(fd))}
        self.children = {child.pid for child in psutil.Process().children(recursive=True)}
        self.threads = _threads()
        self.rings = _mapped_rings()
        self.shared = {name for name in os.listdir("/dev/shm") if name.startswith("hepfeed-")}

    def more_than(self, before):
        """Return in words what is here and was not there before."""
        found = [f"descriptor {fd} ({self.descriptors[fd]})" for fd in self.descriptors.keys() - before.descriptors]
        found += [f"process {pid}" for pid in self.children - before.children]
        found += [f"thread {thread.name}" for thread in self.threads - before.threads]
        found += [f"shared memory {name}" for name in self.shared - before.shared]
        if self.rings > before.rings:
            found.append(f"{self.rings - before.rings} mapped ring slots")
        return found


def _target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the descriptor of the listing itself
        return None


def _threads():
    """hepfeed's own threads; those of other packages are theirs to keep."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("hepfeed")}


def _mapped_rings():
    return sum("hepfeed-" in line for line in Path("/proc/self/maps").read_text().splitlines())


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _nothing_leaks(request):
    """Fail a test that leaves a descriptor, a process or shared memory behind."""
    if not os.path.isdir("/proc/self/fd"):
        yield
        return
    before, failures = Possessions(), request.session.testsfailed
    yield
    if request.session.testsfailed > failures:  # its traceback keeps everything alive
        return
    request.node.funcargs.clear()  # what the test's fixtures made is its own too
    found = Possessions().more_than(before)
    if found:
        gc.collect()
        for thread in _threads() - before.threads:
            thread.join(_THREAD_GRACE_S)
        found = Possessions().more_than(before)
    assert not found, "the test left behind: " + ", ".join(found)


@pytest.fixture(autouse=True)
def _own_index(_nothing_leaks, tmp_path, monkeypatch):
    monkeypatch.setenv("HEPFEED_INDEX", str(tmp_path / "index.sqlite"))


@pytest.fixture(autouse=True)
def _own_cache(_nothing_leaks, tmp_path, monkeypatch):
    monkeypatch.setenv("HEPFEED_CACHE", str(tmp_path / "caches"))


@pytest.fixture(params=["torch", "hepfeed"])
def Loader(request):
    """torch's ``DataLoader`` and then hepfeed's: what torch's own does not pass is not its contract."""
    import torch.utils.data

    return torch.utils.data.DataLoader if request.param == "torch" else hepfeed.DataLoader


@pytest.fixture(scope="session")
def multiprocessing_helpers():
    """The processes that multiprocessing keeps for itself are there before a test, so that none seems to leave them."""
    import multiprocessing.forkserver
    import multiprocessing.resource_tracker

    multiprocessing.resource_tracker.ensure_running()
    multiprocessing.forkserver.ensure_running()


@pytest.fixture
def start_script(tmp_path):
    """Start ``python script args`` with hepfeed on its path, in a session of its own; ended after the test."""
    started = []

    def start(script, *args, **options):
        path = tmp_path / f"script_{len(started)}.py"
        path.write_text(textwrap.dedent(script))
        inherited = os.environ.get("PYTHONPATH")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([HOME, *([inherited] if inherited else [])]),
            **options.pop("env", {}),
        }
        process = subprocess.Popen(
            [sys.executable, str(path), *map(str, args)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_script(start_script):
    """Run a script to its end and return what it printed; it must succeed."""

    def run(script, *args, **options):
        process = start_script(script, *args, **options)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out

    return run
