"""The step that mixes pairs of events and their labels."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.tensors import Structured
from hepfeed.transforms.lookup import check_made, describe, find, names_of
from hepfeed.transforms.mixing import Mixture
from hepfeed.transforms.one_hot import OneHot
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["MixUp", "symmetric_beta"]


class MixUp(Step):
    """Mixes each event with another of its batch: x' = l x_i + (1 - l) x_j, and so the targets.

    Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond empirical risk minimization", ICLR 2018: l ~ Beta(alpha, alpha),
    here each event's own.  The partners j are a random permutation of the batch; where j = i the event stays as it is.
    ``"label"``, ``"event"``, ``"weight"`` and keys that are not named stay those of event i.

    Attributes:
        keys: Dense arrays ``(B, ...)``, which become float32 (or float64), and sparse ones, whose sites become the
            union of those of both events.  Add ``"weight"`` to mix weights as well.
        alpha: Above 0; 0.2 leaves most events nearly as they are, 1 makes l uniform.
        label: Key of the targets ``(B, classes)``, mixed in the same way; where the batch has none, they are made of
            ``"label"`` as float32.
        classes: Number of classes, where the targets are made; needed then.

    Raises:
        ProcessError: A key is jagged or padded, targets have no ``classes``, or a label is not below it.
    """

    random: ClassVar[bool] = True

    keys: Keys
    alpha: float = 0.2
    label: str = "onehot"
    classes: int | None = None

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        names = names_of(keys)
        if {"label", "event"} & set(names):
            raise SpecError(f"'label' and 'event' are numbers of classes and places: leave them out of keys {names}")
        return keys

    @field_validator("alpha")
    @classmethod
    def _check_alpha(cls, alpha: float) -> float:
        if not 0 < alpha < math.inf:
            raise SpecError(f"alpha must be a finite number above 0, not {alpha}")
        return alpha

    @field_validator("label")
    @classmethod
    def _check_label(cls, label: str) -> str:
        return check_made(label, "label")

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: int | None) -> int | None:
        if classes is not None and classes < 1:
            raise SpecError(f"classes must be 1 or more, not {classes}")
        return classes

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with events that are mixed."""
        made = dict(batch)
        if self.label not in batch:
            if self.classes is None:
                raise ProcessError(
                    f"the batch has no targets {self.label!r} to mix, and classes is not given to make them of 'label'",
                    key=self.label,
                )
            made = OneHot(classes=self.classes, into=self.label)(batch, draws)
        targets = made[self.label]
        if isinstance(targets, Structured) or targets.ndim != 2 or targets.dtype.kind != "f":
            raise ProcessError(
                f"targets {self.label!r} must be (B, classes) of floats to be mixed, and are {describe(targets)}",
                key=self.label,
            )
        events = len(draws)
        share = symmetric_beta(self.alpha, draws.uniform(2))
        partners = draws.of_batch().permutation(events)
        # An event that is its own partner has l + (1 - l) = 1 of itself, which rounding must not change.
        share[partners == np.arange(events)] = 1
        parts = np.stack([np.arange(events), partners], axis=-1).ravel()
        weights = np.stack([share, 1 - share], axis=-1).ravel()
        mixture = Mixture(parts, np.arange(events + 1) * 2, weights)
        for key in dict.fromkeys((*names_of(self.keys), self.label)):
            made[key] = mixture.of(find(made, key), batch, key)
        return made


def symmetric_beta(alpha: float, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers of the distribution Beta(alpha, alpha).

    1/2 + g / (2 sqrt(1 + g^2)) with g = cos(2 pi v) sqrt(u^(-1/alpha) - 1), for any alpha (L. Devroye, "Random variate
    generation in one line of code", Winter Simulation Conference 1996).

    Args:
        alpha: Above 0.
        u: ``(B, 2)`` uniform in [0, 1).
    """
    with np.errstate(over="ignore"):  # an infinite g is the end of the interval
        g = np.cos(2 * np.pi * u[:, 1]) * np.sqrt(np.expm1(-np.log1p(-u[:, 0]) / alpha))
    return np.asarray(0.5 + 0.5 * np.sin(np.arctan(g)))
