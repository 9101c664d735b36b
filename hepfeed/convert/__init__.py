"""Other formats into HDF5 events.

======================== ===================================================================
function                 format
======================== ===================================================================
:func:`convert_npz`      arrays of ``.npz`` archives, by name; the first axis counts events
:func:`convert_root`     trees and RNTuples of ROOT files, through uproot
:func:`convert_larcv`    larcv3 HDF5: sparse images, particles and event numbers
:func:`convert_dune_cvn` DUNE pixel maps: a zlib stream and a text file an event
======================== ===================================================================

Every event arrives, in the order of the sources; types are kept, in the byte order of the machine.  A dense key is a
data set ``(N, *shape)``; rows of events of different lengths are a group with one data set a column and ``offsets``
``(N + 1,) int64``; the sites of an image are such a group with ``coords (T, D)`` int16 or int32, ``value (T,)`` and
the attribute ``spatial_shape``.  A file appears under its name when it is complete and on the disk; a conversion that
was interrupted goes on where it was.  Attributes of each file say where its events come from, see
:mod:`hepfeed.convert.provenance`.
"""

from hepfeed.convert.dune_cvn import (
    IMAGE_SHAPE,
    INFO_LINES,
    PixelMapForm,
    convert_dune_cvn,
    read_info,
    read_pixel_map,
)
from hepfeed.convert.form import Form
from hepfeed.convert.larcv import convert_larcv
from hepfeed.convert.npz import convert_npz
from hepfeed.convert.report import Converted, Skipped
from hepfeed.convert.root import convert_root
from hepfeed.convert.settings import ConvertOptions, OnError, Settings

__all__ = [
    "IMAGE_SHAPE",
    "INFO_LINES",
    "ConvertOptions",
    "Converted",
    "Form",
    "OnError",
    "PixelMapForm",
    "Settings",
    "Skipped",
    "convert_dune_cvn",
    "convert_larcv",
    "convert_npz",
    "convert_root",
    "read_info",
    "read_pixel_map",
]
