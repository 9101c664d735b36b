"""The processes that tests look at, and what they have in shared memory."""

import os
from pathlib import Path

import psutil

HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Parts of the commands of processes that multiprocessing keeps for itself, whatever a test does."""


def children_of(process=None):
    """Living processes below one, by default this one, but for the helpers of multiprocessing."""
    return [child for child in psutil.Process(process).children(recursive=True) if _counts(child)]


def _counts(child):
    try:
        command = " ".join(child.cmdline())
        return child.status() != psutil.STATUS_ZOMBIE and not any(helper in command for helper in HELPERS)
    except psutil.NoSuchProcess:  # a zombie's command can't be read either
        return False


def descendants():
    """Numbers of all processes below this one, zombies too."""
    if not Path("/proc/thread-self/children").exists():  # some kernels are built without
        return {child.pid for child in psutil.Process().children(recursive=True)}
    found, parents = set(), [os.getpid()]
    while parents:
        children = _children_in_proc(parents.pop())
        found.update(children)
        parents.extend(children)
    return found


def _children_in_proc(parent):
    """Every thread has its list of the processes that it started."""
    try:
        lists = [Path(f"/proc/{parent}/task/{thread}/children") for thread in os.listdir(f"/proc/{parent}/task")]
        return [int(child) for each in lists for child in each.read_bytes().split()]
    except OSError:  # it or a thread of it has ended meanwhile
        return []


def in_shared_memory(pids):
    """Files in /dev/shm of some processes: torch's, which bear the number of their maker, and any of hepfeed's.

    Tests in other processes may have files there at the same time.
    """
    makers = tuple(f"torch_{pid}_" for pid in pids)
    return [name for name in os.listdir("/dev/shm") if name.startswith(("hepfeed-", *makers))]
