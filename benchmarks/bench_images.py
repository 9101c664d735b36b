"""The kernels on images against their NumPy twins, and against a copy of the same memory, in one process and thread.

Every result is compared with its twin's before it is timed.  Times are the best of several; ``of copy`` is the time
that copying as many bytes into memory already in use takes, over the kernel's time into such memory, for kernels that
only move data.

    python benchmarks/bench_images.py [WORD] [--json FILE]        kernels whose name has the word
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from race import best, write_table

from hepfeed import _images, images, noise, programs
from hepfeed.draws import Draws
from hepfeed.programs import Operation
from hepfeed.progress import progress_bars
from hepfeed.reference import images as reference

CALORIMETER = (64, 25, 25, 25)
WIRES = (8, 2, 240, 1024)
TURNS = (64, 256, 256)
COLOURED = (64, 64, 64, 3)


def events(shape: tuple[int, ...], occupancy: float = 1.0, dtype: str = "f4") -> Any:
    random = np.random.default_rng(0)
    return (random.exponential(3, shape) * (random.random(shape) < occupancy)).astype(dtype)


ZERO = np.zeros((), np.float32)


def draws(count: int) -> Draws:
    return Draws(1, 2, 0, np.stack([np.zeros(count), np.arange(count)], axis=1).astype(np.int64))


def offsets(values: Any) -> Any:
    return np.arange(len(values) + 1, dtype=np.int64) * math.prod(values.shape[1:])


class Case:
    """A kernel, its twin, and the kernel into memory in use, if it only moves data."""

    def __init__(self, name: str, values: Any, kernel: Any, twin: Any, into: Any = None, rtol: float = 0.0) -> None:
        self.name, self.values, self.kernel, self.twin, self.into, self.rtol = name, values, kernel, twin, into, rtol

    def run(self) -> dict[str, Any]:
        """Return the row of the table."""
        got, expected = (value[0] if isinstance(value, tuple) else value for value in (self.kernel(), self.twin()))
        np.testing.assert_allclose(got, expected, rtol=self.rtol, atol=self.rtol)
        ours, theirs = best(self.kernel), best(self.twin, 3)
        row = {"kernel": self.name, "ms": 1e3 * ours, "ns an item": 1e9 * ours / self.values.size}
        row["twin / kernel"] = theirs / ours
        if self.into is not None:
            out = np.zeros_like(got)
            source = np.ones_like(got)
            row["of copy, %"] = 100 * best(lambda: np.copyto(out, source)) / best(lambda: self.into(out))
        return row


def movements() -> list[Case]:
    cases = []
    for name, shape in (("calorimeter", CALORIMETER), ("wires", WIRES)):
        values = events(shape)
        count, axes = len(values), values.ndim - 1
        random = np.random.default_rng(0)
        for axis in range(axes):
            flags = np.zeros((count, axes), bool)
            flags[:, axis] = True
            cases.append(
                Case(
                    f"flip axis {axis}, {name} {shape}",
                    values,
                    lambda v=values, f=flags: images.flip(v, f),
                    lambda v=values, f=flags: reference.flip(v, f),
                    lambda out, v=values, f=flags: _images.flip(v, out, f.view(np.uint8)),
                )
            )
        shift = random.integers(-5, 6, (count, axes))
        cases.append(
            Case(
                f"translate, {name}",
                values,
                lambda v=values, s=shift: images.window(v, s, v.shape[1:]),
                lambda v=values, s=shift: reference.window(v, s, v.shape[1:]),
                lambda out, v=values, s=shift: _images.window(v, out, s, ZERO),
            )
        )
        half = tuple(max(1, n // 2) for n in values.shape[1:])
        start = random.integers(0, 2, (count, axes))
        cases.append(
            Case(
                f"crop to half of each axis, {name}",
                values,
                lambda v=values, s=start, h=half: images.window(v, s, h),
                lambda v=values, s=start, h=half: reference.window(v, s, h),
                lambda out, v=values, s=start: _images.window(v, out, s, ZERO),
            )
        )
    for name, shape, axes, dtype in (
        ("plane f4", TURNS, (0, 1), "f4"),
        ("plane f2", TURNS, (0, 1), "f2"),
        ("calorimeter last axes f4", CALORIMETER, (1, 2), "f4"),
        ("calorimeter first axes f4", CALORIMETER, (0, 1), "f4"),
    ):
        values = events(shape, dtype=dtype)
        for quarter in (1, 2):
            quarters = np.full(len(values), quarter, np.uint8)
            cases.append(
                Case(
                    f"rotate90 x {quarter}, {name}",
                    values,
                    lambda v=values, q=quarters, a=axes: images.rotate90(v, q, a),
                    lambda v=values, q=quarters, a=axes: reference.rotate90(v, q, a),
                    lambda out, v=values, q=quarters, a=axes: _images.rotate90(v, out, *a, q),
                )
            )
    values = events(WIRES)
    keep = np.random.default_rng(0).random((len(values), 240)) < 0.9
    cases.append(
        Case(
            "drop_slices, wires",
            values,
            lambda: images.drop_slices(values, keep, 1),
            lambda: reference.drop_slices(values, keep, 1),
            lambda out: _images.drop_slices(values, out, 1, keep.view(np.uint8)),
        )
    )
    sparse = events(CALORIMETER, 0.01)
    cases.append(
        Case("extents, calorimeter 1 %", sparse, lambda: images.extents(sparse), lambda: reference.extents(sparse))
    )
    return cases


def blocks() -> list[Case]:
    cases = []
    for reduce in ("sum", "mean", "max"):
        for dtype, shape, factor in (
            ("f4", (8, 240, 1024), (2, 2)),
            ("f4", (8, 240, 1024), (4, 4)),
            ("f2", (8, 240, 1024), (4, 4)),
            ("u1", (8, 240, 1024), (3, 8)),
        ):
            values = np.minimum(events(shape), 200).astype(dtype)
            cases.append(
                Case(
                    f"block {reduce} {factor} {dtype} {shape}",
                    values,
                    lambda v=values, f=factor, r=reduce: images.block_reduce(v, f, r),
                    lambda v=values, f=factor, r=reduce: _blocks_numpy(v, f, r),
                    rtol=1e-6,
                )
            )
    return cases


def _blocks_numpy(values: Any, factor: Any, reduce: str) -> Any:
    """Return the usual way: a view with an axis for each block.  The twin's loop over blocks is much slower."""
    wide = values if reduce == "max" else values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    b, h, w = values.shape
    view = wide.reshape(b, h // factor[0], factor[0], w // factor[1], factor[1])
    made = getattr(view, reduce)(axis=(2, 4))
    return made.astype(images.reduced_type(values.dtype, reduce))


def resampling() -> list[Case]:
    values = events((16, 128, 128), 0.3)
    angle = np.random.default_rng(0).uniform(-3, 3, len(values))
    matrix = np.stack([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    volume = events((8, 25, 25, 25), 0.3)
    zoom = np.eye(3) * np.linspace(0.8, 1.2, 8)[:, None, None]
    some = draws(4)
    cases = []
    for order in (0, 1):
        cases += [
            Case(
                f"rotate order {order}, (128, 128)",
                values,
                lambda o=order: images.warp(values, (0, 1), o, matrix=matrix),
                lambda o=order: reference.warp(values, (0, 1), o, matrix=matrix),
                rtol=1e-6,
            ),
            Case(
                f"zoom order {order}, (25, 25, 25)",
                volume,
                lambda o=order: images.warp(volume, (0, 1, 2), o, matrix=zoom),
                lambda o=order: reference.warp(volume, (0, 1, 2), o, matrix=zoom),
                rtol=1e-6,
            ),
        ]
    cases.append(
        Case(
            "elastic field sigma 4, (128, 128)",
            values[:4],
            lambda: images.elastic_field(some, (128, 128), 30, 4),
            lambda: reference.elastic_field(some, (128, 128), 30, 4),
            rtol=1e-5,
        )
    )
    return cases


def functions() -> list[Case]:
    values = events((64, 16384))
    channels = events((64, 3, 4096))
    last = events(COLOURED)
    three = Operation("linear", (1.0, 2.0, 3.0), (0.5, 0.25, 4.0))
    each: list[tuple[str, Any, list[Operation], int | None]] = [
        ("linear f4", values, [Operation("linear", 1.5, 0.3)], None),
        ("linear f4, 3 channels first", channels, [three], 1),
        ("linear f4, 3 channels last", last, [three], 3),
        ("linear u1", values.astype("u1"), [Operation("linear", 1.5, 0.3)], None),
        ("linear f2", values.astype("f2"), [Operation("linear", 1.5, 0.3)], None),
        ("clip f4", values, [Operation("clip", 1.0, 4.0)], None),
        ("log f4", values, [Operation("log", 1.0)], None),
        ("log f8", values.astype("f8"), [Operation("log", 1.0)], None),
        ("log_tanh f4", values, [Operation("log_tanh", 0.3)], None),
        (
            "clip, log, linear f4",
            values,
            [Operation("clip", 0.0, 9.0), Operation("log", 1.0), Operation("linear", 1.0, 0.5)],
            None,
        ),
    ]
    return [
        Case(
            f"program {name}",
            v,
            lambda v=v, p=program, a=axis: programs.run_program(v, p, a),
            lambda v=v, p=program, a=axis: reference.run_program(v, p, a),
            rtol=1e-6,
        )
        for name, v, program, axis in each
    ]


def randomness() -> list[Case]:
    values, sparse = events((16, 16384)), events((16, 16384), 0.01)
    some, many, where = draws(16), draws(1024), offsets(values)
    few = events((2, 2048), 0.2) * 20
    return [
        Case("raw 16384", values, lambda: some.raw(16384), lambda: reference.raw(some, 16384)),
        Case("uniform 16384", values, lambda: some.uniform(16384), lambda: reference.uniform(some, 16384)),
        Case("normal 16384", values, lambda: some.normal(16384), lambda: reference.normal(some, 16384), rtol=1e-12),
        Case("uniform 3, 1024 events", many.event, lambda: many.uniform(3), lambda: reference.uniform(many, 3)),
        Case(
            "normal 2, 1024 events", many.event, lambda: many.normal(2), lambda: reference.normal(many, 2), rtol=1e-12
        ),
        Case(
            "gaussian noise",
            values,
            lambda: noise.gaussian_noise(values, where, some, 0.5),
            lambda: reference.gaussian_noise(values, where, some, 0.5),
            rtol=1e-6,
        ),
        Case(
            "gaussian noise of 1 % active",
            sparse,
            lambda: noise.gaussian_noise(sparse, where, some, 0.5, only_active=True),
            lambda: reference.gaussian_noise(sparse, where, some, 0.5, only_active=True),
            rtol=1e-6,
        ),
        Case(
            "poisson noise of 20 % active",
            few,
            lambda: noise.poisson_noise(few, offsets(few), draws(2)),
            lambda: reference.poisson_noise(few, offsets(few), draws(2)),
        ),
        Case(
            "drop items",
            values,
            lambda: noise.drop_items(values, where, some, 0.1),
            lambda: reference.drop_items(values, where, some, 0.1),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("word", nargs="?", default="", help="in the names of what is measured")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    groups = (movements, blocks, resampling, functions, randomness)
    cases = [case for group in groups for case in group() if options.word in case.name]
    rows = []
    with progress_bars() as progress:
        for number, case in enumerate(cases):
            rows.append(case.run())
            progress("kernels", number + 1, len(cases))
    settings = {"instruction set": _images.isa(), "NumPy": np.__version__}
    write_table("kernels on images, best times, one thread", rows, settings, options.json)


if __name__ == "__main__":
    main()
