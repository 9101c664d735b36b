"""The reader process of any dataset: started by multiprocessing, in the way that the user chose.

A forked one has the dataset as it is in the consumer.  A spawned one, or one of a fork server, gets it pickled, and
imports torch only if the dataset does.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import socket
from collections.abc import Iterator
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from typing import Any

from hepfeed.allocator import keep_freed_memory
from hepfeed.channel import Channel, ChannelWorker, close_inherited, serve
from hepfeed.dataset_reader import DatasetJob, DatasetReader
from hepfeed.ring import RingView

__all__ = ["DatasetProcess"]

_JOIN_TIMEOUT_S = 1.0
_KILL_TIMEOUT_S = 0.5


class DatasetProcess(ChannelWorker):
    """The consumer's end of a process that runs a :class:`~hepfeed.dataset_reader.DatasetReader`.

    Args:
        context: How it is started.
        job: What it is to do.
        ring: Descriptor of the ring.
        state_slot: Slot of the ring that takes its random states.

    Attributes:
        process: As :mod:`multiprocessing` has it.

    Raises:
        Exception: The job can't be pickled, where it has to be.
    """

    def __init__(self, context: BaseContext, job: DatasetJob, ring: int, state_slot: int) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(Channel(ours))  # before the start: a forked process closes its copies of all channels
        try:
            # typeshed leaves Process out of BaseContext
            make: Any = context.Process  # type: ignore[attr-defined]
            self.process: BaseProcess = make(
                target=_run, args=(theirs, _Descriptor(ring), job, state_slot), daemon=True
            )
            with _frozen():
                self.process.start()
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self._pid = self.process.pid or 0

    @property
    def pid(self) -> int:
        """Process number."""
        return self._pid

    @property
    def exit_code(self) -> int | None:
        """What the process ended with (negative: a signal), or None while it runs."""
        return self.process.exitcode

    def close(self, timeout_s: float = _JOIN_TIMEOUT_S) -> None:
        """End the process: it stops after its present call, or is killed after ``timeout_s``."""
        self.hang_up()
        if self.process._parent_pid != multiprocessing.current_process().pid:  # type: ignore[attr-defined]
            return  # a forked copy of this object must not end its parent's process
        self.process.join(max(0.0, timeout_s))
        if self.process.exitcode is None:
            self.kill()

    def kill(self) -> bool:
        """Kill the process at once; returns whether it is gone: one in a stalled system call may stay."""
        self._channel.close()
        self.process.kill()
        self.process.join(_KILL_TIMEOUT_S)
        return self.process.exitcode is not None


class _Descriptor:
    """A file descriptor on its way to a process that is being started."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.number),)


def _received(descriptor: Any) -> _Descriptor:
    return _Descriptor(descriptor.detach())


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Keep the collector of a forked process away from what it shares with its parent, so that no page is copied."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run(connection: socket.socket, ring: _Descriptor, job: DatasetJob, state_slot: int) -> None:
    close_inherited()
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the consumer's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    consumer: Any = multiprocessing.parent_process()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the consumer is gone, or wants no more
        serve(
            connection,
            partial(DatasetReader, job, RingView(ring.number), state_slot),
            lambda: not consumer.is_alive(),
        )
