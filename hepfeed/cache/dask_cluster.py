"""Calls on the workers of a dask.distributed cluster, in the place of :func:`hepfeed.worker.call_everywhere`."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any

from hepfeed.channel import Reply
from hepfeed.errors import ProcessError, ReaderError, SourceError
from hepfeed.worker import resolve

__all__ = ["call_on_dask"]

_START_TIMEOUT_S = 60
_IN_HAND = 2  # calls that each thread of the cluster has: one runs and one waits


def call_on_dask(
    function: str, arguments: Sequence[tuple[Any, ...]], address: str, workers: int
) -> Generator[Reply, None, None]:
    """Call a function for each tuple of arguments on a cluster; yields each reply as it comes.

    Args:
        function: ``"module:name"``; hepfeed must be installed where the cluster runs.
        arguments: One tuple a call; each is asked for when it is sent.
        address: Of the scheduler, e.g. ``tcp://10.0.0.1:8786``; ``"local"`` starts a cluster of processes here.
        workers: Processes of such a cluster.

    Raises:
        ProcessError: dask.distributed is not installed.
        SourceError: Nothing answers at the address.
        ReaderError: Workers died.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ProcessError("dask.distributed is not installed: pip install 'hepfeed[dask]'") from error
    call = resolve(function)
    with ExitStack() as stack:
        client = _connect(distributed, address, workers, stack)
        threads = max(1, sum(client.nthreads().values()))
        running = distributed.as_completed()
        places: dict[str, int] = {}
        given = 0
        try:
            while given < len(arguments) or places:
                while given < len(arguments) and len(places) < _IN_HAND * threads:
                    future = client.submit(call, *arguments[given], pure=False, retries=2)
                    places[future.key] = given
                    running.add(future)
                    given += 1
                future = next(running)
                place = places.pop(future.key)
                failure = future.exception()
                if isinstance(failure, distributed.scheduler.KilledWorker):
                    failure = ReaderError(f"workers of the dask cluster died ({failure}): give them more memory")
                yield (place, True, future.result()) if failure is None else (place, False, failure)
                future.release()
        finally:
            client.cancel(running.futures, force=True)


def _connect(distributed: Any, address: str, workers: int, stack: ExitStack) -> Any:
    if address == "local":
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hepfeed-dask-"))
        address = stack.enter_context(
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                local_directory=scratch,
                silence_logs=40,
            )
        )
    try:
        return stack.enter_context(distributed.Client(address, timeout=_START_TIMEOUT_S))
    except (OSError, ValueError) as error:
        raise SourceError(f"no dask scheduler answers at {address!r} ({error}): check --dask") from error
