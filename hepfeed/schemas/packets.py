"""LArPix packets: rows in the order of readout, which tell nothing of events."""

from __future__ import annotations

from collections.abc import Iterator

from hepfeed.schemas.table import Table, Unreadable
from hepfeed.schemas.tree import Tree

__all__ = ["find"]


def find(tree: Tree) -> Iterator[Table]:
    """Yield tables of packets, as what can't be fed."""
    for path in tree.paths:
        if {"packet_type", "timestamp", "dataword"} <= set(tree.fields(path)):
            reason = (
                f"{tree.rows(path):,} LArPix packets in the order of readout ({path}) without event boundaries: "
                "build events of them first, e.g. by gaps in time, or name a column of event numbers, as in "
                f"layout: {{rows: {{{path}: {{id: ...}}}}}}"
            )
            yield Unreadable("packets", path, (path,), "packets", reason, reason=reason)
