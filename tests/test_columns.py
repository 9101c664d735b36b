"""Keys, the parts of rows that they stand for, and which rows make an event."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepfeed.columns import Column, Extents, parse_items, parse_key
from hepfeed.errors import SpecError

ROWS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
JETS = np.array([(1, 0.5, (7, 8)), (2, 1.5, (9, 10))], [("pt", "i4"), ("eta", "f4"), ("tag", "i2", (2,))])


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("ECAL", ("ECAL", (), "")),
        ("/hits/time/", ("hits/time", (), "")),
        ("jets.pt", ("jets.pt", (), "")),
        ("jets[pt]", ("jets", ("pt",), "")),
        ("jets[pt, eta]", ("jets", ("pt", "eta"), "")),
        ("HitData[1:4]", ("HitData", (), "1:4")),
        ("x[0, ::2 ,-1]", ("x", (), "0, ::2, -1")),
        ("x[1;3;6]", ("x", (), "1;3;6")),
        ("x[0;-2, 1:]", ("x", (), "0;-2, 1:")),
    ],
)
def test_a_key_is_a_path_with_fields_or_items(key, parts):
    assert parse_key(key) == parts


@pytest.mark.parametrize("key", ["", "/", "[1]", "x[1", "x]", "x[1][2]", "x[a, 1]", "x[a,]", "x[]"])
def test_other_texts_are_no_keys(key):
    with pytest.raises(SpecError):
        parse_key(key)


def test_items_are_numbers_ranges_and_lists():
    assert parse_items("0, 1:4, 3;5;7, ::-1, -2") == (0, slice(1, 4), [3, 5, 7], slice(None, None, -1), -2)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("1", ROWS[:, 1]),
        ("0:2", ROWS[:, 0:2]),
        (":, 3", ROWS[:, :, 3]),
        ("2;0", ROWS[:, [2, 0]]),
        ("1, 0;3", ROWS[:, 1][:, [0, 3]]),
        ("0;2, 1", ROWS[:, [0, 2]][:, :, 1]),
        ("0;2, 3;1;1", ROWS[:, [0, 2]][:, :, [3, 1, 1]]),  # each axis for itself, not pair by pair
        ("0;2, 1:3", ROWS[:, [0, 2]][:, :, 1:3]),
    ],
)
def test_items_take_of_each_axis_what_they_say(items, expected):
    made = Column("x", items=items).apply(ROWS)
    np.testing.assert_array_equal(made, expected)
    assert Column("x", items=items).form(ROWS.dtype, ROWS.shape[1:]) == (ROWS.dtype, expected.shape[1:])


axis_parts = st.one_of(
    st.integers(-3, 2).map(str),
    st.lists(st.integers(-3, 2), min_size=2, max_size=4).map(lambda numbers: ";".join(map(str, numbers))),
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)).map(lambda ends: f"{ends[0]}:{ends[1]}"),
)


@given(st.lists(axis_parts, min_size=1, max_size=3))
def test_items_are_taken_axis_by_axis(parts):
    rows = np.arange(2 * 27).reshape(2, 3, 3, 3)
    grid = [np.arange(3)[_picked(part)] for part in parts]
    expected = rows[np.ix_(np.arange(2), *(np.atleast_1d(g) for g in grid))]
    gone = tuple(axis for axis, g in enumerate(grid, 1) if np.ndim(g) == 0)
    np.testing.assert_array_equal(Column("x", items=", ".join(parts)).apply(rows), expected.squeeze(gone))


def _picked(part):
    if ":" in part:
        first, last = part.split(":")
        return slice(int(first), int(last))
    return [int(n) for n in part.split(";")] if ";" in part else int(part)


def test_items_beyond_a_row_are_an_error_that_has_its_shape():
    for items in ("3", "0, 0, 0", "0;3"):
        with pytest.raises(SpecError, match=r"is not within a row of 'x', which has shape \(3, 4\)"):
            Column("x", items=items).apply(ROWS)


def test_several_fields_are_stacked_in_a_type_that_holds_all():
    made = Column("jets", ("pt", "eta")).apply(JETS)
    assert made.dtype == np.float64  # of int32 and float32
    assert made.tolist() == [[1, 0.5], [2, 1.5]]
    assert Column("jets", ("tag",), "1").apply(JETS).tolist() == [8, 10]
    assert Column("jets", ("tag",)).form(JETS.dtype, ()) == (np.dtype("i2"), (2,))


def test_a_field_that_is_missing_is_named_with_the_nearest():
    with pytest.raises(SpecError, match="no field 'eat': did you mean 'eta'"):
        Column("jets", ("eat",)).apply(JETS)
    with pytest.raises(SpecError, match="it has no fields"):
        Column("x", ("pt",)).apply(ROWS)


def test_flat_voxel_numbers_become_coordinates_in_c_order():
    column = Column("voxels", ("id",), unravel=(2, 3, 4))
    rows = np.array([(0,), (23,), (6,)], [("id", "u8")])
    assert column.apply(rows).tolist() == [[0, 0, 0], [1, 2, 3], [0, 1, 2]]
    assert column.form(rows.dtype, ()) == (np.dtype("i4"), (3,))
    assert column.apply(rows[:0]).shape == (0, 3)
    with pytest.raises(SpecError, match="voxel 24, beyond its grid"):
        column.apply(np.array([(24,)], rows.dtype))


def test_extents_of_counts_lie_one_after_another():
    extents = Extents.of_counts(np.array([2, 0, 3], np.uint8))
    assert (extents.start.tolist(), extents.count.tolist(), len(extents)) == ([0, 2, 2], [2, 0, 3], 3)
    again = Extents.frombytes(extents.tobytes())
    assert (again.start.tolist(), again.count.tolist()) == ([0, 2, 2], [2, 0, 3])


def test_the_form_of_a_column_is_that_of_what_it_reads(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["jets"] = JETS.astype([("pt", ">i4"), ("eta", ">f4"), ("tag", ">i2", (2,))])
        node = file["jets"]
        for column in (Column("jets", ("pt",)), Column("jets", ("eta", "pt")), Column("jets", ("tag",), "0;1")):
            made = column.apply(node[:])
            assert column.form(node.dtype, node.shape[1:]) == (made.dtype.newbyteorder("="), made.shape[1:])
