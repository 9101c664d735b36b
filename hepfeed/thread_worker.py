"""A helper thread that answers calls, in the place of a process of :mod:`hepfeed.worker`.

It starts at once and costs no memory of its own, and nothing is pickled; but what it runs must be native code that
releases Python's lock, and must leave alone what the whole process shares.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from hepfeed.channel import NOT_BUILT, Reply
from hepfeed.errors import ProcessError, ResourceError
from hepfeed.worker import JOIN_TIMEOUT_S, resolve

__all__ = ["ThreadWorker"]

_Message = tuple[int, str, tuple[Any, ...]]


class ThreadWorker:
    """The consumer's end of a worker that is a thread of this process; a :class:`~hepfeed.channel.WorkerLike`.

    The thread builds the target, calls its methods in the order in which calls arrive, and in the end its ``close()``
    if it has one.  Arguments and answers are handed over as they are, so neither side may change them afterwards.  An
    exception arrives as a copy, caused by a :class:`~hepfeed.errors.ProcessError` with the traceback as text: the
    traceback itself would keep the worker's arrays alive.

    Args:
        target: ``"module:Class"`` of the object that the worker builds.  If it has a method ``abandon()``, that is
            called from another thread by :meth:`kill`; what the target still writes must be lost from then on.
        args: Its arguments.

    Raises:
        ResourceError: The process can't have one more thread.
    """

    def __init__(self, target: str, args: Sequence[Any] = ()) -> None:
        self._box = _Mailbox()
        name = f"hepfeed-{target.rpartition(':')[2].lower()}"
        self._thread = threading.Thread(target=_serve, args=(self._box, target, tuple(args)), name=name, daemon=True)
        weakref.finalize(self, _Mailbox.hang_up, self._box)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._box.hang_up()
            raise ResourceError(f"no thread can be started for a reader ({error}): use fewer workers") from error

    @property
    def pid(self) -> int:
        """Process number: this process's own."""
        return os.getpid()

    @property
    def exit_code(self) -> int | None:
        """0 once the thread ended, 1 if an exception ended it, -SIGKILL once it was killed; None while it runs."""
        return self._box.code

    @property
    def built(self) -> bool:
        """Whether its target is built."""
        return self._box.is_built

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent: never."""
        return False

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 once it is closed."""
        return self._box.readable

    def call(self, number: int, method: str, *args: Any) -> None:
        """Ask for ``target.method(*args)``; the reply will carry ``number``."""
        self._box.calls.put((number, method, args))

    def flush(self) -> None:
        """Do nothing: every call is sent."""

    def receive(self) -> list[Reply] | None:
        """Return the replies that have arrived, without waiting; None once the worker is gone."""
        return self._box.receive()

    def hang_up(self) -> None:
        """Let the thread end after its present call, whose answer is dropped; :meth:`close` waits for that."""
        self._box.hang_up()

    def close(self, timeout_s: float = JOIN_TIMEOUT_S) -> None:
        """End the thread: it stops after its present call, or is given up after ``timeout_s``, see :meth:`kill`."""
        self._box.hang_up()
        if not self._box.is_ours():
            return
        itself = threading.current_thread() is self._thread  # the garbage collector ended the consumer there
        if not itself and self._box.ended.wait(max(0.0, timeout_s)):
            self._thread.join()
        else:
            self.kill()

    def kill(self) -> bool:
        """Give the thread up: no thread can be killed.

        It goes on with its present call, and ends after it.  Its answers are dropped, and what it writes is lost where
        the target has an ``abandon()``.

        Returns:
            Whether it has ended or can't do any more harm.
        """
        self._box.hang_up()
        return self._box.is_ours() and self._box.abandon()


class _Mailbox:
    """What a worker and its thread share: calls, answers, and a pipe that is readable where there are answers.

    Attributes:
        calls: For the thread; None wakes it up without a call.
        readable: End of the pipe to wait on; -1 once it is closed.
        ended: Set at the end of the thread.
        code: As :attr:`ThreadWorker.exit_code`.
    """

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Message | None] = SimpleQueue()
        self.readable, self._writable = os.pipe()
        os.set_blocking(self.readable, False)
        os.set_blocking(self._writable, False)
        self.ended = threading.Event()
        self.code: int | None = None
        self._answers: deque[Reply] = deque()
        self._target: Any = None
        # The same thread may come twice: the garbage collector ends loaders at any time and in any thread.
        self._lock = threading.RLock()
        self._owner = os.getpid()

    @property
    def is_built(self) -> bool:
        """Whether the target is there."""
        return self._target is not None

    def is_ours(self) -> bool:
        """Whether this is no copy in a forked process, which has neither the thread nor an owner of its locks."""
        return self._owner == os.getpid()

    # ---- the consumer's side ---------------------------------------------------------------------------------------

    def receive(self) -> list[Reply] | None:
        """Take the answers; None where there will be no more."""
        with self._lock:
            if self.readable < 0:
                return None
            if not self.ended.is_set():  # else the pipe stays readable, so that the end is found
                try:
                    while os.read(self.readable, 4096):
                        pass
                except BlockingIOError:
                    pass
            replies = list(self._answers)
            self._answers.clear()
            return None if self.ended.is_set() and not replies else replies

    def hang_up(self) -> None:
        """Drop all answers and further calls."""
        if not self.is_ours():
            return
        with self._lock:
            if self.readable >= 0:
                os.close(self.readable)
                os.close(self._writable)
                self.readable = self._writable = -1
            self._answers.clear()
        self.calls.put(None)

    def abandon(self) -> bool:
        """Give up the thread; returns whether it has ended or can't do any more harm."""
        with self._lock:
            if self.ended.is_set():
                return True
            self.code = -signal.SIGKILL
            target = self._target
        if target is None:  # it is not built yet: no call will reach it
            return True
        if not hasattr(target, "abandon"):
            return False
        try:
            target.abandon()
        except OSError:
            return False
        return True

    # ---- the thread's side -----------------------------------------------------------------------------------------

    def next(self) -> _Message | None:
        """Wait for a call; None at the end."""
        message = self.calls.get()
        return message if self.readable >= 0 else None

    def built(self, target: Any) -> None:
        """Take note of the target."""
        with self._lock:
            self._target = target

    def answer(self, reply: Reply) -> None:
        """Hand an answer to the consumer, unless it hung up."""
        with self._lock:
            if self.readable >= 0:
                self._answers.append(reply)
                self._ring()

    def end(self, code: int) -> None:
        """Tell the consumer that the thread ends."""
        with self._lock:
            self._target = None
            self.code = code if self.code is None else self.code
            self.ended.set()
            if self.readable >= 0:
                self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full, and so it is readable
            os.write(self._writable, b"\0")


def _serve(box: _Mailbox, path: str, args: tuple[Any, ...]) -> None:
    """Answer calls until the consumer hangs up."""
    code = 1
    try:
        try:
            target = resolve(path)(*args)
        except Exception as error:
            box.answer((NOT_BUILT, False, _copy_of(error)))
            code = 0
            return
        box.built(target)
        try:
            while (message := box.next()) is not None:
                box.answer(_reply(target, message))
                del message  # it would keep its arrays until the next one comes
        finally:
            if hasattr(target, "close"):
                target.close()
            del target  # what it holds is given back before the end is known
        code = 0
    except SystemExit:  # it ends a thread without a word, as it ends a process
        pass
    finally:
        box.end(code)


def _reply(target: Any, message: _Message) -> Reply:
    number, method, args = message
    try:
        return number, True, getattr(target, method)(*args)
    except Exception as error:
        return number, False, _copy_of(error)


def _copy_of(error: Exception) -> Exception:
    """Return an exception as a worker process would send it: without what its traceback holds."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # a class of the user's own, maybe, that does not say how it pickles
        return ProcessError(f"{type(error).__name__}: {error}\n\n{trace}")
    copy.__cause__ = ProcessError(f"in a worker:\n{trace}")
    return copy
