"""The pipeline: the steps and functions that a batch goes through in a reader, and where the cache is in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xxhash

from hepfeed.code import code_of
from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError, ProcessError, SpecError, nearest
from hepfeed.spec_options import validate
from hepfeed.transforms import STEPS, step_class
from hepfeed.transforms.pointwise import fuse
from hepfeed.transforms.step import Batch, Step

__all__ = ["CACHE", "Function", "Pipeline", "Transform", "numbered"]

CACHE = "cache"
"""Stands in a pipeline between what is cached and what is not."""

Function = Callable[[Batch], Batch]
Transform = Step | Function | str | Mapping[str, Any]
"""A step, a function on a dict of arrays, ``"cache"``, or a step as a specification has it: ``{"flip": {...}}``."""


class Pipeline:
    """Steps and functions, in their order.

    Args:
        transforms: See :data:`Transform`; or one of them.
        first: Number of the first step, by which its random numbers go, where others come before.

    Attributes:
        steps: Without the cache point.
        cached: How many of ``steps`` come before the cache point.  Where it is not given, it lies before the first step
            that draws random numbers or depends on which events make a batch, or at the end.

    Raises:
        SpecError: Something is no step, an option of one is wrong, or a random step comes before the cache point.
    """

    def __init__(self, transforms: Sequence[Transform] | Transform | None = None, first: int = 0) -> None:
        self.steps: list[Step | Function] = []
        marks: list[int] = []
        for transform in _several(transforms):
            if isinstance(transform, str) and transform == CACHE:
                marks.append(len(self.steps))
            else:
                self.steps.append(_step(transform))
        if len(marks) > 1:
            raise SpecError("'cache' comes twice in the transforms: keep one")
        passing = [isinstance(step, Step) and (step.random or step.batchwise) for step in self.steps]
        self._marked = bool(marks)
        self.cached = marks[0] if marks else (passing.index(True) if True in passing else len(self.steps))
        if True in passing[: self.cached]:
            step = self.steps[passing.index(True)]
            does = "draws random numbers" if getattr(step, "random", False) else "depends on which events make a batch"
            raise SpecError(
                f"{type(step).__name__} {does}, and comes before the cache point, so that its result would be the same"
                " in every epoch: put 'cache' before it"
            )
        self._before = numbered(self.steps[: self.cached], first)
        self._after = numbered(self.steps[self.cached :], first + self.cached)

    def __len__(self) -> int:
        return len(self.steps)

    def __add__(self, other: Pipeline) -> Pipeline:
        joined = Pipeline([*self._listed(), *other.steps])
        if not self._marked and other._marked:
            joined = Pipeline([*self.steps, *other._listed()])
        return joined

    def _listed(self) -> list[Transform]:
        return [*self.steps[: self.cached], *([CACHE] if self._marked else []), *self.steps[self.cached :]]

    def without_augmentation(self) -> Pipeline:
        """Return the pipeline without steps that draw random numbers; the cache point stays where it was."""
        before, after = self.steps[: self.cached], self.steps[self.cached :]
        kept = [step for step in after if not (isinstance(step, Step) and step.random)]
        mark = [CACHE] if self._marked or len(kept) < len(after) else []
        return Pipeline([*before, *mark, *kept])

    @property
    def marks_cache(self) -> bool:
        """Whether ``"cache"`` stands among the transforms."""
        return self._marked

    @property
    def functions_before(self) -> list[str]:
        """Names of the functions before the cache point."""
        return [_named(step) for step in self.steps[: self.cached] if not isinstance(step, Step)]

    def need_native(self) -> None:
        """Refuse steps that may not run in threads of the user's process.

        Functions, and steps of the user's own, run under Python's lock, one at a time.  Functions may draw the global
        random numbers, which in a process of its own depend on seed, epoch and batch alone; threads would draw them in
        an order of chance, and change those of the user's program.

        Raises:
            SpecError: There are such steps.
        """
        foreign = [_named(step) for step in self.steps if not type(step).__module__.startswith("hepfeed.")]
        if foreign:
            raise SpecError(
                f"threads run hepfeed's own steps only, not {', '.join(foreign)}: user code runs under Python's lock,"
                " and shares the global random numbers with this process; use worker_method='process'"
            )

    def cached_steps(self) -> list[list[str]]:
        """Return what comes before the cache point, for the key of a cache: name, and options or a hash of the code."""
        described = []
        for step in self.steps[: self.cached]:
            if isinstance(step, Step):
                kind = type(step)
                described.append([f"{kind.__module__}:{kind.__qualname__}", step.model_dump_json()])
                if not kind.__module__.startswith("hepfeed."):  # a user's own step
                    described[-1].append(xxhash.xxh3_128_hexdigest(code_of(kind.__call__)))
            else:
                described.append([_named(step), xxhash.xxh3_128_hexdigest(code_of(step))])
        return described

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that change with any step, its options, its place, or the code of a function."""
        digest = xxhash.xxh3_128(str(self.cached).encode())
        for step in self.steps:
            if isinstance(step, Step):
                kind = type(step)
                digest.update(f"\0{kind.__module__}:{kind.__qualname__}:{step.model_dump_json()}".encode())
            else:
                digest.update(b"\0" + code_of(step))
        return digest.hexdigest()

    def to_spec(self) -> list[Any]:
        """Return the form that a YAML or JSON file has.

        Raises:
            SpecError: A function is among the steps.
        """
        written: list[Any] = []
        for step in self._listed():
            if isinstance(step, str):
                written.append(step)
            elif isinstance(step, Step):
                options = step.model_dump(mode="json", exclude_defaults=True)
                written.append({_name_of(step): options})
            else:
                raise SpecError(f"the function {step!r} can't be saved: give it as process_fn or transform instead")
        return written

    def __call__(self, batch: Batch, draws: Draws, restore: bool = True) -> Batch:
        """Run all steps on a batch.

        NumPy's and Python's global random numbers, which functions use, depend on the draws' seed, epoch and batch
        alone meanwhile.

        Args:
            batch: Arrays of the batch's events, with ``"event"``.
            draws: Random numbers for the steps; they follow the events where a step drops some.
            restore: Put the global random numbers back, as must be where they are also the user's.
        """
        return self._run([*self._before, *self._after], batch, draws, restore)

    def before_cache(
        self,
        batch: Batch,
        draws: Draws,
        restore: bool = True,
        on_random: Callable[[HepfeedError], None] | None = None,
    ) -> Batch:
        """Run the steps before the cache point.

        Args:
            batch: As in calling the pipeline, and so are ``draws`` and ``restore``.
            draws: Random numbers.
            restore: Put the global random numbers back.
            on_random: Called with an error if a function drew of the global random numbers, which a cache would freeze.
        """
        return self._run(self._before, batch, draws, restore, on_random)

    def after_cache(self, batch: Batch, draws: Draws, restore: bool = True) -> Batch:
        """Run the steps after the cache point; with :meth:`before_cache` before, it is the same as all steps."""
        return self._run(self._after, batch, draws, restore)

    def _run(
        self,
        program: _Program,
        batch: Batch,
        draws: Draws,
        restore: bool,
        on_random: Callable[[HepfeedError], None] | None = None,
    ) -> Batch:
        has_functions = any(not isinstance(step, Step) for _, step in program)
        before = _random_states() if restore and has_functions else None
        if has_functions:
            number = xxhash.xxh3_64_intdigest(repr((draws.seed, draws.epoch, draws.batch)).encode()) % 2**32
            np.random.seed(number)  # noqa: NPY002
            random.seed(number)
        fresh = _random_states() if on_random and has_functions else None
        try:
            for i, step in program:
                if isinstance(step, Step):
                    # Steps and functions before may have left events out, and the others keep their numbers.
                    batch = step(batch, replace(draws, step=i, event=batch.get("event", draws.event)))
                else:
                    batch = _called(step, batch)
            if on_random and fresh is not None and _numbers_of(_random_states()) != _numbers_of(fresh):
                on_random(
                    ProcessError(
                        f"a function before the cache point ({', '.join(self.functions_before)}) draws random numbers,"
                        " which would be the same in every epoch: put 'cache' before it in transform, or use cache=None"
                    )
                )
            return batch
        finally:
            if before is not None:
                np.random.set_state(before[0])  # noqa: NPY002
                random.setstate(before[1])


_Program = list[tuple[int, Step | Function]]


def _random_states() -> tuple[Any, Any]:
    """NumPy's and Python's global random numbers."""
    return np.random.get_state(), random.getstate()  # noqa: NPY002


def _numbers_of(states: tuple[Any, Any]) -> tuple[Any, ...]:
    """What can be compared of random states."""
    (_, keys, place, *_), other = states
    return keys.tobytes(), place, other


def _named(function: Step | Function) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def numbered(steps: Sequence[Step | Function], first: int) -> list[tuple[int, Step | Function]]:
    """Merge neighbours that one pass over memory can do; each with its first place, which its random numbers go by.

    Args:
        steps: In order.
        first: Place of the first one.
    """
    program: list[tuple[int, Step | Function]] = []
    for place, step in enumerate(steps, first):
        merged = fuse([program[-1][1], step]) if program else [step]
        if len(merged) == 1 and program:
            program[-1] = (program[-1][0], merged[0])
        else:
            program.append((place, step))
    return program


def _several(transforms: Sequence[Transform] | Transform | None) -> Iterable[Transform]:
    if transforms is None:
        return ()
    if isinstance(transforms, Step | str | Mapping) or callable(transforms):
        return (transforms,)
    return transforms


def _step(given: Any) -> Step | Function:
    if isinstance(given, Step) or (callable(given) and not isinstance(given, type)):
        return given
    if isinstance(given, str):
        given = {given: {}}
    if not isinstance(given, Mapping) or len(given) != 1:
        raise SpecError(
            f"a transform is a step, a function, 'cache' or a mapping such as {{'flip': {{'keys': 'ECAL'}}}}, not"
            f" {given!r}"
        )
    ((name, options),) = given.items()
    if name not in STEPS:
        raise SpecError(f"there is no transform {name!r}: {nearest(str(name), [*STEPS, CACHE])}")
    try:
        return validate(step_class(name), {} if options is None else options)
    except HepfeedError as error:
        error.message = f"transform {name!r}: {error.message}"
        raise


def _name_of(step: Step) -> str:
    kind = type(step)
    for name, place in STEPS.items():
        if place == f"{kind.__module__.rpartition('.')[2]}:{kind.__name__}" and kind.__module__.startswith("hepfeed."):
            return name
    raise SpecError(f"{kind.__name__} is no step of hepfeed and can't be saved")


def _called(function: Function, batch: Batch) -> Batch:
    result: object = function(batch)
    if not isinstance(result, dict):
        name = getattr(function, "__name__", repr(function))
        raise TypeError(f"{name} must return a dict of arrays, not {type(result).__name__}")
    return result
