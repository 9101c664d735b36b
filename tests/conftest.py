"""What every test shares: an index file and caches of its own, and the check that it left nothing behind."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests import their helper `events`
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads cost every process that starts 0.1 s, and none is used

from processes import descendants

import hepfeed

HOME = str(Path(hepfeed.__file__).parents[1])


hypothesis.settings.register_profile("hepfeed", deadline=None)  # how long an example takes depends on what else runs
hypothesis.settings.load_profile("hepfeed")

_THREAD_GRACE_S = 2
_MOST_WORKERS = 4  # more wait for the longest file
_FONTS = (".ttf", ".otf")  # matplotlib keeps the fonts that it has drawn with open


def pytest_xdist_auto_num_workers(config):
    """Whole directories are shared out among processes; what was chosen runs in this one, which is easier to follow."""
    chosen = any(config.getoption(name, False) for name in ("keyword", "markexpr", "lf", "stepwise"))
    if chosen or not all(Path(argument).is_dir() for argument in config.args):
        return 0
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


def pytest_collection_finish(session):
    """Build what tests run on, outside of their time limits.

    Modules and tests stay: the garbage collection after a test that seems to leak need not look at them.
    """
    builds = {mark.args for item in session.items for mark in item.iter_markers("emulated")}
    if builds and not session.config.option.collectonly:
        import emulated

        emulated.prepare(builds)
    gc.collect()
    gc.freeze()


class Possessions:
    """The descriptors, child processes, threads, mapped rings and shared-memory files of this process."""

    def __init__(self):
        targets = {fd: _target(fd) for fd in os.listdir("/proc/self/fd")}
        self.descriptors = {fd: target for fd, target in targets.items() if target and not target.endswith(_FONTS)}
        self.children = descendants()
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
    return Path("/proc/self/maps").read_bytes().count(b"hepfeed-")


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


@pytest.fixture(scope="session", autouse=True)
def _index_and_caches_of_wide_fixtures(tmp_path_factory):
    """What fixtures for several tests read is not noted in the user's index."""
    place = tmp_path_factory.mktemp("wide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEPFEED_INDEX", str(place / "index.sqlite"))
        patch.setenv("HEPFEED_CACHE", str(place / "caches"))
        yield


_places = itertools.count()


@pytest.fixture(autouse=True)
def _own_index_and_cache(_nothing_leaks, request, tmp_path_factory, monkeypatch):
    """Name an index file and caches for each test, in its directory if it has one; most tests write neither."""
    if "tmp_path" in request.fixturenames:
        place = request.getfixturevalue("tmp_path")
    else:
        place = tmp_path_factory.getbasetemp() / "unasked" / str(next(_places))
    monkeypatch.setenv("HEPFEED_INDEX", str(place / "index.sqlite"))
    monkeypatch.setenv("HEPFEED_CACHE", str(place / "caches"))
    monkeypatch.setenv("HEPFEED_TOP_DIR", str(tmp_path_factory.getbasetemp() / "top"))


@pytest.fixture(params=["torch", "hepfeed"])
def Loader(request):
    """torch's ``DataLoader`` and then hepfeed's: what torch's own does not pass is not its contract."""
    import torch.utils.data

    return torch.utils.data.DataLoader if request.param == "torch" else hepfeed.DataLoader


@pytest.fixture(
    params=[pytest.param("emulated", marks=pytest.mark.emulated), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def backend(request, monkeypatch):
    """Where the functions of `hepfeed.device` run; see `backends`."""
    import backends

    found, trouble = backends.find(request.param)
    if found is None:
        pytest.skip(trouble)
    found.use(monkeypatch)
    return found


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
