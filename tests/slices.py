"""Reading events with h5py as a resolved layout says, the plainest way there is."""

import numpy as np

__all__ = ["event"]


def event(file, found, key, number):
    """Return one event of a key: an array of its rows, or of its one row where the key is dense."""
    column = found.columns[key]
    node = file[column.dataset]
    if column.variable:
        cells = node[number]
        rows = np.stack(list(cells), -1) if node.ndim == 2 else np.asarray(cells)
        return column.apply(rows)
    if not column.rows:
        return column.apply(node[number : number + 1])[0]
    extents = found.extents[column.rows]
    first = int(extents.start[number])
    rows = column.apply(node[first : first + int(extents.count[number])])
    return rows[0] if column.single else rows
