"""The step that adds other events of the batch to events: pile-up, cosmics, noise."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from hepfeed.draws import Draws
from hepfeed.errors import ProcessError, SpecError
from hepfeed.spec_options import RESERVED_NAMES
from hepfeed.tensors import take
from hepfeed.transforms.lookup import at_event, check_made, find, names_of
from hepfeed.transforms.mixing import Mixture
from hepfeed.transforms.step import Batch, Keys, Step

__all__ = ["Overlay", "poisson"]


class Overlay(Step):
    """Adds other events of the batch to each event.

    Dense arrays are summed, sparse ones summed on the union of their sites, jagged ones and graphs put one after
    another.  Floats keep their type (float16 becomes float32), and so do integers; a sum beyond them is an error.  The
    number of events added depends on the event alone; which ones, on the batch: each is dealt out before one comes
    twice, and never twice to one event or to itself.  Keys that are not named stay those of the event.

    Attributes:
        keys: What is added: dense, sparse, jagged arrays and graphs.
        count: How many events are added to each.
        mean: Instead: mean of their Poisson distribution.
        sources: Classes (``"label"``) whose events are added, to events of other classes alone.  None: any event is
            added to any other.
        remove_sources: Events of these classes leave the batch, all keys and ``"event"`` alike.
        too_few: What to do where the batch has fewer events than are to be added: ``"raise"``, or ``"fewer"``: add
            those that there are.
        label_rule: ``"first"``: the label stays; ``"max"``: the largest label of all events added; ``"any"``: it stays,
            and the key ``into`` says which classes are in the event, ``(B, classes) float32`` of 0 and 1.
        classes: Number of classes, for ``"any"``.
        into: Key that ``"any"`` makes.
        masks: Key of per-pixel, per-site or per-row labels -> key of the charge.  A pixel gets the label that it has in
            the event with the largest charge there, at equal charges in the first; rows keep theirs.
        origins: New key -> key of the charge: int32, 0 where a pixel, site or row belongs to the event itself, 1, 2,
            ... where to the first, second, ... event added.

    Raises:
        ProcessError: Events are too few, a key is padded, a sum does not fit its integers, or labels don't fit charges.
    """

    random: ClassVar[bool] = True

    keys: Keys
    count: int | None = Field(default=None, ge=0)
    mean: float | None = Field(default=None, ge=0, le=10_000)
    sources: int | tuple[int, ...] | None = None
    remove_sources: bool = False
    too_few: Literal["raise", "fewer"] = "raise"
    label_rule: Literal["first", "max", "any"] = "first"
    classes: int | None = Field(default=None, ge=1)
    into: str = "onehot"
    masks: dict[str, str] = Field(default_factory=dict)
    origins: dict[str, str] = Field(default_factory=dict)

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: Keys) -> Keys:
        for name in names_of(keys):
            if name in RESERVED_NAMES:
                raise SpecError(f"{name!r} can't be added up: leave it out of keys")
        return keys

    @field_validator("into")
    @classmethod
    def _check_into(cls, into: str) -> str:
        return check_made(into, "into")

    @model_validator(mode="after")
    def _check(self) -> Overlay:
        if (self.count is None) == (self.mean is None):
            raise SpecError("give either count, the number of events that are added, or mean")
        if self.remove_sources and self.sources is None:
            raise SpecError("remove_sources needs sources, the classes that are added")
        if self.sources == ():
            raise SpecError("sources must be one class or more, or None for any, not ()")
        if (self.label_rule == "any") != (self.classes is not None):
            raise SpecError("label_rule='any' needs classes, their number, which no other rule has")
        if set(self.masks) & set(self.origins):
            raise SpecError(f"masks and origins both have {sorted(set(self.masks) & set(self.origins))}: rename them")
        names = names_of(self.keys)
        for option, made in (("masks", self.masks), ("origins", self.origins)):
            for key, charge in made.items():
                check_made(key, option)
                if key in names:
                    raise SpecError(f"key {key!r} of {option} is also among keys: leave it out there")
                if charge not in names:
                    raise SpecError(f"the charge {charge!r} of {key!r} in {option} must be one of keys {names}")
        return self

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """Return the batch with events that others are added to."""
        label = np.asarray(find(batch, "label"))
        mixture = self._dealt(batch, label, draws)
        if self.remove_sources:
            made = {key: take(value, mixture.firsts) for key, value in batch.items()}
        else:
            made = dict(batch)
        for key in names_of(self.keys):
            made[key] = mixture.of(find(batch, key), batch, key)
        for key, charge in self.masks.items():
            made[key] = mixture.labels(find(batch, key), batch[charge], key, charge)
        for key, charge in self.origins.items():
            made[key] = mixture.origin(batch[charge], charge)
        if self.label_rule == "max" and mixture.events:
            made["label"] = np.maximum.reduceat(label[mixture.parts], mixture.offsets[:-1])
        elif self.label_rule == "any":
            made[self.into] = self._present(batch, label, mixture)
        return made

    def _dealt(self, batch: Batch, label: NDArray[np.int64], draws: Draws) -> Mixture:
        """Choose who is added to whom."""
        events = len(draws)
        if self.mean is None:
            wanted = np.full(events, self.count, np.int64)
        else:
            wanted = poisson(self.mean, draws.uniform(1)[:, 0])
        shuffled = draws.of_batch().permutation(events)
        if self.sources is None:
            targets, available = np.arange(events), max(events - 1, 0)
            starts = np.argsort(shuffled) + 1  # after its own place in the round
        else:
            is_source = np.isin(label, self.sources)
            targets = np.flatnonzero(~is_source) if self.remove_sources else np.arange(events)
            wanted[is_source] = 0
            shuffled = shuffled[is_source[shuffled]]
            available = len(shuffled)
            starts = np.cumsum(wanted) - wanted
        lacking = np.flatnonzero(wanted > available)
        if lacking.size and self.too_few == "raise":
            i = int(lacking[0])
            raise at_event(
                ProcessError,
                f"{wanted[i]} events are to be added and the batch has {available} to choose from: take larger batches,"
                " or too_few='fewer'",
                batch,
                names_of(self.keys)[0],
                i,
            )
        counts = np.minimum(wanted, available)[targets]
        offsets = np.concatenate([[0], np.cumsum(counts + 1)]).astype(np.int64)
        rank = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], counts + 1)
        parts = np.repeat(targets, counts + 1)
        added = rank > 0
        places = np.repeat(starts[targets], counts + 1) + rank - 1
        if len(shuffled):
            parts[added] = shuffled[places[added] % len(shuffled)]
        return Mixture(parts, offsets)

    def _present(self, batch: Batch, label: NDArray[np.int64], mixture: Mixture) -> NDArray[np.float32]:
        classes = self.classes or 0
        wrong = np.flatnonzero((label < 0) | (label >= classes))
        if wrong.size:
            i = int(wrong[0])
            raise at_event(ProcessError, f"label must be from 0 to {classes - 1}, and is {label[i]}", batch, "label", i)
        present = np.zeros((mixture.events, classes), np.float32)
        present[np.repeat(np.arange(mixture.events), np.diff(mixture.offsets)), label[mixture.parts]] = 1
        return present


def poisson(mean: float, u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return Poisson numbers by inversion of their distribution function.

    Args:
        mean: 0 or more.
        u: ``(B,)`` uniform in [0, 1).
    """
    if mean == 0:
        return np.zeros(len(u), np.int64)
    # What is left beyond 40 standard deviations and 60 is far below 2^-53, the spacing of u.
    numbers = np.arange(int(mean + 40 * math.sqrt(mean)) + 60)
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(numbers[1:]))])
    below = np.cumsum(np.exp(numbers * math.log(mean) - mean - logarithms))
    return np.searchsorted(below / below[-1], u, "right").astype(np.int64)
