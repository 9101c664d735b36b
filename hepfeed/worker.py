"""A helper process that answers calls, started by exec.

A worker is a fresh interpreter that imports neither torch nor the user's main module, so it starts fast and stays
small.  It builds one target object and calls its methods in the order in which calls arrive over a
:mod:`hepfeed.channel`; each reply carries the number of its call.

:func:`call_everywhere` runs a function over many arguments in such processes.  Arguments are pickled; what
needs cloudpickle (a user's lambda) travels as bytes that the caller made.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from hepfeed.channel import NOTE, Channel, ChannelWorker, Reply, pack, receive, serve
from hepfeed.errors import ReaderError

__all__ = ["JOIN_TIMEOUT_S", "Listener", "Worker", "WorkerProcess", "call_everywhere", "note", "resolve"]

JOIN_TIMEOUT_S = 2.0
_KILL_TIMEOUT_S = 0.5
_UNWIND_TIMEOUT_S = 10.0  # a file that is given up is first closed, and HDF5 compresses what its cache holds

# The worker's hepfeed is the parent's, and not what may lie in the working directory (a source tree, for one).
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PROGRAM = "import sys; sys.path = [sys.argv[1], *filter(None, sys.path)]; from hepfeed.worker import main; main()"

Listener = Callable[[Any], None]
"""Takes what a function passes to :func:`note`."""


def _nobody(value: Any) -> None:
    """Listen to no note."""


_listener: ContextVar[Listener] = ContextVar("_listener", default=_nobody)


def resolve(path: str) -> Any:
    """Import ``"package.module:name"``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class Worker(ChannelWorker):
    """The consumer's end of one worker process that was started by exec.

    Args:
        target: ``"module:Class"`` of the object that the worker builds.
        args: Its arguments; pickled.
        descriptors: File descriptors to hand over; they keep their numbers.
    """

    def __init__(self, target: str, args: Sequence[Any] = (), descriptors: Iterable[int] = ()) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, _HOME, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno(), *descriptors],
                stdin=subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        super().__init__(Channel(ours))
        self._owner = os.getpid()
        self._channel.send((list(sys.path), target, tuple(args)))

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What the process ended with (negative: a signal), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for its end, at most ``timeout_s``; returns whether it has ended."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def interrupt(self) -> None:
        """Let the present call unwind, by a SystemExit in it, and the process end."""
        if self._owner == os.getpid():
            self._process.terminate()

    def close(self, timeout_s: float = JOIN_TIMEOUT_S) -> None:
        """End the process: it stops after its present call, or is killed after ``timeout_s``."""
        self.hang_up()
        if self._owner != os.getpid():  # a forked copy of this object must not end the parent's worker
            return
        if not self.wait(max(0.0, timeout_s)):
            self.kill()

    def kill(self) -> bool:
        """Kill the process at once; returns whether it is gone: one in a stalled system call may stay."""
        self._channel.close()
        self._process.kill()
        return self.wait(_KILL_TIMEOUT_S)


class WorkerProcess:
    """A worker's process as :mod:`multiprocessing` shows processes.

    Args:
        worker: The worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def pid(self) -> int:
        """Process number."""
        return self._worker.pid

    @property
    def exitcode(self) -> int | None:
        """What it ended with (negative: a signal), or None while it runs."""
        return self._worker.exit_code

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most ``timeout`` seconds."""
        self._worker.wait(timeout)

    def terminate(self) -> None:
        """Let its present call unwind, and the process end."""
        self._worker.interrupt()


class Functions:
    """A target that calls any function by its path."""

    def call(self, path: str, *args: Any) -> Any:
        """Call ``"module:name"`` with ``args``."""
        return resolve(path)(*args)


def call_everywhere(
    function: str,
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    on_note: Listener | None = None,
) -> Generator[Reply, None, None]:
    """Call a function for each tuple of arguments, in parallel processes; yields each reply as it comes.

    The number of a reply is the place in ``arguments``.  An exception arrives with its type, and its cause is
    a :class:`ProcessError` with the worker's traceback.  If this generator is closed before its end (an error
    in the caller, Ctrl-C), the calls that run are unwound by a SystemExit, and have ten seconds to clean up.

    Args:
        function: ``"module:name"``.
        arguments: One tuple a call; pickled.  Each is asked for when it is given to a process, so that a sequence may
            make it then.
        workers: Processes; 0 or 1 calls here, and so does a single call.
        on_note: Called here with what the function passes to :func:`note`.

    Raises:
        ReaderError: A process died.
    """
    if workers <= 1 or len(arguments) <= 1:
        yield from _call_here(function, arguments, on_note or _nobody)
        return
    total, given = len(arguments), 0
    pool: list[Worker] = []
    in_hand: dict[Worker, int] = {}

    def give(worker: Worker) -> None:
        # One runs and one waits in the socket; but each of the last goes to the first worker that is free.
        nonlocal given
        while given < total and in_hand[worker] < (2 if total - given > len(pool) else 1):
            worker.call(given, "call", function, *arguments[given])
            in_hand[worker] += 1
            given += 1

    try:
        for _ in range(min(workers, len(arguments))):
            pool.append(Worker("hepfeed.worker:Functions"))
        in_hand.update(dict.fromkeys(pool, 0))
        for worker in pool:
            give(worker)
        while any(in_hand.values()):
            ready, writable, _ = select.select(pool, [worker for worker in pool if worker.has_unsent], [])
            for worker in writable:
                worker.flush()
            for worker in ready:
                for reply in _replies(worker, function):
                    if reply[0] != NOTE:
                        in_hand[worker] -= 1
                        give(worker)
                        yield reply
                    elif on_note:
                        on_note(reply[2])
    finally:
        for worker in pool:
            worker.interrupt()
        deadline = time.monotonic() + _UNWIND_TIMEOUT_S
        for worker in pool:
            worker.close(deadline - time.monotonic())


def note(value: Any) -> None:
    """Tell the caller of :func:`call_everywhere` how the present call gets on.

    Outside of such a call nobody listens, and nothing happens.

    Args:
        value: Anything that pickles; handed to ``on_note`` in the caller's process.
    """
    _listener.get()(value)


def _call_here(function: str, arguments: Sequence[tuple[Any, ...]], listener: Listener) -> Iterator[Reply]:
    call = resolve(function)
    for place in range(len(arguments)):
        args = arguments[place]
        before = _listener.set(listener)
        try:
            reply: Reply = (place, True, call(*args))
        except Exception as error:
            reply = (place, False, error)
        finally:
            _listener.reset(before)
        yield reply


def _replies(worker: Worker, function: str) -> list[Reply]:
    replies = worker.receive()
    if replies is None:
        worker.close()
        code = worker.exit_code or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise ReaderError(f"a process that ran {function} {how}: check the memory, or use fewer workers")
    return replies


# ---- the worker's side -------------------------------------------------------------------------------------


def _unwind(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the clean-up short
    sys.exit(128 + signal.SIGTERM)


def _serve(descriptor: int, parent: int) -> None:
    """Answer calls until the socket or the parent ends.

    Raises:
        SystemExit: SIGTERM came.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, _unwind)
    connection = socket.socket(fileno=descriptor)
    first = receive(connection)
    if first is None:
        return
    path, target, args = first
    sys.path[:] = path
    _listener.set(lambda value: connection.sendall(pack((NOTE, True, value))))
    serve(connection, lambda: resolve(target)(*args), lambda: os.getppid() != parent)


def main() -> None:
    """Serve the parent that ``sys.argv`` names: its end of the socket, and its process number."""
    code: object = 0
    try:
        _serve(int(sys.argv[2]), int(sys.argv[3]))
    except SystemExit as end:
        code = end.code
    except (BrokenPipeError, ConnectionResetError):
        pass
    # No clean-up of the user's modules: the parent may be gone already.
    os._exit(code if isinstance(code, int) else 1)
