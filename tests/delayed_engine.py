"""A twin of the feed's CUDA engine: a thread makes the copies later, in order, between tensors of the host.

"Device" memory is full of a pattern until a copy is made, and a source that changes before its copy is a fault.  So
what a device would show by chance shows here: a slot that is used again too early, and a consumer that does not wait.
"""

import contextlib
import threading
import time
from collections import deque

import torch

from hepfeed import transfer

PATTERN = 0xA5
_DELAY_S = 0.002
_PATIENCE_S = 30


@contextlib.contextmanager
def standing_in(monkeypatch):
    """Put the twin in the place of CUDA; gives its class, which knows the engines that were made."""
    kind = type("Twin", (DelayedEngine,), {"made": []})
    monkeypatch.setattr(transfer, "CudaEngine", kind)
    yield kind
    for engine in kind.made:
        engine.gate.set()
        engine.settle()
    kind.made.clear()


class Mark:
    """An event of the twin."""

    def __init__(self, engine):
        self._engine = engine
        self._done = threading.Event()

    def query(self):
        """Whether it is done."""
        self._engine.raise_fault()
        return self._done.is_set()

    def synchronize(self):
        """Wait for it, and count that."""
        self._engine.waits += not self._done.is_set()
        self.wait()

    def wait(self):
        """Wait for it as a stream does, or give up."""
        if not self._done.wait(_PATIENCE_S):
            raise TimeoutError("an event is never done")
        self._engine.raise_fault()

    def set(self):
        self._done.set()


class DelayedEngine:
    """See :class:`hepfeed.cuda_engine.CudaEngine`.

    Class attributes:
        made: Engines of the present test.
        most_locked: Bytes that can be page-locked.
        prompt: Copies are made at once, for steps that do not wait for the twin.

    Attributes:
        gate: Copies are made while it is set.
        waits: How often the host waited for an event.
        copies: Bytes of each copy.
        recorded: Storages that the consumer's stream was told of.
        locked: Address and bytes of what is page-locked.
        refused: How often a lock was refused.
        settled: How often somebody waited for everything.
        fault: What a copy raises.
    """

    made: list = []  # noqa: RUF012 (each test has a subclass with its own)
    most_locked = 1 << 40
    prompt = False

    def __init__(self, device):
        self.asked_for = device
        self.device = torch.device("cpu")
        self.gate = threading.Event()
        self.gate.set()
        self.waits = self.refused = self.settled = self.consumer_marks = 0
        self.copies = []
        self.recorded = set()
        self.locked = {}
        self.fault = None
        self._aside = False
        self._work = deque()
        self._lock = threading.Condition()
        self._thread = None
        type(self).made.append(self)

    @staticmethod
    def check(device):
        """Every device is there."""

    # ---- the side stream

    @contextlib.contextmanager
    def aside(self):
        assert not self._aside
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def empty(self, size):
        assert self._aside or not size, "memory of the wrong stream"
        return torch.full((size,), PATTERN, dtype=torch.uint8)

    def copy(self, target, source):
        assert self._aside, "a copy on the wrong stream"
        assert source.dtype == target.dtype == torch.uint8
        assert source.is_contiguous()
        before = source.clone()
        self.copies.append(len(source))

        def work():
            if not torch.equal(source, before):
                raise RuntimeError("a source changed before it was copied")
            target.copy_(source)

        self.later(work)

    def mark(self):
        mark = Mark(self)
        self.later(mark.set)
        return mark

    def later(self, work):
        """Do something after all that was asked for before."""
        if self.prompt:
            work()
            return
        with self._lock:
            self._work.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hepfeed-delayed", daemon=True)
                self._thread.start()

    def _run(self):
        while True:
            with self._lock:
                if not self._work:
                    self._thread = None
                    self._lock.notify_all()
                    return
                work = self._work.popleft()
            if not isinstance(getattr(work, "__self__", None), Mark):
                time.sleep(_DELAY_S)
                self.gate.wait(_PATIENCE_S)
            try:
                work()
            except RuntimeError as error:
                self.fault = self.fault or error

    def raise_fault(self):
        if self.fault is not None:
            raise self.fault

    # ---- the consumer

    def mark_consumer(self):
        assert not self._aside, "the current stream is not the consumer's"
        self.consumer_marks += 1
        mark = Mark(self)
        mark.set()
        return mark

    def hand_over(self, event, tensors):
        assert not self._aside, "the current stream is not the consumer's"
        event.wait()
        for tensor in tensors:
            self.recorded.add(tensor.untyped_storage().data_ptr())

    def place(self, thing):
        moved = thing.to(self.device)
        return moved.clone() if isinstance(moved, torch.Tensor) else moved

    # ---- memory of the host

    def host(self, size):
        return torch.full((size,), PATTERN, dtype=torch.uint8)

    def lock(self, address, size):
        assert all(address + size <= start or start + held <= address for start, held in self.locked.items())
        if sum(self.locked.values()) + size > self.most_locked:
            self.refused += 1
            return False
        self.locked[address] = size
        return True

    def unlock(self, address):
        self.settle()
        del self.locked[address]

    def settle(self):
        self.settled += 1
        with self._lock:
            assert self._lock.wait_for(lambda: self._thread is None, _PATIENCE_S)
