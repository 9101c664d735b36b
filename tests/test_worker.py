"""A helper process that answers calls, and ends with its parent or its socket."""

import os
import select
import sys
import time

import psutil
import pytest
from processes import children_of

from hepfeed.errors import HepfeedError, KeyMissingError, ProcessError, ReaderError
from hepfeed.worker import Worker, call_everywhere, note, resolve


class Target:
    """What the workers of these tests build."""

    def __init__(self, start=0):
        self.start = start

    def add(self, amount):
        return self.start + amount

    def pid(self):
        return os.getpid()

    def large(self, size):
        return bytes(size)

    def size(self, data):
        return len(data)

    def fail(self, message):
        raise KeyMissingError(message, file="a.h5", key="ECAL", event=3)

    def odd(self):
        class OddError(Exception):
            pass

        raise OddError("it does not pickle")

    def modules(self):
        return "torch" in sys.modules

    def read(self, descriptor):
        return os.read(descriptor, 10)

    def die(self):
        os.kill(os.getpid(), 9)

    def hang(self):
        time.sleep(600)


@pytest.fixture
def start(monkeypatch):
    """Start workers that find this module as ``test_worker``."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    workers = []

    def start(*args, descriptors=()):
        workers.append(Worker("test_worker:Target", args, descriptors))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def replies(worker, count):
    """Wait for a number of replies."""
    found = []
    while len(found) < count:
        select.select([worker], [worker] if worker.has_unsent else [], [], 30)
        worker.flush()
        some = worker.receive()
        if some is None:
            return None
        found += some
    return found


def test_calls_are_answered_in_their_order_with_their_numbers(start):
    worker = start(100)
    for number in (7, 3, 9):
        worker.call(number, "add", number)
    assert replies(worker, 3) == [(7, True, 107), (3, True, 103), (9, True, 109)]


def test_a_worker_is_another_process_without_torch(start):
    worker = start()
    worker.call(1, "pid")
    worker.call(2, "modules")
    assert replies(worker, 2) == [(1, True, worker.pid), (2, True, False)]
    assert worker.pid != os.getpid()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the system has no such policy")
@pytest.mark.parametrize(("policy", "expected"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")])
def test_a_worker_takes_no_core_from_what_runs_and_leaves_what_the_user_chose(start_script, policy, expected):
    script = """
        import os, sys
        from hepfeed.worker import Worker
        os.sched_setscheduler(0, getattr(os, sys.argv[1]), os.sched_param(0))
        worker = Worker("hepfeed.worker:Functions")
        worker.call(1, "call", "os:sched_getscheduler", 0)
        while not (replies := worker.receive()):
            pass
        print(replies[0][2], flush=True)
        worker.close()
    """
    process = start_script(script, policy)
    assert int(process.stdout.readline()) == getattr(os, expected)


def test_an_error_arrives_with_its_type_fields_and_traceback(start):
    worker = start()
    worker.call(1, "fail", "no such key")
    ((number, succeeded, error),) = replies(worker, 1)
    assert (number, succeeded) == (1, False)
    assert type(error) is KeyMissingError
    assert (error.message, error.file, error.key, error.event) == ("no such key", "a.h5", "ECAL", 3)
    assert isinstance(error.__cause__, ProcessError)
    assert "in fail" in str(error.__cause__)


def test_an_error_that_does_not_pickle_arrives_as_text(start):
    worker = start()
    worker.call(1, "odd")
    ((_, _, error),) = replies(worker, 1)
    assert type(error) is ProcessError
    assert "OddError: it does not pickle" in str(error)
    assert "Traceback" in str(error)


def test_a_target_that_can_not_be_built_is_reported(start):
    worker = start(1, 2, 3)
    ((number, succeeded, error),) = replies(worker, 1)
    assert (number, succeeded) == (-1, False)
    assert "positional argument" in str(error)


def test_large_messages_pass_both_ways_while_both_are_busy(start):
    worker = start()
    data = bytes(8 << 20)
    for number in range(3):
        worker.call(number, "size", data)
        worker.call(number + 10, "large", 8 << 20)
    assert worker.has_unsent  # the socket can't take them: the sender is not blocked
    found = {number: value for number, _, value in replies(worker, 6)}
    assert [found[number] for number in range(3)] == [8 << 20] * 3
    assert {len(found[number]) for number in (10, 11, 12)} == {8 << 20}


def test_descriptors_keep_their_numbers(start):
    reading, writing = os.pipe()
    worker = start(descriptors=[reading])
    os.write(writing, b"events")
    worker.call(1, "read", reading)
    assert replies(worker, 1) == [(1, True, b"events")]
    os.close(reading)
    os.close(writing)


def test_a_dead_worker_is_noticed_at_once(start):
    worker = start()
    worker.call(1, "add", 1)
    worker.call(2, "die")
    assert replies(worker, 1) == [(1, True, 1)]
    assert replies(worker, 1) is None
    worker.close()
    assert worker.exit_code == -9
    worker.call(3, "add", 1)  # neither an error nor a wait
    assert not worker.has_unsent


def test_closing_lets_the_worker_end_by_itself(start):
    worker = start()
    worker.close()
    assert worker.exit_code == 0


def test_a_hanging_worker_is_killed_by_close(start):
    worker = start()
    worker.call(1, "add", 1)
    assert replies(worker, 1)
    worker.call(2, "hang")
    worker.close(timeout_s=0.2)
    assert worker.exit_code == -9


def test_a_forked_copy_does_not_end_the_worker(start):
    worker = start()
    pid = os.fork()
    if pid == 0:
        worker.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    worker.call(1, "add", 1)
    assert replies(worker, 1) == [(1, True, 1)]


def test_an_interrupt_of_the_terminal_is_not_the_workers(start):
    worker = start()
    worker.call(1, "add", 1)
    replies(worker, 1)
    os.kill(worker.pid, 2)
    worker.call(2, "add", 2)
    assert replies(worker, 1) == [(2, True, 2)]


def test_a_worker_ends_with_its_parent_though_a_sibling_holds_the_socket(start_script):
    script = """
        import os, sys, time
        from hepfeed.worker import Worker
        worker = Worker("hepfeed.worker:Functions")
        if os.fork() == 0:  # keeps the parent's end of the socket open
            time.sleep(20)
            os._exit(0)
        print(worker.pid, flush=True)
        time.sleep(60)
    """
    process = start_script(script)
    worker = psutil.Process(int(process.stdout.readline()))
    sibling = next(c for c in psutil.Process(process.pid).children() if c.pid != worker.pid)
    os.kill(process.pid, 9)
    worker.wait(5)
    sibling.kill()
    sibling.wait(5)


# ---- calls everywhere


def square(number):
    """Return the square, or fail for 13."""
    if number == 13:
        raise ValueError("unlucky")
    note(number)
    return number * number


def leave(number):
    """End the process."""
    os._exit(number)


@pytest.fixture
def here(monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    return "test_worker:"


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_call_is_answered_once(here, workers):
    notes = []
    found = list(call_everywhere(here + "square", [(n,) for n in range(12)], workers, notes.append))
    assert sorted(found) == [(n, True, n * n) for n in range(12)]
    assert sorted(notes) == list(range(12))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_call_is_an_answer_too(here, workers):
    good, bad = sorted(call_everywhere(here + "square", [(12,), (13,)], workers), key=lambda reply: reply[0])
    assert good == (0, True, 144)
    assert bad[:2] == (1, False)
    assert type(bad[2]) is ValueError
    assert str(bad[2]) == "unlucky"


def test_a_process_that_dies_is_an_error_with_its_code(here):
    with pytest.raises(ReaderError, match=r"a process that ran test_worker:leave ended with code 5"):
        list(call_everywhere(here + "leave", [(5,), (5,)], 2))


def test_calls_that_nobody_waits_for_any_more_are_ended():
    calls = call_everywhere("time:sleep", [(0,), (600,), (600,)], 2)
    assert next(calls) == (0, True, None)
    begun = children_of()
    assert begun
    calls.close()
    assert not [child for child in begun if child.is_running()]


def test_a_name_is_resolved_to_what_it_stands_for():
    assert resolve("hepfeed.errors:HepfeedError") is HepfeedError
    with pytest.raises(AttributeError):
        resolve("hepfeed.errors:NoSuch")
