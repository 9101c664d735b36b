"""Mean longitudinal and transverse profiles of classes of events, as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from hepfeed.synthetic.event import EventGenerator, stream


def plot_profiles(
    path: str | os.PathLike[str], generators: Sequence[EventGenerator], *, seed: int = 0, events: int = 128
) -> None:
    """Draw the mean profiles of each class with matplotlib, into a file whose suffix says which format.

    The events are the first of file 1 of that seed, made again, so that it doesn't matter how files are laid
    out.

    Args:
        path: Where to.
        generators: One a class; all of one detector.
        seed: Seed of the events.
        events: Events of each class to average, at least; whole blocks are made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for generator in generators:
        blocks = [
            generator.profiles(
                generator.generate(stream(seed, generator.name, 1, index), generator.block, ragged=False)
            )
            for index in range(-(-events // generator.block))
        ]
        for panel, profile, axis in zip(panels, zip(*blocks, strict=True), generator.axes, strict=True):
            mean = np.mean(profile, axis=0)
            panel.stairs(mean / mean.sum(), label=generator.name)
            panel.set(xlabel=axis, ylabel="part of the energy")
    panels[0].legend()
    figure.savefig(path)
