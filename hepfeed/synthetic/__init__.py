"""Physics-like events from published parametrisations, for tests, benchmarks and for trying things out.

The same seed gives the same bits, with any number of worker processes.

    >>> from hepfeed.synthetic import make_lcd
    >>> lecture = make_lcd("data", files=2, events=1000, compression="gzip")

makes ``data/EleEscan/EleEscan_1.h5`` and so on, and returns the list that a sample specification is made of.
"""

from hepfeed.synthetic.argon import SEMANTIC
from hepfeed.synthetic.event import EventGenerator, Ragged
from hepfeed.synthetic.lartpc import LartpcGenerator
from hepfeed.synthetic.lcd import LcdGenerator
from hepfeed.synthetic.make import make_lartpc, make_lcd, make_next, make_vertices
from hepfeed.synthetic.next_tracks import NextGenerator
from hepfeed.synthetic.profile import plot_profiles
from hepfeed.synthetic.vertices import VertexGenerator
from hepfeed.synthetic.writer import write_files

__all__ = [
    "SEMANTIC",
    "EventGenerator",
    "LartpcGenerator",
    "LcdGenerator",
    "NextGenerator",
    "Ragged",
    "VertexGenerator",
    "make_lartpc",
    "make_lcd",
    "make_next",
    "make_vertices",
    "plot_profiles",
    "write_files",
]
