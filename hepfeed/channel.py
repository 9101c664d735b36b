"""Messages between the consumer and a worker process: framed pickles over a socket pair.

The consumer's end never blocks: what the socket can't take is kept and sent by :meth:`Channel.flush`, so that a busy
worker with a full socket and a busy consumer can't wait for each other.  The worker's end, :func:`serve`, answers calls
in the order in which they come.  The end of the socket is the end of the process on both sides, so nothing is left
behind a consumer that was killed, and a dead worker is noticed at once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import struct
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from hepfeed.errors import ProcessError

__all__ = [
    "NOTE",
    "Channel",
    "ChannelWorker",
    "Reply",
    "WorkerLike",
    "close_inherited",
    "pack",
    "pack_error",
    "receive",
    "serve",
]

NOT_BUILT = -1  # the number of a reply to no call: the target could not be built
NOTE = -2  # the number of a message from within a call
_BUILT = -3  # the number of the message that the target was built
_HEADER = struct.Struct("<Q")
_ORPHAN_POLL_S = 0.5
_ORPHAN_GRACE_S = 1.0  # for the present call of a worker whose consumer was killed

Reply = tuple[int, bool, Any]
"""``(number of the call, succeeded, value or exception)``."""


class WorkerLike(Protocol):
    """The consumer's end of a worker, whatever runs it."""

    @property
    def pid(self) -> int:
        """Process number."""
        ...

    @property
    def exit_code(self) -> int | None:
        """What it ended with (negative: a signal), or None while it runs."""
        ...

    @property
    def built(self) -> bool:
        """Whether it was heard that its target is built, so that it can have begun with its calls."""
        ...

    @property
    def has_unsent(self) -> bool:
        """Whether :meth:`flush` has something to do once it is writable."""
        ...

    def fileno(self) -> int:
        """Return the descriptor to wait on for replies."""
        ...

    def call(self, number: int, method: str, *args: Any) -> None:
        """Ask for ``target.method(*args)``; the reply will carry ``number``."""
        ...

    def flush(self) -> None:
        """Send what is queued, as far as possible without waiting."""
        ...

    def receive(self) -> list[Reply] | None:
        """Return the replies that have arrived, without waiting; None once the worker is gone."""
        ...

    def hang_up(self) -> None:
        """Let it end after its present call; :meth:`close` waits for that."""
        ...

    def close(self, timeout_s: float = ...) -> None:
        """End it: it stops after its present call, or is killed after ``timeout_s``."""
        ...

    def kill(self) -> bool:
        """Kill it at once; returns whether it is known to be gone."""
        ...


class Channel:
    """The consumer's end.

    Args:
        connection: Its socket, which the channel owns from then on.

    Attributes:
        built: Whether it was heard that the worker's target is built.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self.built = False
        self._incoming = bytearray()
        self._outgoing = bytearray()
        _channels.add(self)

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 once it is closed."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether :meth:`flush` has something to do once the socket is writable."""
        return bool(self._outgoing)

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
        if replies and replies[0][0] == _BUILT:
            self.built = True
            del replies[0]
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
        """Close the socket; what was not sent is dropped."""
        self._outgoing.clear()
        self._socket.close()


class ChannelWorker:
    """What workers have in common whose calls and replies go through a channel; processes of any kind.

    Args:
        channel: To the process.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def built(self) -> bool:
        """Whether it was heard that its target is built."""
        return self._channel.built

    @property
    def has_unsent(self) -> bool:
        """Whether :meth:`flush` has something to do once the socket is writable."""
        return self._channel.has_unsent

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._channel.fileno()

    def call(self, number: int, method: str, *args: Any) -> None:
        """Ask for ``target.method(*args)``; the reply will carry ``number``."""
        self._channel.send((number, method, args))

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        self._channel.flush()

    def receive(self) -> list[Reply] | None:
        """Return the replies that have arrived, without waiting; None once the worker is gone."""
        return self._channel.receive()

    def hang_up(self) -> None:
        """Let the process end after its present call; ``close`` waits for that."""
        self._channel.close()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def close_inherited() -> None:
    """In a forked worker: close its copies of the consumer's ends, or no worker would see the consumer's end."""
    for channel in list(_channels):
        channel.close()


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


def pack(message: Reply) -> bytes:
    """Return a message as it goes over the socket."""
    data = pickle.dumps(message, protocol=5)
    return _HEADER.pack(len(data)) + data


def pack_error(number: int, error: Exception) -> bytes:
    """Return the message that a call raised."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of the user's own, maybe, that does not say how it pickles
        return pack((number, False, ProcessError(f"{type(error).__name__}: {error}\n\n{trace}")))
    return pack((number, False, _Raised(error, trace)))


def receive(connection: socket.socket) -> Any:
    """Wait for the next message; None at the end of the socket."""
    header = _read_exactly(connection, _HEADER.size)
    data = header and _read_exactly(connection, _HEADER.unpack(header)[0])
    return pickle.loads(data) if data else None


def _read_exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


def serve(connection: socket.socket, build: Callable[[], Any], orphaned: Callable[[], bool]) -> None:
    """Answer calls to a target until the socket ends, and in the end call its ``close()`` if it has one.

    Args:
        connection: Blocking socket, whose other end is the consumer's :class:`Channel`.
        build: Returns the target.
        orphaned: Whether the consumer is dead: then the process is ended, within its present call if that lasts.
    """
    _let_others_first()
    _watch(connection, orphaned)
    try:
        target = build()
    except Exception as error:
        connection.sendall(pack_error(NOT_BUILT, error))
        return
    connection.sendall(pack((_BUILT, True, None)))
    try:
        while (message := receive(connection)) is not None:
            number, method, args = message
            try:
                answer = pack((number, True, getattr(target, method)(*args)))
            except Exception as error:
                answer = pack_error(number, error)
            connection.sendall(answer)
    finally:
        if hasattr(target, "close"):
            target.close()


def _let_others_first() -> None:
    """Let what runs on a core go on where this process wakes up: often the training loop, which just sent it a task.

    With the usual policy the kernel may give the sender's core to the receiver for some milliseconds.  The share of the
    processors stays the same.  What the user chose for the whole job, such as ``chrt --idle``, is left as it is.
    """
    with contextlib.suppress(OSError, AttributeError):  # the system has no such policy
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _watch(connection: socket.socket, orphaned: Callable[[], bool]) -> None:
    """Let a thread end the process soon after the death of its consumer."""

    def watch() -> None:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLRDHUP)
        hung_up = False
        while not orphaned():
            if hung_up:
                time.sleep(_ORPHAN_POLL_S)  # the consumer waits for the present call to end; it may yet be killed
            else:
                hung_up = bool(poll.poll(1000 * _ORPHAN_POLL_S))
        time.sleep(_ORPHAN_GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="hepfeed-orphan", daemon=True).start()
