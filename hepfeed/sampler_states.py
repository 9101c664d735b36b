"""The states of the random number generators that a sampler may draw its order from, as text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepfeed.errors import SpecError

__all__ = ["borrowed", "take_states"]


def take_states(generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """Return the states of the global generators of torch, NumPy and Python, and of given ones: about 20 kB of text.

    Args:
        generators: Any of them; their order is kept.
    """
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    version, numbers, gauss = random.getstate()
    return {
        "torch": _text(torch.get_rng_state()),
        "numpy": [name, np.asarray(keys, np.uint32).tobytes().hex(), *rest],
        "python": [version, np.array(numbers, np.uint32).tobytes().hex(), gauss],
        "generators": [_text(generator.get_state()) for generator in generators],
    }


@contextmanager
def borrowed(states: dict[str, Any], generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Give all generators the states that :func:`take_states` returned; the global ones get their own back at the end.

    Raises:
        SpecError: The states are of another number of generators.
    """
    if len(states["generators"]) != len(generators):
        raise SpecError(
            f"the state was taken with {len(states['generators'])} generators of a sampler, but here are"
            f" {len(generators)}: give the loader the same sampler and generator as when it was taken"
        )
    own = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    for generator, state in zip(generators, states["generators"]):
        generator.set_state(_tensor(state))
    try:
        torch.set_rng_state(_tensor(states["torch"]))
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, _numbers(keys), *rest))  # noqa: NPY002
        version, numbers, gauss = states["python"]
        random.setstate((version, tuple(_numbers(numbers).tolist()), gauss))
        yield
    finally:
        torch.set_rng_state(own[0])
        np.random.set_state(own[1])  # noqa: NPY002
        random.setstate(own[2])


def _text(state: torch.Tensor) -> str:
    return bytes(state.numpy()).hex()


def _tensor(state: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8)


def _numbers(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(bytes.fromhex(text), np.uint32)
