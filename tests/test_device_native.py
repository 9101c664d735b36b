"""Whether there are device kernels, and what is said where they can't be used."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from hepfeed.device import native
from hepfeed.errors import SpecError


@pytest.fixture
def machine(monkeypatch):
    """Let hepfeed find these devices; called with what the runtime, torch and the cards say."""

    def found(devices=(1, ""), torch_has_cuda=True, capabilities=((9, 0),)):
        module = SimpleNamespace(devices=lambda: devices)
        monkeypatch.setattr(importlib, "import_module", lambda name: module)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_has_cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device])
        return module

    native._module.cache_clear()
    yield found
    native._module.cache_clear()


def test_a_card_that_is_new_enough_is_used(machine):
    module = machine(capabilities=((7, 5), (8, 0)))
    assert native.available()
    assert native.why_not() == ""
    assert native.kernels() is module


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"devices": (0, "no CUDA-capable device is detected")}, "no CUDA-capable device is detected; nvidia-smi"),
        ({"torch_has_cuda": False}, "this torch has no CUDA: install one"),
        ({"capabilities": ((7, 0), (7, 5))}, "need a card of compute capability 8.0 or later, and this one has 7.5"),
    ],
    ids=["no device", "torch without CUDA", "an old card"],
)
def test_what_is_missing_is_said(machine, found, words):
    machine(**found)
    assert not native.available()
    assert words in native.why_not()
    with pytest.raises(SpecError, match=r"CUDA|compute capability"):
        native.kernels()
