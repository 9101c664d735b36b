"""A helper process that answers calls: ``python -m hepfeed.worker``, started by exec.

A worker is a fresh interpreter that imports neither torch nor the user's main module (0.2 s and 35 MB).  It builds one
target object and calls its methods in the order in which calls arrive over a socket; each reply carries the number of
its call.  The end of the socket is the end of the process on both sides, so nothing is left behind a parent that was
killed, and a dead worker is noticed at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hepfeed.errors import HepfeedError, ProcessError, ReaderError

__all__ = ["Reply", "Worker", "call_everywhere", "resolve"]

_HEADER = struct.Struct("<Q")
_ORPHAN_POLL_MS = 500
_JOIN_TIMEOUT_S = 2.0

Reply = tuple[int, bool, Any]
"""``(number of the call, succeeded, value or exception)``."""


def resolve(path: str) -> Any:
    """Import ``"package.module:name"``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class Worker:
    """The parent's end of one worker process.

    Sends never block: what the socket can't take is kept and sent by :meth:`flush`, so a busy worker with a full
    socket and a busy parent can't wait for each other.

    Args:
        target: ``"module:Class"`` of the object that the worker builds.
        args: Its arguments; pickled.
        descriptors: File descriptors to hand over; they keep their numbers.
    """

    def __init__(self, target: str, args: Sequence[Any] = (), descriptors: Iterable[int] = ()) -> None:
        ours, theirs = socket.socketpair()
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hepfeed.worker", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno(), *descriptors],
                stdin=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": _python_path(environment.get("PYTHONPATH"))},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._owner = os.getpid()
        self.send((list(sys.path), target, tuple(args)))

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What the process ended with (negative: a signal), or None while it runs."""
        return self._process.poll()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether :meth:`flush` has something to do once the socket is writable."""
        return bool(self._outgoing)

    def call(self, number: int, method: str, *args: Any) -> None:
        """Ask for ``target.method(*args)``; the reply will carry ``number``."""
        self.send((number, method, args))

    def send(self, message: object) -> None:
        """Queue a message and send what the socket takes."""
        data = pickle.dumps(message, protocol=5)
        self._outgoing += _HEADER.pack(len(data)) + data
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing)
            except BlockingIOError:
                return
            except OSError:  # the worker is gone; receive() reports it
                self._outgoing.clear()
                return
            del self._outgoing[:sent]

    def receive(self) -> list[Reply] | None:
        """Return the replies that have arrived, without waiting; None once the worker is gone."""
        gone = False
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                gone = True
                break
            self._incoming += data
        replies = list(self._complete())
        return None if gone and not replies else replies

    def _complete(self) -> Iterator[Reply]:
        start = 0
        view = memoryview(self._incoming)
        try:
            while len(view) - start >= _HEADER.size:
                (size,) = _HEADER.unpack_from(view, start)
                stop = start + _HEADER.size + size
                if len(view) < stop:
                    break
                yield pickle.loads(view[start + _HEADER.size : stop])
                start = stop
        finally:
            view.release()
            del self._incoming[:start]

    def close(self) -> None:
        """End the process: it stops after its present call, or is killed after two seconds."""
        self._socket.close()
        if self._owner != os.getpid():  # a forked copy of this object must not end the parent's worker
            return
        try:
            self._process.wait(_JOIN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process at once and reap it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _python_path(inherited: str | None) -> str:
    """Let the worker find hepfeed where the parent found it."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.pathsep.join([home, *([inherited] if inherited else [])])


class Functions:
    """A target that calls any function by its path."""

    def call(self, path: str, *args: Any) -> Any:
        """Call ``"module:name"`` with ``args``."""
        return resolve(path)(*args)


def call_everywhere(
    function: str,
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, bool, Any]]:
    """Call a function for each tuple of arguments, in parallel processes; yields ``(place, succeeded, value)``.

    Args:
        function: ``"module:name"``.
        arguments: One tuple a call.
        workers: Processes; 0 or 1 calls here.
        progress: Called with the number of finished calls.

    Raises:
        ReaderError: A process died.
    """
    if workers <= 1 or len(arguments) <= 1:
        call = resolve(function)
        for place, args in enumerate(arguments):
            try:
                reply: Reply = (place, True, call(*args))
            except Exception as error:
                reply = (place, False, error)
            if progress:
                progress(place + 1)
            yield reply
        return
    pool = [Worker("hepfeed.worker:Functions") for _ in range(min(workers, len(arguments)))]
    todo = iter(range(len(arguments)))
    done = 0
    try:
        waiting = {worker.fileno(): worker for worker in pool}
        for worker in pool:
            for place in (next(todo, None), next(todo, None)):  # one in hand, one in the socket
                if place is not None:
                    worker.call(place, "call", function, *arguments[place])
        while done < len(arguments):
            ready, writable, _ = select.select(waiting, [w for w in pool if w.has_unsent], [])
            for worker in writable:
                worker.flush()
            for descriptor in ready:
                worker = waiting[descriptor]
                replies = worker.receive()
                if replies is None:
                    raise ReaderError(f"a process that ran {function} ended with code {worker.exit_code}")
                for reply in replies:
                    place = next(todo, None)
                    if place is not None:
                        worker.call(place, "call", function, *arguments[place])
                    done += 1
                    if progress:
                        progress(done)
                    yield reply
    finally:
        for worker in pool:
            worker.kill()


# ---- the worker's side ----------------------------------------------------------------------------------------------


def portable(error: BaseException) -> BaseException:
    """Return the exception in a form that can travel: as it is, or as a ProcessError with its traceback as text."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    if isinstance(error, HepfeedError):
        with contextlib.suppress(Exception):
            pickle.dumps(error)
            return error
    return ProcessError(f"{type(error).__name__}: {error}\n\n{text}")


def _read_exactly(connection: socket.socket, size: int, parent: int) -> bytes | None:
    """Read ``size`` bytes; None at the end of the socket or of the parent."""
    data = bytearray()
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while len(data) < size:
        if not poll.poll(_ORPHAN_POLL_MS):
            if os.getppid() != parent:
                return None
            continue
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


def serve(descriptor: int, parent: int) -> None:
    """Answer calls until the socket or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; the socket's end follows it
    connection = socket.socket(fileno=descriptor)

    def receive() -> Any:
        header = _read_exactly(connection, _HEADER.size, parent)
        data = header and _read_exactly(connection, _HEADER.unpack(header)[0], parent)
        return pickle.loads(data) if data else None

    def reply(message: Reply) -> None:
        data = pickle.dumps(message, protocol=5)
        connection.sendall(_HEADER.pack(len(data)) + data)

    first = receive()
    if first is None:
        return
    path, target_path, args = first
    sys.path[:] = path
    try:
        target = resolve(target_path)(*args)
    except Exception as error:
        reply((-1, False, portable(error)))
        return
    while (message := receive()) is not None:
        number, method, args = message
        try:
            answer: Reply = (number, True, getattr(target, method)(*args))
        except Exception as error:
            answer = (number, False, portable(error))
        reply(answer)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(int(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)  # no clean-up of the user's modules: the parent may be gone already
