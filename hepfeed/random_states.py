"""Random states: the global generators of a reader, kept in shared memory from which its successor takes them."""

from __future__ import annotations

import ctypes
import pickle
import random
import struct
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfeed.errors import ReaderError

__all__ = ["STATE_BYTES", "RandomStates", "numpy_seed"]

_HEADER = struct.Struct("<QQQQQ")  # of whom, serial number, epoch, number of the fetch, bytes
_SECTION = 32 << 10  # what Python, NumPy and torch keep is 12 kB
_MT19937_BYTES = 625 * 4  # its words and the place among them
_STARTS, _FETCHES = 0, 2  # first section of the starts of epochs, and of fetches; two of each
STATE_BYTES = 4 * _SECTION
"""Bytes of shared memory that the states need."""


class RandomStates:
    """Saves the states of ``random``, ``numpy.random`` and, once it was imported, torch.

    States are saved at the start of an epoch and after each of its fetches, each kind in two sections in turn, so that
    a process that dies while it saves leaves the one before.  A section counts when its header was written, last.

    Args:
        memory: ``(STATE_BYTES,) uint8``, shared with the successor.
        owner: Number of 64 bits that the reader and its successors have in common: what others left is not looked at.

    Attributes:
        torch_state: State of torch's generator that was restored before torch was imported, or None.
    """

    def __init__(self, memory: NDArray[np.uint8], owner: int) -> None:
        self.torch_state: bytes | None = None
        self._memory = memory
        self._owner = owner
        self._serial = 0
        self._drawn_last: tuple[object, bytes, bytes] = (None, b"", b"")
        self._epoch = 0

    def begin(self, first: bool) -> None:
        """Save the state at the start of an epoch.

        Args:
            first: Whether it is the first; then what the memory holds is not of this reader.
        """
        if first:
            for section in range(4):
                self._write_header(section, 0, 0, 0, 0)
        self._epoch += 1
        self._save(_STARTS + self._epoch % 2, 0)

    def save(self, number: int) -> bytes:
        """Save the state after a fetch; returns it as :meth:`get`."""
        return self._save(_FETCHES + number % 2, number)

    @property
    def has_start(self) -> bool:
        """Whether the start of an epoch was saved."""
        return any(self._header(section)[0] for section in (_STARTS, _STARTS + 1))

    def restore_start(self) -> None:
        """Set the state at the start of the predecessor's present epoch."""
        serial, epoch, _, _ = max(map(self._header, (_STARTS, _STARTS + 1)))
        self._restore(_STARTS + epoch % 2, serial > 0, "the start of the epoch")

    def restore(self, number: int) -> None:
        """Set the state after a fetch of the predecessor's present epoch."""
        section = _FETCHES + number % 2
        serial, epoch, found, _ = self._header(section)
        started = max(self._header(_STARTS)[1], self._header(_STARTS + 1)[1])
        self._restore(section, serial > 0 and (epoch, found) == (started, number), f"fetch {number}")

    def restore_latest(self) -> bool:
        """Set the last state that the predecessor saved; returns whether there was one."""
        headers = [self._header(section) for section in range(4)]
        serial = max(header[0] for header in headers)
        if serial:
            self._restore([header[0] for header in headers].index(serial), True, "the last fetch")
        return serial > 0

    def _header(self, section: int) -> tuple[int, int, int, int]:
        owner, serial, epoch, number, size = _HEADER.unpack_from(self._memory.data, section * _SECTION)
        return (serial, epoch, number, size) if owner == self._owner else (0, 0, 0, 0)

    def _write_header(self, section: int, serial: int, epoch: int, number: int, size: int) -> None:
        _HEADER.pack_into(self._memory.data, section * _SECTION, self._owner, serial, epoch, number, size)

    def _save(self, section: int, number: int) -> bytes:
        made = self.get()
        data = made if len(made) <= _SECTION - _HEADER.size else b""  # with a bit generator of the user's own
        start = section * _SECTION + _HEADER.size
        self._serial += 1
        self._write_header(section, 0, 0, 0, 0)
        self._memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
        self._write_header(section, self._serial, self._epoch, number, len(data))
        return made

    def get(self) -> bytes:
        """Return the present states, pickled."""
        version, words, gauss = random.getstate()
        words_packed = struct.pack(f"{len(words)}I", *words)  # four times as fast as pickling 625 numbers
        states = (version, words_packed, gauss), self._numpy_state(), _torch_state() or self.torch_state
        return pickle.dumps(states, protocol=5)

    def set(self, data: bytes) -> None:
        """Set states of :meth:`get`; that of torch as soon as it is imported."""
        (version, words, gauss), numpy_state, self.torch_state = pickle.loads(data)
        random.setstate((version, struct.unpack(f"{len(words) // 4}I", words), gauss))
        np.random.set_state(pickle.loads(numpy_state))  # noqa: NPY002
        self.restore_torch()

    def _numpy_state(self) -> bytes:
        """Pickle NumPy's global state; asking for it costs 50 us, so the last is kept while nobody draws."""
        generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]  # missing from the stubs
        is_known = type(generator) is np.random.MT19937
        words = ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES) if is_known else b""
        if not words or (generator, words) != self._drawn_last[:2]:
            state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (user code draws from it)
            # The second of a pair of normal numbers is taken without a draw.
            self._drawn_last = generator, b"" if state.get("has_gauss") else words, pickle.dumps(state, protocol=5)
        return self._drawn_last[2]

    def _restore(self, section: int, is_there: bool, what: str) -> None:
        _, epoch, _, size = self._header(section)
        if not is_there or not size:
            raise ReaderError(
                f"no random state of {what} was left by the reader that died: the epoch can't go on with the same"
                " numbers; start it again"
            )
        self._serial = max(self._header(each)[0] for each in range(4))
        self._epoch = epoch
        start = section * _SECTION + _HEADER.size
        self.set(self._memory[start : start + size].tobytes())

    def restore_torch(self) -> None:
        """Set the state of torch's generator that waits for torch, once that was imported."""
        torch = _torch()
        if torch is not None and self.torch_state is not None:
            torch.set_rng_state(torch.frombuffer(bytearray(self.torch_state), dtype=torch.uint8))
            self.torch_state = None


def numpy_seed(base_seed: int, worker_id: int) -> list[int]:
    """Return what torch's loader seeds ``numpy.random`` with: four numbers below 2^32."""
    entropy = [worker_id, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
    state: list[int] = np.random.SeedSequence(entropy).generate_state(4).tolist()
    return state


def _torch() -> Any:
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_rng_state") else None


def _torch_state() -> bytes | None:
    torch = _torch()
    return None if torch is None else torch.get_rng_state().numpy().tobytes()
