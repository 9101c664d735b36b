"""NVTX ranges: of which processes, with which names, and that each that begins ends."""

import sys

import cloudpickle
import numpy as np
import pytest
import torch
from events import write_classes

import hepfeed as hf
from hepfeed import ranges
from hepfeed.device.steps import DeviceSteps
from hepfeed.draws import Draws
from hepfeed.errors import HepfeedError
from hepfeed.transforms import Log, Normalise

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Recorder:
    """Stands in for ``torch.cuda.nvtx``."""

    def __init__(self):
        self.open = []
        self.seen = []

    def range_push(self, name):
        self.open.append(name)
        self.seen.append(name)
        return len(self.open) - 1

    def range_pop(self):
        self.open.pop()
        return len(self.open)


@pytest.fixture
def nvtx(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "nvtx", recorder)
    return recorder


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="this process uses CUDA")
def test_nothing_is_marked_in_a_process_without_cuda(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(torch.cuda, "nvtx", recorder)
    with ranges.nvtx_range("wait"), ranges.nvtx_range("steps"):
        pass
    assert recorder.seen == []


def test_neither_torch_nor_cuda_is_begun_for_a_range(run_script):
    script = """
        import sys
        from hepfeed.ranges import nvtx_range
        with nvtx_range("wait"):
            print("torch" in sys.modules)
    """
    assert run_script(script).split() == ["False"]


def test_ranges_nest_and_end_with_an_exception(nvtx):
    def fail():
        assert nvtx.open == ["hepfeed: steps", "hepfeed: Log"]
        raise KeyError

    with pytest.raises(KeyError), ranges.nvtx_range("steps"), ranges.nvtx_range("Log"):
        fail()
    assert nvtx.open == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_epoch_is_marked_and_all_its_ranges_end(nvtx, tmp_path, num_workers):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [12]}))
    with hf.DataLoader(dataset, batch_size=4, num_workers=num_workers, device="cpu", device_transform=[]) as loader:
        for _ in loader:
            assert nvtx.open == [], "the loop's own work is in none"
    assert nvtx.open == []
    assert {"hepfeed: dispatch", "hepfeed: collate", "hepfeed: steps"} <= set(nvtx.seen)
    assert ("hepfeed: wait" in nvtx.seen) == (num_workers > 0)


def test_ranges_end_where_the_feed_raises(nvtx, tmp_path):
    dataset = hf.EventDataset(write_classes(tmp_path, {"electron": [12]}), transform=_refuse)
    with hf.DataLoader(dataset, batch_size=4, num_workers=1) as loader, pytest.raises(HepfeedError):
        next(iter(loader))
    assert "hepfeed: wait" in nvtx.seen
    assert nvtx.open == []


def test_workers_of_any_dataset_are_waited_for_in_a_range(nvtx):
    dataset = torch.utils.data.TensorDataset(torch.arange(8))
    with hf.DataLoader(dataset, batch_size=4, num_workers=1) as loader:
        assert len(list(loader)) == 2
    assert {"hepfeed: wait", "hepfeed: collate"} <= set(nvtx.seen)
    assert nvtx.open == []


def test_steps_of_a_device_are_marked_by_name(nvtx, backend):
    steps = DeviceSteps([Normalise(keys="x", mean=1.0, std=2.0)])
    event = np.stack([np.zeros(3), np.arange(3)], axis=1).astype(np.int64)
    batch = {"x": torch.ones(3, 4, device=backend.device), "event": torch.from_numpy(event).to(backend.device)}
    steps(batch, Draws(1, 0, 0, event))
    assert nvtx.seen == ["hepfeed: steps", "hepfeed: Normalise"]
    refusing = DeviceSteps([Log(keys="missing")])
    with pytest.raises(HepfeedError):
        refusing(batch, Draws(1, 0, 0, event))
    assert nvtx.open == []


def _refuse(batch):
    raise ValueError("no batch is good enough")
