"""A helper process that answers calls, started by exec.

A worker is a fresh interpreter that imports neither torch nor the user's main module, so it starts fast and stays
small.  It builds one target object and calls its methods in the order in which calls arrive over a socket, and in the
end its ``close()`` if it has one; each reply carries the number of its call.  The end of the socket is the end of the
process on both sides, so nothing is left behind a parent that was killed, and a dead worker is noticed at once.

:func:`call_everywhere` runs a function over many arguments in such processes.  Arguments are pickled; what
needs cloudpickle (a user's lambda) travels as bytes that the caller made.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from hepfeed.errors import ProcessError, ReaderError

__all__ = ["Listener", "Reply", "Worker", "call_everywhere", "note", "resolve"]

_HEADER = struct.Struct("<Q")
_ORPHAN_POLL_MS = 500
JOIN_TIMEOUT_S = 2.0
_UNWIND_TIMEOUT_S = 10.0  # a file that is given up is first closed, and HDF5 compresses what its cache holds
_NOT_BUILT = -1  # the number of a reply to no call: the target could not be built
_NOTE = -2  # the number of a message from within a call

# The worker's hepfeed is the parent's, and not what may lie in the working directory (a source tree, for one).
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PROGRAM = "import sys; sys.path = [sys.argv[1], *filter(None, sys.path)]; from hepfeed.worker import main; main()"

Reply = tuple[int, bool, Any]
"""``(number of the call, succeeded, value or exception)``."""

Listener = Callable[[Any], None]
"""Takes what a function passes to :func:`note`."""


def _nobody(value: Any) -> None:
    """Listen to no note."""


_listener: ContextVar[Listener] = ContextVar("_listener", default=_nobody)


def resolve(path: str) -> Any:
    """Import ``"package.module:name"``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class Worker:
    """The parent's end of one worker process.

    Sends never block: what the socket can't take is kept and sent by :meth:`flush`, so a busy worker with a
    full socket and a busy parent can't wait for each other.

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

    def interrupt(self) -> None:
        """Let the present call unwind, by a SystemExit in it, and the process end."""
        if self._owner == os.getpid():
            self._process.terminate()

    def hang_up(self) -> None:
        """Let the process end after its present call; :meth:`close` waits for that."""
        self._socket.close()

    def close(self, timeout_s: float = JOIN_TIMEOUT_S) -> None:
        """End the process: it stops after its present call, or is killed after ``timeout_s``."""
        self.hang_up()
        if self._owner != os.getpid():  # a forked copy of this object must not end the parent's worker
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process at once and reap it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


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
                    if reply[0] != _NOTE:
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


class _Raised:
    """An exception on its way; unpickles as the exception itself, caused by the worker's traceback."""

    def __init__(self, error: Exception, trace: str) -> None:
        self._parts = error, trace

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_cause, self._parts


def _with_cause(error: Exception, trace: str) -> Exception:
    error.__cause__ = ProcessError(f"in a worker:\n{trace}")
    return error


def _pack(message: Reply) -> bytes:
    data = pickle.dumps(message, protocol=5)
    return _HEADER.pack(len(data)) + data


def _pack_error(number: int, error: Exception) -> bytes:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of the user's own, maybe, that does not say how it pickles
        return _pack((number, False, ProcessError(f"{type(error).__name__}: {error}\n\n{trace}")))
    return _pack((number, False, _Raised(error, trace)))


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
    """Answer calls until the socket or the parent ends.

    Raises:
        SystemExit: SIGTERM came.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, _unwind)
    connection = socket.socket(fileno=descriptor)

    def receive() -> Any:
        header = _read_exactly(connection, _HEADER.size, parent)
        data = header and _read_exactly(connection, _HEADER.unpack(header)[0], parent)
        return pickle.loads(data) if data else None

    first = receive()
    if first is None:
        return
    path, target_path, args = first
    sys.path[:] = path
    try:
        target = resolve(target_path)(*args)
    except Exception as error:
        connection.sendall(_pack_error(_NOT_BUILT, error))
        return
    _listener.set(lambda value: connection.sendall(_pack((_NOTE, True, value))))
    try:
        while (message := receive()) is not None:
            number, method, args = message
            try:
                answer = _pack((number, True, getattr(target, method)(*args)))
            except Exception as error:
                answer = _pack_error(number, error)
            connection.sendall(answer)
    finally:
        if hasattr(target, "close"):
            target.close()


def _unwind(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the clean-up short
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Serve the parent that ``sys.argv`` names: its end of the socket, and its process number."""
    code: object = 0
    try:
        serve(int(sys.argv[2]), int(sys.argv[3]))
    except SystemExit as end:
        code = end.code
    except (BrokenPipeError, ConnectionResetError):
        pass
    # No clean-up of the user's modules: the parent may be gone already.
    os._exit(code if isinstance(code, int) else 1)
