"""A few processes that carry out tasks.

They are started as fresh interpreters that don't import the main module of the user, so that a script needs
no ``if __name__ == "__main__"`` and a notebook works; tasks travel by cloudpickle.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from hepfeed.errors import ProcessError, ResourceError

Report = Callable[[int], None]
Task = Callable[[Report], Any]

_PROGRAM = "import sys; from hepfeed.synthetic.pool import serve; serve(int(sys.argv[1]))"


def run_tasks(tasks: Sequence[Task], workers: int, report: Report) -> list[Any]:
    """Carry out all tasks and return their results in order.

    Args:
        tasks: Each is called with a function that takes the number of events done since its last call.
        workers: Number of processes; with 1, or with one task, everything happens in this one.
        report: Called in this process with what the tasks report.

    Raises:
        ResourceError: A worker died, for want of memory perhaps.
        Exception: What a task raised; with workers, its cause is a :class:`ProcessError` with their
            traceback.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        return [task(report) for task in tasks]
    results: list[Any] = [None] * len(tasks)
    waiting = list(enumerate(tasks))[::-1]
    with ExitStack() as stack:
        busy = {}
        for _ in range(workers):
            process, connection = _start()
            stack.callback(_stop, process, connection)
            busy[connection] = _give(connection, waiting)
        while busy:
            ready = wait(list(busy))
            for connection in [one for one in busy if one in ready]:
                try:
                    kind, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    raise ResourceError(
                        f"expected a worker to finish task {busy[connection]}, but it died; "
                        "check the memory, or use fewer workers"
                    ) from None
                if kind == "events":
                    report(value)
                elif kind == "error":
                    error, trace = value
                    raise error from ProcessError(f"in a worker:\n{trace}")
                else:
                    results[busy.pop(connection)] = value
                    if waiting:
                        busy[connection] = _give(connection, waiting)
    return results


def serve(handle: int) -> None:
    """Carry out tasks from a connection until it closes; the main function of a worker."""
    # Ctrl-C goes to the whole group: the parent hears it and closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Unwind, so that the file which is being written goes away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    connection: Connection[Any, Any] = Connection(handle)
    while True:
        try:
            task = pickle.loads(connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            return
        try:
            reply = ("result", task(lambda events: connection.send(("events", events))))
        except BrokenPipeError:
            return
        except Exception as error:
            reply = ("error", (error, traceback.format_exc()))
        connection.send(reply)


def _start() -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
    ours, theirs = Pipe()
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    theirs.close()
    return process, ours


def _stop(process: subprocess.Popen[bytes], connection: Connection[Any, Any]) -> None:
    connection.close()
    process.terminate()
    process.wait()


def _give(connection: Connection[Any, Any], waiting: list[tuple[int, Task]]) -> int:
    number, task = waiting.pop()
    connection.send_bytes(cloudpickle.dumps(task))
    return number
