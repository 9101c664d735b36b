"""Structures of batches for common trainings: values for ``outputs`` of :class:`hepfeed.DataLoader`.

Each is a tuple ``(input, target)``, or ``(input, target, "weight")`` where ``weighted`` asks for weights of events::

    loader = hf.DataLoader(dataset, 128, outputs=presets.classifier(["ECAL", "HCAL"]))
    for (ecal, hcal), onehot in loader: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from hepfeed.errors import SpecError

__all__ = ["autoencoder", "classifier", "conditional_generator", "regression", "segmentation"]

Names: TypeAlias = str | Sequence[str]
"""A key, which stands for its tensor, or several, for a list of tensors."""
Parts: TypeAlias = tuple[str | list[str], ...]


def autoencoder(keys: Names, *, weighted: bool = False) -> Parts:
    """Return ``(x, x)``: the input is the target, the same tensors and no copies."""
    return _parts(keys, keys, weighted)


def conditional_generator(keys: Names, condition: Names, *, weighted: bool = False) -> Parts:
    """Return ``(x, condition)``: what is generated, and what it depends on, such as the energy."""
    return _parts(keys, condition, weighted)


def classifier(keys: Names, target: str = "onehot", *, weighted: bool = False) -> Parts:
    """Return ``(x, "onehot")``, or with ``target="label"`` class indices."""
    return _parts(keys, target, weighted)


def regression(keys: Names, targets: Names, *, weighted: bool = False) -> Parts:
    """Return ``(x, targets)``: one tensor or a list of them."""
    return _parts(keys, targets, weighted)


def segmentation(image: Names, mask: Names, *, weighted: bool = False) -> Parts:
    """Return ``(image, mask)``; give both to the steps that move pixels, so that the mask follows its image."""
    return _parts(image, mask, weighted)


def _parts(inputs: Names, targets: Names, weighted: bool) -> Parts:
    return (_listed(inputs), _listed(targets), *(["weight"] if weighted else []))


def _listed(names: Names) -> str | list[str]:
    several = [names] if isinstance(names, str) else list(names)
    if not several or not all(isinstance(name, str) and name for name in several):
        raise SpecError(f"name the keys as a str or a list of str, e.g. ['ECAL', 'HCAL'], not {names!r}")
    return names if isinstance(names, str) else several
