"""The state of a loader of events: taken after any batch, and checked before it is gone on with."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import xxhash

from hepfeed.errors import SpecError
from hepfeed.feed_iterator import Position
from hepfeed.filler import Filler
from hepfeed.index import EventIndex
from hepfeed.ranks import RankFiller, Ranks
from hepfeed.sampling import SamplerPass

__all__ = ["checked", "taken"]

_VERSION = 2
_READABLE = (1, _VERSION)  # the first had one partition, and no samplers


class Stateful(Protocol):
    """What the state of a loader is made of."""

    dataset: torch.utils.data.Dataset[Any]
    partitions: int | None
    _position: Position
    _samples: bool

    @property
    def filler(self) -> Filler | RankFiller: ...
    def _begin_pass(self, state: dict[str, Any] | None, delivered: int) -> SamplerPass: ...
    def _samplers(self) -> list[Any]: ...
    def _seed_now(self, partitions: int = 1) -> int: ...
    def _ranks_now(self) -> Ranks: ...
    def _world(self) -> tuple[int, int]: ...
    def _ranked(self, seed: int, full: bool, ranks: Ranks) -> Filler | RankFiller: ...


def taken(loader: Stateful) -> dict[str, Any]:
    """Return the state after the last delivered batch; see :meth:`hepfeed.DataLoader.state_dict`."""
    position = loader._position
    state = {"version": _VERSION, "epoch": position.epoch, "batch": position.batch}
    if loader._samples:
        passing: Any = position.resumed
        if position.sampler is not None:
            passing = position.sampler.state()
        elif passing is None:
            passing = loader._begin_pass(None, 0).state()
        epochs = [getattr(sampler, "epoch", None) for sampler in loader._samplers()]
        sampled = {"sampler": passing, "sampler_epochs": epochs}
        return {**state, "seed": loader._seed_now(), "order": _order_of_samplers(loader), **sampled}
    ranks = position.ranks if position.filler is not None else loader._ranks_now()
    seed, order = loader._seed_now(ranks.partitions), loader.filler.fingerprint()
    return {**state, "seed": seed, "partitions": ranks.partitions, "order": order}


def checked(loader: Stateful, state: dict[str, Any]) -> tuple[Position, int, int]:
    """Return where a state goes on, its seed and its partitions; the loader stays as it is.

    Raises:
        SpecError: The loader can't go on with it.
    """
    missing = {"version", "seed", "epoch", "batch", "order"} - set(state)
    if missing or state["version"] not in _READABLE:
        raise SpecError(f"not the state of a hepfeed loader: {sorted(missing) or state['version']} is wrong")
    seed, partitions = int(state["seed"]), int(state.get("partitions", 1))
    position = Position(int(state["epoch"]), int(state["batch"]), resumed=state.get("sampler"))
    if loader._samples:
        same = state["order"] == _order_of_samplers(loader) and position.resumed is not None
    else:
        ranks = Ranks(partitions=partitions)
        orders = {loader._ranked(seed, full, ranks).fingerprint(): full for full in (True, False)}
        same, position.full = state["order"] in orders, orders.get(state["order"])
    if not same or loader.partitions not in (None, partitions):
        raise SpecError(
            "the state is of another order of events: specification, files, split, batch_size, shuffle, sampler and"
            " partitions must be the same as when it was taken"
        )
    if not loader._samples:
        _need_divisor(loader, position.batch, partitions)
    return position, seed, partitions


def _need_divisor(loader: Stateful, batches: int, partitions: int) -> None:
    """Raise where the present number of ranks can't go on with an epoch."""
    rank, world_size = loader._world()
    Ranks(rank, world_size, partitions)
    if batches % world_size:
        raise SpecError(
            f"the state was taken after {batches} batches of all ranks, which {world_size} ranks can't share"
            " equally: use a number of ranks that divides them"
        )


def _order_of_samplers(loader: Stateful) -> str:
    index: EventIndex = loader.dataset.index  # type: ignore[attr-defined]
    digest = xxhash.xxh3_128(b"sampler")
    digest.update(index.rows.tobytes())
    digest.update(index.file_start.tobytes())
    return digest.hexdigest()
