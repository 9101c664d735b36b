"""Parts in shared memory, which have no file."""

from __future__ import annotations

from hepfeed.errors import ResourceError
from hepfeed.form import aligned
from hepfeed.parts.buffer import EventBuffer, bytes_of
from hepfeed.parts.part import Part, Stored
from hepfeed.parts.writer import contents_of, sum_of
from hepfeed.ring import RingView

__all__ = ["write_to_memory"]


def write_to_memory(view: RingView, slot: int, buffer: EventBuffer) -> Part:
    """Write events to a slot of shared memory, which keeps them as long as its owner lives.

    Raises:
        ResourceError: There is not so much memory.
    """
    contents = contents_of(buffer)
    places, at = {}, 0
    for dataset, arrays in contents.items():
        first = arrays[0]
        shape = (sum(map(len, arrays)), *first.shape[1:])
        told = dataset not in buffer.rows
        places[dataset] = Stored(at, first.dtype.str, shape, sum_of(arrays) if told else "")
        at = aligned(at + places[dataset].bytes)
    size = max(1, at)
    memory = view.bytes(slot, size)
    if len(memory) < size:
        raise ResourceError(f"no shared memory for {size} bytes of the cache")
    for dataset, arrays in contents.items():
        at = places[dataset].offset
        for array in arrays:
            memory[at : at + array.nbytes] = bytes_of(array)
            at += array.nbytes
    removed = sum(map(len, buffer.removed))
    return Part(
        f"memory-{slot}", size, buffer.events, removed, buffer.block_events(), places, dict(buffer.counted_by), slot
    )
