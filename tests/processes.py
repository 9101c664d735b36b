"""The processes that tests look at."""

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
