"""Layouts: how event files of the field are stored, found out from the file or stated in a specification.

A key names numbers of each event:

====================================  ===============================================================================
``"ECAL"``, ``"hits/time"``           a data set
``"jets.pt"``                         a field of a compound data set; the longest path of a data set comes first, so
                                      that dots in names do no harm
``"jets[pt, eta]"``                   fields, stacked on a new last axis
``"HitData[1:4]"``, ``"x[0;2, 5]"``   items of a row: ranges, lists and numbers, an axis each
``"particles.px"``                    a named column of LHE or of a pandas frame (``"Tracks.energy"``);
                                      ``"particles[px, py]"`` several
``"Data/sparse3d_x_group/coords"``    ``coords (n, D) int32``, ``value`` and ``id`` of larcv3 voxels; with several
                                      projections ``".../0/coords"``
====================================  ===============================================================================

Events of different lengths make a key jagged.  They are recognised by names, types and contents (one module a layout):

====================  ===============================================================================================
``km3net``            ``_indices{index, n_items}`` beside flat columns; ``group_id`` of tables
``icetray``           ``__I3Index__/X{start, stop}``; the events are those of the first key's table, and others are
                      matched with it by run and event
``lhe``               ``start``, ``nparticles``
``larcv``             larcv3: two levels of extents
``region_reference``  HDF5 region references from events to hits (LArPix)
``packets``           raw LArPix packets, which have no events: an error that says so
``pynuml``            NuGraph: ``event_id.seq_cnt``
``pandas``            frames in the fixed and the table format
``offsets``           offsets or counts beside flat values
``variable_length``   HDF5 rows of variable length
``row_table``         rows with the number of their event
``dense``             none of these: every row of every data set is an event
====================  ===============================================================================================

A key with one row an event may stand beside jagged ones: row e is event e where the layout says so; where events have
numbers the row is found by the number, and a missing or doubled one is an error.  Nothing is guessed.

A specification may state the layout instead: a name of the list above, or a mapping of two options::

    layout:
      rows:                          # data set, group or pattern -> which of its rows make an event
        "hits/*": {start: hits/_indices.index, count: hits/_indices.n_items}
        tracks:   {start: index.first, stop: index.last}
        ECAL:     {offsets: ECAL/offsets}          # (events + 1,)
        jets:     {count: n_jets}                  # one event after another
        HitData:  {id: "HitData[0]"}               # the event of each row; [run, event] for several columns
        Summary:  {id: Summary.event, single: true}  # one row an event
        clusters: {references: events.cluster_ref}
      events: {id: "TruthData[0]"}   # the table of events: matches the ids; without it events are those that occur

What it does not name has a row an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py

from hepfeed.columns import FileEvents
from hepfeed.errors import SpecError, nearest
from hepfeed.schemas.contents import Contents, Layout, Offer, recognise
from hepfeed.schemas.explicit import read_explicit
from hepfeed.schemas.resolver import FINDERS, Resolver
from hepfeed.schemas.tree import Tree

__all__ = ["LAYOUTS", "Contents", "Layout", "Offer", "check_layout", "recognise", "resolve"]

LAYOUTS: tuple[str, ...] = (*FINDERS, "dense")
"""Names that a specification may give as ``layout``."""


def resolve(
    file: h5py.File, path: str, keys: Sequence[str], layout: Mapping[str, Any] | str | None = None
) -> FileEvents:
    """Find out which events a file has, and which rows of which data sets its keys stand for.

    Only what tells events apart is read: index tables, and columns of event numbers block by block.

    Args:
        file: Open file.
        path: Its path, for errors.
        keys: As in the package's docstring; those that the file lacks are left out of the result.
        layout: As a specification states it; None: to be found out.

    Raises:
        SpecError: Events can't be told apart, or those of several keys can't be matched; the message says what is
            missing.
        KeyMissingError: A layout names a column that the file lacks.
    """
    return Resolver(Tree(file, path), check_layout(layout)).resolve(keys)


def check_layout(layout: Any) -> dict[str, Any] | str | None:
    """Check the option ``layout`` of a sample, and return its one form: None, a name, or a mapping for JSON.

    Raises:
        SpecError: It is neither, or a part of it is wrong.
    """
    if layout is None:
        return None
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise SpecError(f"there is no layout {layout!r}; {nearest(layout, LAYOUTS)}")
        return layout
    if not isinstance(layout, Mapping):
        raise SpecError(f"layout must be a name such as 'km3net' or a mapping {{rows: ...}}, not {layout!r}")
    return read_explicit(layout).model_dump(mode="json", exclude_none=True, exclude_defaults=True)
