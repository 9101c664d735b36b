"""The native kernels against NumPy and the libraries' own bindings; each asserts the result that it times.

pytest -n0 benchmarks/bench_core.py --benchmark-group-by=group --benchmark-columns=median,iqr,rounds
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import deflate
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hepfeed import _core
from hepfeed.inflaters import register_inflaters

ITEMS = 1 << 20


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Any:
    """Each instruction set that this processor has."""
    before = _core.isa()
    try:
        _core.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    _core.set_isa(before)


@pytest.mark.parametrize("item", [2, 4, 8])
def test_unshuffle(benchmark: BenchmarkFixture, isa: str, item: int) -> None:
    benchmark.group = f"unshuffle {item} bytes"
    data = np.random.default_rng(0).integers(0, 256, (ITEMS, item), np.uint8)
    planes = np.ascontiguousarray(data.T).tobytes()
    assert benchmark(_core.unshuffle, planes, item) == data.tobytes()


@pytest.mark.parametrize("item", [2, 4, 8])
def test_unshuffle_numpy(benchmark: BenchmarkFixture, item: int) -> None:
    benchmark.group = f"unshuffle {item} bytes"
    data = np.random.default_rng(0).integers(0, 256, (ITEMS, item), np.uint8)
    planes = np.ascontiguousarray(data.T)
    assert benchmark(lambda: planes.T.tobytes()) == data.tobytes()


@pytest.mark.parametrize(("source", "target"), [("f2", "f4"), ("f4", "f2"), ("u1", "f4"), ("i4", "f4"), ("f8", "f4")])
@pytest.mark.parametrize("how", ["native", "numpy"])
def test_convert(benchmark: BenchmarkFixture, source: str, target: str, how: str) -> None:
    benchmark.group = f"convert {source} to {target}"
    values = np.random.default_rng(0).normal(0, 30, ITEMS)
    data = (values if source[0] == "f" else np.abs(values)).astype(source)
    raw = data.tobytes()
    sizes = int(source[1]), int(target[1])
    function: Callable[[], bytes] = {
        "native": lambda: _core.convert(raw, source, target, *sizes),
        "numpy": lambda: data.astype(target).tobytes(),
    }[how]
    assert benchmark(function) == data.astype(target).tobytes()


def sparse_event() -> bytes:
    """62.5 kB of a calorimeter event, 4 % of it above zero."""
    random = np.random.default_rng(0)
    event = np.zeros(15625, np.float32)
    hit = random.random(len(event)) < 0.04
    event[hit] = random.exponential(0.1, int(hit.sum()))
    return event.tobytes()


@pytest.mark.parametrize("library", ["libdeflate", "zlib-ng", "deflate package", "zlib module"])
def test_inflate(benchmark: BenchmarkFixture, library: str) -> None:
    benchmark.group = "inflate one calorimeter event"
    raw = sparse_event()
    packed = zlib.compress(raw, 4)
    if library == "deflate package":
        assert bytes(benchmark(deflate.zlib_decompress, packed, len(raw))) == raw
    elif library == "zlib module":
        assert benchmark(zlib.decompress, packed) == raw
    elif library not in register_inflaters():
        pytest.skip(f"{library} is not installed")
    else:
        assert benchmark(_core.inflate, library, packed, len(raw)) == raw


def test_fletcher32(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "fletcher32 of 1 MiB"
    data = bytes(range(256)) * 4096
    words = np.frombuffer(data, ">u2").astype(np.uint64)
    low = int(words.sum() % 65535)
    high = int((words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum() % 65535)
    assert benchmark(_core.fletcher32, data) % 65535 == (high << 16 | low) % 65535
