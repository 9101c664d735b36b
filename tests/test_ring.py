"""The ring: a slot is free, or being filled, or leased; what is leased never changes."""

import gc
import mmap
import os
import tempfile
import weakref

import numpy as np
import pytest

from hepfeed.errors import ResourceError
from hepfeed.ring import Ring, RingView


@pytest.fixture
def ring():
    ring = Ring()
    yield ring
    ring.close()


def fill(ring, slot, size, value):
    """Write as a reader does: through a mapping of its own."""
    view = RingView(ring.descriptor)
    view.bytes(slot, size)[:] = value
    view.forget()


def test_a_slot_is_used_again_only_when_the_last_view_of_its_lease_died(ring):
    slot = ring.acquire(100)
    fill(ring, slot, 100, 7)
    lease = ring.lease(slot, 100)
    view = lease[10:20].view(np.int16).reshape(5)
    assert ring.leased == 1
    del lease
    assert ring.acquire(100) != slot
    assert view.tolist() == [0x0707] * 5
    del view
    assert ring.acquire(100) == slot
    assert ring.leased == 0
    assert len(ring) == 2


def test_many_leases_keep_their_own_values(ring):
    held = []
    for value in range(20):
        slot = ring.acquire(5000)
        fill(ring, slot, 5000, value)
        held.append(ring.lease(slot, 5000))
    assert [int(lease.min()) for lease in held] == [int(lease.max()) for lease in held] == list(range(20))
    assert len(ring) == 20


def test_a_released_slot_is_free_at_once(ring):
    slot = ring.acquire(10)
    ring.release(slot)
    assert ring.acquire(10) == slot


def test_a_slot_grows_in_place_and_keeps_its_bytes_and_older_views(ring):
    slot = ring.acquire(10)
    fill(ring, slot, 10, 1)
    before = ring.view.bytes(slot, 10)
    fill(ring, slot, 3 * mmap.PAGESIZE, 2)  # a reader needed more
    after = ring.view.bytes(slot, 3 * mmap.PAGESIZE)
    assert before.tolist() == [2] * 10
    assert set(after.tolist()) == {2}


def test_sizes_are_whole_pages_of_at_least_one(ring):
    assert ring.view.ensure(0, 1) == mmap.PAGESIZE
    assert ring.view.ensure(1, mmap.PAGESIZE + 1) == 2 * mmap.PAGESIZE
    assert ring.view.ensure(1, 5) == 2 * mmap.PAGESIZE


def test_leases_outlive_the_ring():
    ring = Ring()
    slot = ring.acquire(64)
    fill(ring, slot, 64, 3)
    lease = ring.lease(slot, 64)
    ring.close()
    ring.close()
    assert ring.descriptor == -1
    assert lease.tolist() == [3] * 64


def test_a_lease_that_dies_with_a_cycle_comes_back(ring):
    class Holder:
        pass

    holder = Holder()
    holder.me, holder.lease = holder, ring.lease(ring.acquire(8), 8)
    dead = weakref.ref(holder)
    del holder
    gc.collect()
    assert dead() is None
    ring.reclaim()
    assert ring.leased == 0


def test_a_forked_copy_of_a_lease_does_not_free_the_slot(ring):
    slot = ring.acquire(8)
    lease = ring.lease(slot, 8)
    pid = os.fork()
    if pid == 0:
        del lease
        os._exit(0 if not ring._returned else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert ring.acquire(8) != slot
    assert lease.shape == (8,)


def test_more_shared_memory_than_there_is_is_an_error_with_what_to_do(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")  # which has no limit of its own
    shared = os.statvfs("/dev/shm")
    if not shared.f_blocks:
        pytest.skip("/dev/shm has no limit here")
    ring = Ring()
    ring.release(ring.acquire(10))
    with pytest.raises(ResourceError, match=r"no shared memory for a slot of .* use a smaller"):
        ring.acquire(shared.f_blocks * shared.f_frsize + 1)
    assert ring.acquire(10) == 0  # nothing was lost
    ring.close()


def test_without_memfd_the_ring_is_an_unlinked_file_in_shared_memory(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    before = set(os.listdir("/dev/shm"))
    ring = Ring()
    assert os.readlink(f"/proc/self/fd/{ring.descriptor}").startswith("/dev/shm/hepfeed-")
    assert {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("hepfeed-")} == set()
    slot = ring.acquire(100)
    fill(ring, slot, 100, 5)
    assert ring.lease(slot, 100).tolist() == [5] * 100
    ring.close()


def test_where_memfd_is_forbidden_the_next_place_is_taken(monkeypatch):
    def forbidden(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    ring = Ring()
    assert os.readlink(f"/proc/self/fd/{ring.descriptor}").startswith("/dev/shm/hepfeed-")
    ring.close()


def test_without_shared_memory_the_ring_is_a_temporary_file(monkeypatch, tmp_path):
    original = tempfile.mkstemp

    def no_shared_memory(prefix, dir):
        if dir == "/dev/shm":
            raise FileNotFoundError(2, "No such file or directory")
        return original(prefix=prefix, dir=dir)

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkstemp", no_shared_memory)
    ring = Ring()
    assert os.readlink(f"/proc/self/fd/{ring.descriptor}").startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    slot = ring.acquire(100)
    fill(ring, slot, 100, 5)
    assert ring.view.bytes(slot, 100).tolist() == [5] * 100
    ring.close()


def test_without_any_place_it_says_where_it_looked(monkeypatch):
    def nowhere(prefix, dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "mkstemp", nowhere)
    with pytest.raises(ResourceError, match=r"no place for shared memory \(/dev/shm: Read-only file system; .*TMPDIR"):
        Ring()
