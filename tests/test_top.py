"""What feeds that run tell of themselves: their files, `hepfeed top`, and `watch=True` in a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import textwrap
import time
import urllib.request

import psutil
import pytest
from events import KEYS, write_classes
from rich.console import Console
from typer.testing import CliRunner

import hepfeed as hf
from hepfeed.cli import app
from hepfeed.errors import ResourceError, SourceError, SpecError
from hepfeed.live_files import Snapshot, directories, read_snapshots, write_snapshot
from hepfeed.live_view import FeedView, sparkline
from hepfeed.stats import StageClock
from hepfeed.stats_table import bar

DEADLINE_S = 60

RUNNING = """
    import multiprocessing, os, sys, time
    from hepfeed.live import publish
    from hepfeed.stats import StageClock

    clocks = []

    def run(name, for_s=600.0):
        clock = StageClock(listeners=[publish])
        clocks.append(clock)
        clock.name = name
        clock.start()
        clock.counts["events"] = 7
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            clock.begin()
            time.sleep(0.05)

    if __name__ == "__main__":
        run("first", 0.6)
        {main}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory for the files, which is not there yet."""
    monkeypatch.setenv("HEPFEED_TOP_DIR", str(tmp_path / "top"))
    return tmp_path / "top"


@pytest.fixture
def dataset(tmp_path):
    return hf.EventDataset(write_classes(tmp_path / "files", {"a": [40], "b": [40]}))


def top(*arguments):
    """Run ``hepfeed top``; returns what it printed, and raises what it raised."""
    result = CliRunner().invoke(app, ["top", *map(str, arguments)], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def wait_for(what):
    """Return what something returns, once it is true."""
    end = time.monotonic() + DEADLINE_S
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def feed_until_told(*loaders):
    """Ask loaders for batches until all of them are published; returns their iterators."""
    iterators = [iter(loader) for loader in loaders]

    def told():
        for iterator in iterators:
            next(iterator)
        mine = [each for each in read_snapshots() if each.pid == os.getpid()]
        return mine and len(mine[0].loaders) == len(loaders)

    wait_for(told)
    return iterators


# ---- what a process tells


def test_a_feed_is_told_of_while_it_runs_and_no_more_once_it_is_closed(dataset, place):
    with (
        hf.DataLoader(dataset, 8, num_workers=1, infinite=True) as one,
        hf.DataLoader(range(10**9), 8) as other,
        hf.DataLoader(dataset, 8, infinite=True) as third,
    ):
        iterators = feed_until_told(one, other, third)
        (snapshot,) = read_snapshots()
        assert set(snapshot.loaders) == {"EventDataset", "range", "EventDataset 2"}
        assert all(psutil.Process(pid).ppid() == os.getpid() for pid in snapshot.readers)
        assert len(snapshot.readers) == 1
        for name, loader in (("EventDataset", one), ("range", other), ("EventDataset 2", third)):
            assert 0 < snapshot.loaders[name]["batches"] <= loader.stats()["batches"]
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        (file,) = place.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        one.close()
        assert len(iterators) == 3
        (snapshot,) = read_snapshots()
        assert set(snapshot.loaders) == {"range", "EventDataset 2"}
    assert list(place.iterdir()) == []


def test_a_loader_that_died_is_told_of_no_more(dataset, place):
    loader = hf.DataLoader(dataset, 8, infinite=True)
    feed_until_told(loader)
    del loader
    assert wait_for(lambda: list(place.iterdir()) == [])


def test_a_provider_tells_of_its_parts_by_name(dataset, place):
    with hf.DataProvider(dataset.spec, 8, num_workers=0, cache=None, splits={"train": 0.5, "val": 0.5}) as provider:

        def told():
            for name in provider:
                list(provider[name])
            return [each for each in read_snapshots() if len(each.loaders) == 2]

        (snapshot,) = wait_for(told)
    assert set(snapshot.loaders) == {"train", "val"}


def test_files_do_not_grow(dataset, place):
    with hf.DataLoader(dataset, 8, infinite=True) as loader:
        (iterator,) = feed_until_told(loader)
        (file,) = place.iterdir()
        size, written = file.stat().st_size, file.stat().st_mtime_ns
        wait_for(lambda: next(iterator) and file.stat().st_mtime_ns > written)
        assert file.stat().st_size < size + 200


def test_a_few_requests_are_not_told_of(dataset, place):
    with hf.DataLoader(dataset, 40) as loader:
        for _ in range(2):
            next(iter(loader))
        assert not place.exists()


@pytest.mark.parametrize("trouble", ["off", "mode", "link", "file"])
def test_where_nothing_can_be_told_the_feed_goes_on(dataset, place, monkeypatch, trouble):
    if trouble == "off":
        monkeypatch.setenv("HEPFEED_TOP", "0")
    elif trouble == "mode":
        place.mkdir(0o755)
    elif trouble == "link":
        (place.parent / "elsewhere").mkdir(0o700)
        place.symlink_to("elsewhere")
    else:
        place.write_text("")
    with hf.DataLoader(dataset, 8) as loader:
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            assert len(list(loader)) == 10
    assert not place.is_dir() or list(place.iterdir()) == []
    if trouble == "off":
        assert not place.exists()
        return
    with pytest.raises(SourceError, match="mode 0700") as error:
        read_snapshots()
    assert error.value.file == str(place)


def test_the_directory_is_the_session_s_or_the_user_s_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("HEPFEED_TOP_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    own = tmp_path / f"hepfeed-{os.geteuid()}"
    assert directories() == [own]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert directories() == [tmp_path / "hepfeed", own]
    monkeypatch.setenv("HEPFEED_TOP_DIR", "/elsewhere")
    assert [str(path) for path in directories()] == ["/elsewhere"]


def snapshot(**changes):
    """Return what this process might tell."""
    fields = {
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "command": "python train.py",
        "written": time.time(),
        "readers": [],
        "loaders": {"train": StageClock().report()},
        "host": socket.gethostname(),
    }
    return Snapshot(**{**fields, **changes})


def test_files_of_processes_that_are_gone_are_removed(place):
    gone = write_snapshot(snapshot(created=psutil.Process().create_time() - 1000))  # the number is another's by now
    assert read_snapshots() == []
    assert not gone.exists()
    elsewhere = write_snapshot(snapshot(host="elsewhere"))
    later = write_snapshot(snapshot(version=99))
    (place / "notes.txt").write_text("")
    left = place / f"{socket.gethostname()}-1.tmp"
    left.write_text("{")
    os.utime(left, (1, 1))
    assert read_snapshots() == []
    assert {path.name for path in place.iterdir()} == {elsewhere.name, later.name, "notes.txt"}
    later.write_text("{")
    assert read_snapshots() == []
    write_snapshot(snapshot())
    assert [each.command for each in read_snapshots()] == ["python train.py"]


def test_a_killed_process_leaves_a_file_that_is_cleaned(place, start_script):
    process = start_script(RUNNING.format(main="run('second')"))
    (found,) = wait_for(lambda: place.exists() and [each for each in read_snapshots() if len(each.loaders) == 2])
    assert found.pid == process.pid
    process.kill()
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert len(list(place.iterdir())) == 1
    assert top() == "no process of yours feeds events\n"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_multiprocessing_starts_tell_and_clean_up(place, start_script, method):
    main = f"""
        context = multiprocessing.get_context("{method}")
        child = context.Process(target=run, args=("second", 1.5))
        child.start()
        print(child.pid, flush=True)
        child.join()
        print("joined", flush=True)
        sys.stdin.readline()
    """
    process = start_script(RUNNING.format(main=main.strip()), stdin=subprocess.PIPE)
    child = int(process.stdout.readline())
    found = wait_for(lambda: (both := read_snapshots()) and len(both) == 2 and both)
    assert {each.pid: set(each.loaders) for each in found}[child] == {"second"}
    assert process.stdout.readline() == "joined\n"
    assert [path.name for path in place.iterdir()] == [f"{socket.gethostname()}-{process.pid}.json"]
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert list(place.iterdir()) == []


# ---- hepfeed top


def test_one_picture_shows_stages_queues_and_advice(dataset, place):
    with hf.DataLoader(dataset, 8, num_workers=1, infinite=True) as loader:
        iterators = feed_until_told(loader)
        shown = top("--once")
        (figures,) = json.loads(top(os.getpid(), "--json"))
        text = top("--prometheus")
    assert len(iterators) == 1
    for said in (f"process {os.getpid()}", "1 reader:", "MB", "EventDataset", "inflate", "in hand", "slots"):
        assert said in shown
    (stats,) = figures["loaders"].values()
    assert stats["advice"].split(":")[0] in shown
    assert f"{stats['events']:,} events in {stats['batches']:,} batches" in shown
    assert figures["pid"] == os.getpid()
    assert f'hepfeed_events_total{{loader="{os.getpid()} EventDataset"}}' in text


def test_several_processes_are_listed(place):
    write_snapshot(snapshot())
    parent = psutil.Process().parent()
    write_snapshot(snapshot(pid=parent.pid, created=parent.create_time(), command="python other.py"))
    shown = top()
    for said in (str(os.getpid()), str(parent.pid), "train", "none", "python other.py", "hepfeed top PID"):
        assert said in shown
    assert "python other.py" not in top(os.getpid(), "--once")


def test_a_process_without_a_feed_is_an_error_that_says_which_have_one(place):
    with pytest.raises(SpecError, match="process 1 is not known to feed events, and no other of yours"):
        top(1)
    write_snapshot(snapshot())
    with pytest.raises(SpecError, match=f"there is no process {2**22 + 1}; those that feed are {os.getpid()}"):
        top(2**22 + 1)  # more than the system gives
    with pytest.raises(SpecError, match=f"process 1 is not known to feed events, but {os.getpid()} "):
        top(1)


def test_only_one_thing_can_be_done(place):
    with pytest.raises(SpecError, match="give one of them"):
        top("--once", "--json")


def test_a_process_is_followed_to_its_end(place, start_script):
    process = start_script(RUNNING.format(main="run('second', 1.5)"))
    wait_for(lambda: place.exists() and read_snapshots())
    shown = top("--interval", "0.2")
    assert shown.endswith(f"process {process.pid} has ended\n")
    assert "second" in shown
    assert process.wait(DEADLINE_S) == 0


def test_prometheus_can_ask_until_ctrl_c(place):
    write_snapshot(snapshot())
    program = "from hepfeed.cli import main; main()"
    command = [sys.executable, "-c", program, "top", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as server:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        text = urllib.request.urlopen(address).read().decode()
        server.send_signal(signal.SIGINT)
        assert server.wait(DEADLINE_S) == 0
    assert f'hepfeed_batches_total{{loader="{os.getpid()} train"}} 0.0' in text


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("localhost", SpecError, "must be ADDRESS:PORT"),
        ("127.0.0.1:99999", SpecError, "must be ADDRESS:PORT"),
        ("127.0.0.1:{taken}", ResourceError, "choose another port"),
    ],
    ids=["no port", "large port", "taken port"],
)
def test_a_place_where_nobody_can_listen_is_an_error(place, address, error, message):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(error, match=message):
        top("--listen", address.format(taken=taken.getsockname()[1]))


def view(look, **loaders):
    """Return the text of one more look."""
    console = Console(width=150)
    with console.capture() as captured:
        console.print(look(loaders))
    return captured.get()


def test_each_picture_is_of_the_time_since_the_one_before():
    look, clock, now = FeedView().look, StageClock(lambda: now[0]), [0.0]
    clock.readers = 2
    clock.start(running := Running())
    clock.counts["events"], clock.counts["batches"], now[0] = 1000, 10, 10.0
    clock.begin()
    assert "100 events/s  █  1,000 events in 10 batches" in view(look, train=clock.report())
    clock.counts["events"], clock.counts["batches"], now[0] = 1400, 14, 11.0
    clock.begin()
    shown = view(look, train=clock.report())
    assert "400 events/s  ▃█  1,400 events in 14 batches" in shown
    assert "inflate" in shown
    assert view(look, train=clock.report()) == shown  # a step that takes long
    del running
    for _ in range(2):
        assert view(look, train=clock.report()) == "train  idle  ▃█▁  1,400 events in 14 batches\n"
    other = StageClock()
    assert view(look, train=other.report()).startswith("train  idle")


@pytest.mark.parametrize(("width", "bars", "says_who"), [(80, True, True), (52, True, False), (34, False, False)])
def test_a_narrow_terminal_shows_all_figures_and_shorter_bars(width, bars, says_who):
    clock, now, running = StageClock(lambda: now[0]), [0.0], Running()
    clock.readers = 2
    clock.start(running)
    clock.add_transform(3.0, reader=1)
    now[0] = 10.0
    clock.begin()
    console = Console(width=width)
    with console.capture() as captured:
        console.print(clock.report())
    shown = captured.get()
    for said in (
        "read ",
        "inflate ",
        "scatter ",
        "transform ",
        "waiting ",
        "wait ",
        "transfer ",
        "3.000",
        "15 %",
        "1 of 7",
    ):
        assert said in shown
    assert ("█" in shown, "this process" in shown) == (bars, says_who)


class Running:
    """An epoch that runs."""

    reader_pids = ()

    def queues(self):
        return {"planned": 1, "in_hand": 2, "ready": 3, "slots": 7, "slots_free": 1}


def test_a_bar_is_full_at_one_and_a_line_as_high_as_its_largest_value():
    assert [bar(part, 4) for part in (0, 0.5, 0.78125, 1, 2)] == ["    ", "██  ", "███▏", "████", "████"]
    assert sparkline([0, 1, 2, 4]) == "▁▃▅█"
    assert sparkline([0.0, 0.0]) == "▁▁"


# ---- watch=True

WATCHED = f"""
    import sys, time
    import hepfeed as hf

    def go(loader, for_s, fail=False):
        end = time.monotonic() + for_s
        for batch in loader:
            print("batch", flush=True)
            time.sleep(0.05)
            if time.monotonic() > end:
                if fail:
                    raise RuntimeError("in the loop")
                return

    def say(what):
        print(what, file=sys.stderr, flush=True)

    if __name__ == "__main__":
        samples = [[sys.argv[1] + "/a/*.h5", {KEYS}, "a"]]
        provider = hf.DataProvider(samples, 4, splits={{"train": 1.0}}, num_workers=0, cache=None, watch=True)
        provider.train.infinite = True
        say("BEGIN")
        go(provider.train, 0.8)
        say("LEFT")
        try:
            go(provider.train, 0.8, fail=True)
        except RuntimeError:
            say("CAUGHT")
        other = hf.DataLoader(range(10**6), 4, watch=True)
        go(other, 0.8, fail=True)
"""
FRAME = "events/s"


def test_the_view_is_in_the_terminal_while_a_loop_runs_and_no_longer(dataset, place):
    terminal, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        before = termios.tcgetattr(theirs)
        files = os.path.dirname(os.path.dirname(dataset.files[0]))
        command = [sys.executable, "-c", textwrap.dedent(WATCHED), files]
        environment = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, cwd="/") as process:
            shown, printed = _read(terminal, process)
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(terminal)
        os.close(theirs)
    assert process.returncode == 1
    assert set(printed.splitlines()) == {"batch"}  # what goes to a file is left alone
    start, *loops = re.split("BEGIN|LEFT|CAUGHT", shown)
    assert FRAME not in start
    assert len(loops) == 3
    for name, loop in zip(("train", "train", "range"), loops):
        assert FRAME in loop
        assert f"{name}" in loop
        assert loop.count("\x1b[?25h") >= loop.count("\x1b[?25l")
        last = loop.rindex("transfer")
        assert "\x1b[2K" in loop[last:]  # what was drawn is taken away
    assert "RuntimeError: in the loop" in loops[2]
    assert "RuntimeError" not in loops[1]


def _read(terminal, process):
    """Return what a process wrote to the terminal and to its standard output."""
    shown, printed = b"", b""
    end = time.monotonic() + DEADLINE_S
    sources = {terminal, process.stdout.fileno()}
    while process.poll() is None or len(sources) > 1:
        assert time.monotonic() < end
        ready, _, _ = select.select(sources, [], [], 0.1)
        if terminal in ready:
            shown += os.read(terminal, 65536)
        if process.stdout.fileno() in ready:
            more = os.read(process.stdout.fileno(), 65536)
            printed += more
            sources -= set() if more else {process.stdout.fileno()}
    while select.select([terminal], [], [], 0)[0]:
        shown += os.read(terminal, 65536)
    return shown.decode(), printed.decode()


def test_nothing_is_drawn_where_there_is_no_terminal(dataset, place, capfd):
    with hf.DataLoader(dataset, 8, infinite=True, watch=True) as loader:
        (iterator,) = feed_until_told(loader)
        before = iterator.position.batch  # all else is that of the iterator itself
        assert len(next(iterator)["label"]) == 8
        assert iterator.position.batch == before + 1
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
