"""What cards and processors can do at most: as their maker states it, or as it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from hepfeed.bench.clock import Clock

__all__ = ["CARDS", "Card", "Work", "card_of", "measured"]

_ROWS = 4096
"""Of the square products that measure the peak of a device; a quarter of it on a processor."""
_COPIED = 256 << 20
"""Bytes that are copied to measure the memory."""


@dataclass(frozen=True)
class Work:
    """What a kernel can't do without.

    Attributes:
        bytes: Compulsory traffic: every number of inputs and outputs once.
        flops: Floating-point operations, a multiplication and an addition being two.
    """

    bytes: float
    flops: float = 0.0


@dataclass(frozen=True)
class Card:
    """Peak rates of a device.

    Attributes:
        name: What the driver's name of the card contains.
        bandwidth: Of its memory, in bytes a second.
        flops: Operations a second, by kind of numbers: ``"float32"``, ``"tf32"``, and ``"16"`` for bfloat16 and
            float16, summed in float32 and without structured sparsity.
        source: Where the numbers are from.
    """

    name: str
    bandwidth: float
    flops: dict[str, float]
    source: str

    def bound(self, work: Work, kind: str) -> float:
        """Return the seconds that the work takes at least: the roofline (Williams et al., CACM 52 (2009) 65).

        Bytes come from memory: what an earlier kernel has left in a cache can be had faster.

        Args:
            work: See there.
            kind: Of the numbers, as in :attr:`flops`.
        """
        return max(work.bytes / self.bandwidth, work.flops / self.flops[kind])


def _card(name: str, gigabytes: float, float32: float, tf32: float, half: float, source: str) -> Card:
    """A card by its gigabytes and TFLOP a second."""
    tera = {"float32": float32, "tf32": tf32, "16": half}
    return Card(name, gigabytes * 1e9, {kind: rate * 1e12 for kind, rate in tera.items()}, source)


CARDS = {
    "A100": _card("A100-SXM4-80GB", 2039, 19.5, 156, 312, "NVIDIA A100 data sheet, SXM 80 GB"),
    "A100-PCIe": _card("A100 80GB PCIe", 1935, 19.5, 156, 312, "NVIDIA A100 data sheet, PCIe 80 GB"),
    "L40S": _card("L40S", 864, 91.6, 183, 362.05, "NVIDIA L40S data sheet"),
    "RTX-4090": _card("RTX 4090", 1008, 82.6, 82.6, 165.2, "NVIDIA Ada GPU architecture white paper"),
    "H100": _card("H100 80GB HBM3", 3350, 67, 494.5, 989.5, "NVIDIA H100 data sheet, SXM"),
    "H100-PCIe": _card("H100 PCIe", 2000, 51, 378, 756, "NVIDIA H100 data sheet, PCIe"),
    "H200": _card("H200", 4800, 67, 494.5, 989.5, "NVIDIA H200 data sheet, SXM"),
    "B200": _card("B200", 7700, 75, 1100, 2250, "NVIDIA Blackwell data sheet, HGX B200"),
}
"""Cards by a short name, with what their maker states; products of tensor cores without structured sparsity."""


def card_of(device: torch.device) -> Card:
    """Return the peaks of a device: stated ones of a known card, or :func:`measured` ones."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for card in CARDS.values():
            if card.name in name:
                return card
    return measured(device)


def measured(device: torch.device) -> Card:
    """Measure a device: torch's copies for the memory, its products of square matrices for the rest.

    Kinds that the device does not have are those of float32.
    """
    clock = Clock(device)
    source = torch.empty(_COPIED // 4, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * _COPIED / min(clock.rounds(lambda: target.copy_(source), 3))
    rows = _ROWS if device.type == "cuda" else _ROWS // 4
    flops = {}
    before = torch.backends.cuda.matmul.allow_tf32
    for kind, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("16", torch.bfloat16)):
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        try:
            matrix = torch.ones(rows, rows, dtype=dtype, device=device)
            flops[kind] = 2 * rows**3 / min(clock.rounds(partial(torch.mm, matrix, matrix), 3))
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
    return Card("", bandwidth, flops, "measured: torch's copy and mm")
