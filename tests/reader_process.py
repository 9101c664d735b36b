"""A reader of any dataset in a process of its own, driven over a pipe; and datasets that need no torch."""

import multiprocessing
import os
import random
import sys
from multiprocessing import reduction, resource_tracker

import numpy as np

from hepfeed.dataset_reader import DatasetReader
from hepfeed.ring import RingView

resource_tracker.ensure_running()  # a process that lives as long as this one, and belongs to no test


def serve(pipe, descriptor, job, state_slot):
    reader = DatasetReader(job, RingView(descriptor), state_slot)
    while True:
        method, *args = pipe.recv()
        if method == "loaded":
            pipe.send(args[0] in sys.modules)
        elif method == "die":
            os._exit(9)
        elif method == "stop":
            break
        else:
            pipe.send(getattr(reader, method)(*args))
    reader.close()


class ReaderProcess:
    """The consumer's end."""

    def __init__(self, method, job, ring, state_slot):
        context = multiprocessing.get_context(method)
        self.pipe, theirs = context.Pipe()
        handle = ring.descriptor if method == "fork" else _Descriptor(ring.descriptor)
        self.process = context.Process(target=serve, args=(theirs, handle, job, state_slot), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, *message):
        self.pipe.send(message)
        assert self.pipe.poll(60), "the reader does not answer"
        return self.pipe.recv()

    def end(self, how="stop"):
        self.pipe.send((how,))
        self.process.join(30)
        self.pipe.close()
        self.process.close()


class _Descriptor:
    """A descriptor on its way to a process that is being started."""

    def __init__(self, descriptor):
        self._descriptor = descriptor

    def __reduce__(self):
        return _detached, (reduction.DupFd(self._descriptor),)


def _detached(handle):
    return handle.detach()


class Rows:
    """Events of NumPy arrays and numbers."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return {"image": np.full((4, 5), i, np.float32), "label": i, "weight": i / 2, "name": f"event {i}"}


class Noise:
    """Random numbers of all generators; torch's if it is loaded."""

    def __init__(self, with_torch=False):
        self.with_torch = with_torch

    def __getitem__(self, i):
        drawn = [random.random(), np.random.rand(), np.random.randn()]  # noqa: NPY002
        if self.with_torch:
            import torch

            drawn.append(torch.rand(()).item())
        return np.array([i, *drawn])


class NoiseStream(Noise):
    def __iter__(self):
        for i in range(10):
            yield self[i]


class File:
    """Rows of an open HDF5 file."""

    def __init__(self, path):
        import h5py

        self.file = h5py.File(path, "r")
        self.rows = self.file["x"]

    def __getitem__(self, i):
        return self.rows[i] + self.file["x"][i]
