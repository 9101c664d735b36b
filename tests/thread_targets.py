"""What the workers and readers of the tests of threads do."""

import os
import threading
from typing import ClassVar

import numpy as np

from hepfeed.errors import KeyMissingError
from hepfeed.reader import Reader
from hepfeed.revocable_view import RevocableView

WAIT_S = 30


class Target:
    """Answers some calls, and waits in others."""

    closed: ClassVar = []

    def __init__(self, start=0):
        self.start = start
        self.thread = threading.current_thread()

    def add(self, amount):
        return self.start + amount

    def same(self, value):
        return value

    def where(self):
        return os.getpid(), threading.current_thread() is self.thread, threading.current_thread().name

    def fail(self, message):
        held = np.zeros(10)  # in the frame that the traceback knows
        Target.held = held.data
        raise KeyMissingError(message, file="a.h5", key="ECAL", event=3)

    def odd(self):
        class OddError(Exception):
            pass

        raise OddError("it does not pickle")

    def wait(self, event):
        event.wait(WAIT_S)
        return "late"

    def leave(self):
        raise SystemExit(3)

    def close(self):
        Target.closed.append(self.start)


class Writer:
    """Writes to a slot of a ring when it is told to."""

    def __init__(self, ring):
        self._view = RevocableView(ring)

    def write(self, begun, event, slot, size):
        first = self._view.bytes(slot, 64)
        begun.set()
        event.wait(WAIT_S)
        first[:] = 1
        self._view.bytes(slot, size)[:] = 2
        Writer.done.set()

    def abandon(self):
        self._view.revoke()


class StallingReader(Reader):
    """A reader of which the first one that reads does not come back before it is told to."""

    stalls = threading.Lock()
    go_on = threading.Event()
    late: ClassVar = []

    def read(self, task):
        if not StallingReader.stalls.acquire(blocking=False):
            return super().read(task)
        StallingReader.go_on.wait(WAIT_S)
        done = super().read(task)
        StallingReader.late.append(len(task.row))
        return done


class LostReader(Reader):
    """A reader that is given up before it ends."""

    def close(self):
        self.abandon()
        super().close()
