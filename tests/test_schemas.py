"""Layouts: the events of every file of ``layout_files``, cut out with h5py as the layout says, and what is refused."""

import re
from pathlib import Path

import h5py
import layout_files
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import COUNTS, EVENTS, FILES, IDS, ROWS, STARTS, numbers, parts, table
from slices import event

from hepfeed.errors import KeyMissingError, SpecError
from hepfeed.schemas import LAYOUTS, check_layout, recognise, resolve
from hepfeed.schemas.match import places, union


@pytest.fixture
def write(tmp_path):
    """Write a file with these data sets (two underscores for a slash), or a mapping of them, and open it."""
    opened = []

    def made(mapping=(), **datasets):
        path = tmp_path / f"{len(opened)}.h5"
        with h5py.File(path, "w") as file:
            for name, values in {**dict(mapping), **{n.replace("__", "/"): v for n, v in datasets.items()}}.items():
                file[name] = values
        opened.append(h5py.File(path))
        return opened[-1]

    yield made
    for file in opened:
        file.close()


def find(file, keys, layout=None):
    return resolve(file, file.filename, [keys] if isinstance(keys, str) else keys, layout)


def starts(found, key):
    extents = found.extents[found.columns[key].rows]
    return list(zip(extents.start.tolist(), extents.count.tolist()))


def check_events(path, expected):
    """Compare every event of every key with what the file was written from."""
    with h5py.File(path) as file:
        found = resolve(file, str(path), expected.keys, expected.layout)
        assert found.events == expected.events
        assert list(found.columns) == expected.keys
        for key in expected.keys:
            wanted = expected.jagged.get(key, expected.dense.get(key))
            assert found.columns[key].jagged == (key in expected.jagged)
            for number in range(found.events):
                got = event(file, found, key, number)
                np.testing.assert_array_equal(got, wanted[number], err_msg=f"{key}, event {number}")
                assert got.dtype.newbyteorder("=") == wanted[number].dtype.newbyteorder("=")
        return found


@pytest.mark.parametrize("name", FILES)
def test_every_event_of_every_layout_is_what_was_written(tmp_path, name):
    check_events(tmp_path / "a.h5", FILES[name](tmp_path / "a.h5"))


@pytest.mark.parametrize("name", FILES)
def test_each_key_alone_gives_the_same_events_as_with_the_others(tmp_path, name):
    expected = FILES[name](tmp_path / "a.h5")
    for key in expected.keys:
        kind = "jagged" if key in expected.jagged else "dense"
        alone = layout_files.Events(**{kind: {key: getattr(expected, kind)[key]}}, layout=expected.layout)
        if name in ("icetray", "row_table") and key in expected.dense:
            continue  # there the first key, or the table of events, has an order of its own
        check_events(tmp_path / "a.h5", alone)


def test_an_event_of_a_million_voxels_is_one_event(tmp_path):
    check_events(tmp_path / "a.h5", layout_files.larcv3_million(tmp_path / "a.h5"))


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("stated_start", "stated_id")])
def test_what_is_offered_can_be_fed_together(tmp_path, name):
    expected = FILES[name](tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        contents = recognise(file, file.filename)
        found = resolve(file, file.filename, list(contents.keys))
        assert contents.events == found.events == expected.events
        assert contents.faults == ()
        for key, offer in contents.keys.items():
            got = event(file, found, key, 0)
            assert found.columns[key].jagged == offer.jagged
            assert got.shape[int(offer.jagged) :] == offer.shape
            assert str(got.dtype.newbyteorder("=")) == offer.dtype
        plain = {
            key for key in expected.keys if "[" not in key and key != "events" and not key.endswith(("n_items", "_0"))
        }
        assert plain - {"table.is_signal_new"} <= set(contents.keys)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name in FILES])
def test_the_name_of_a_layout_may_be_stated(tmp_path, name):
    expected = FILES[name](tmp_path / "a.h5")
    expected.layout = name
    check_events(tmp_path / "a.h5", expected)


def test_a_layout_that_does_not_fit_its_file_is_an_error(write):
    file = write(image=np.zeros((3, 4)))
    with pytest.raises(SpecError, match=r"is not of the layout 'km3net': leave the option layout out"):
        find(file, "image", "km3net")
    assert find(file, "image", "dense").events == 3


# ---- keys


def test_keys_that_a_file_lacks_are_left_out(write):
    file = write(image=np.zeros((3, 4)), jets=table(3, pt="f4"), a__b=np.zeros(3))
    found = find(file, ["ECAL", "image", "jets.eta", "jets.pt", "jets[pt, eta]", "a", "a/b.c"])
    assert set(found.columns) == {"image", "jets.pt"}
    assert find(file, ["ECAL"]).columns == {}


def test_the_longest_data_set_comes_before_a_field(write):
    file = write({"a": table(3, **{"b.c": "f4", "b": "i4"}), "a.b": table(3, c="f8", d="f8")})
    columns = find(file, ["a.b.c", "a.b.d", "a.b"]).columns
    assert [(c.dataset, c.fields) for c in columns.values()] == [("a.b", ("c",)), ("a.b", ("d",)), ("a.b", ())]


def test_a_single_value_has_no_events(write):
    with pytest.raises(SpecError, match="single value without an event axis"):
        find(write(version=7), "version")


def test_data_sets_behind_links_are_read(write):
    file = write(real=np.zeros((3, 2)))
    path = file.filename
    file.close()
    with h5py.File(path, "a") as file:
        file["soft"] = h5py.SoftLink("/real")
        assert find(file, "soft").events == 3


# ---- dense


def test_keys_with_different_numbers_of_rows_are_an_error_that_lists_them(write):
    file = write(a=np.zeros((3, 4)), b=np.zeros(5))
    with pytest.raises(SpecError, match="differ in their number of events: 'a' has 3, 'b' has 5"):
        find(file, ["a", "b"])


def test_flat_rows_are_not_fed_as_events_where_the_events_are_known(tmp_path):
    FILES["km3net"](tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert find(file, "hits/time").events == EVENTS
        with pytest.raises(SpecError, match=r"'raw_header' has 18 rows, but there are 6 events"):
            find(file, "raw_header")
        assert find(file, "hits/time", "dense").events == ROWS


def test_dense_keys_beside_jagged_ones_have_as_many_rows_as_events(tmp_path):
    FILES["lhe"](tmp_path / "a.h5")
    with (
        h5py.File(tmp_path / "a.h5") as file,
        pytest.raises(SpecError, match=r"'init' has 10 rows or entries, but 'particles' have 6 events"),
    ):
        find(file, ["particles.px", "init"])


def test_a_dense_file_is_read_row_by_row(tmp_path):
    FILES["dense"](tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        found = find(file, ["ECAL", "pdgID"])
        assert (found.layout, found.extents) == ("", {})
        assert not any(column.rows for column in found.columns.values())


# ---- each layout


def test_km3net_tables_are_matched_by_group(write):
    index = np.array([(0, 2), (2, 0), (2, 1)], [("index", "i8"), ("n_items", "i8")])
    tracks = np.array([(1, 0.5), (0, 1.5), (0, 2.5)], [("group_id", "i4"), ("E", "f4")])
    found = find(write({"hits/_indices": index}, hits__t=np.zeros(3), tracks=tracks), ["hits/t", "tracks.E"])
    assert starts(found, "hits/t") == [(0, 2), (2, 0), (2, 1)]
    assert starts(found, "tracks.E") == [(1, 2), (0, 1), (0, 0)]
    tracks["group_id"] = [0, 1, 0]
    with pytest.raises(SpecError, match="group_id 0 comes back in row 2 of 'tracks', after rows of other events: sort"):
        find(write({"hits/_indices": index}, hits__t=np.zeros(3), tracks=tracks), ["hits/t", "tracks.E"])
    tracks["group_id"] = [0, 1, 3]
    with pytest.raises(SpecError, match="group_id 3 of 'tracks' is not among the 3 events"):
        find(write({"hits/_indices": index}, hits__t=np.zeros(3), tracks=tracks), ["hits/t", "tracks.E"])


def icetray_index(*rows):
    kind = [("Run", "u4"), ("Event", "u4"), ("exists", "u1"), ("start", "u8"), ("stop", "u8")]
    return np.array(list(rows), kind)


PULSES = icetray_index((1, 7, 1, 0, 2), (1, 8, 0, 0, 0), (1, 9, 1, 2, 3))


def test_icetray_takes_the_events_of_the_first_key(write):
    pulses = table(3, vector_index="u8", q="f4")
    fit = np.array([(0.5,), (0.0,), (2.5,)], [("E", "f4")])
    fits = icetray_index((1, 9, 1, 0, 1), (1, 6, 0, 1, 2), (1, 7, 1, 2, 3))
    file = write({"Pulses": pulses, "Fit": fit, "__I3Index__/Pulses": PULSES, "__I3Index__/Fit": fits})
    assert find(file, "Pulses.q").events == 3
    both = find(file, ["Fit.E", "Pulses.q"])
    assert both.events == 2  # the frame without a fit has a row of padding
    assert [event(file, both, "Fit.E", e) for e in range(2)] == [0.5, 2.5]
    assert starts(both, "Pulses.q") == [(2, 1), (0, 2)]
    with pytest.raises(SpecError, match=r"Run 1, Event 8 has no row in '__I3Index__/Fit'.*: name a key of it first"):
        find(file, ["Pulses.q", "Fit.E"])


def test_icetray_frames_of_one_event_are_events_but_can_not_be_matched(write):
    twice = icetray_index((1, 7, 1, 0, 1), (1, 7, 1, 1, 3))
    made = {"A": table(3, vector_index="u8", q="f4"), "B": table(3, vector_index="u8", q="f4")}
    index = {"__I3Index__/A": twice, "__I3Index__/B": icetray_index((1, 7, 1, 0, 3))}
    file = write({**made, **index})
    assert starts(find(file, "A.q"), "A.q") == [(0, 1), (1, 2)]
    with pytest.raises(SpecError, match="Run 1, Event 7 has 2 entries in '__I3Index__/A'"):
        find(file, ["A.q", "B.q"])
    file = write({**made, "__I3Index__/A": twice, "__I3Index__/B": twice})  # the same frames, row by row
    assert find(file, ["A.q", "B.q"]).events == 2


def test_lhe_columns_without_names_are_read_by_place(tmp_path):
    FILES["lhe"](tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        found = find(file, ["particles[px, py]", "particles[e, px, id]", "particles.nothing"])
        assert [column.items for column in found.columns.values()] == ["2:4", "5;2;0"]


def test_a_start_that_is_no_whole_number_is_an_error(tmp_path):
    FILES["lhe"](tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["events"][1, 2] = 0.5
        with pytest.raises(SpecError, match="must have whole numbers"):
            find(file, "particles.px")


def test_rows_beyond_a_data_set_are_an_error_that_names_the_event(write):
    index = np.array([(0, 2), (2, 4)], [("index", "i8"), ("n_items", "i8")])
    with pytest.raises(SpecError, match=r"gives event 1 the rows 2 to 6 of 'hits/t', which has 3"):
        find(write({"hits/_indices": index}, hits__t=np.zeros(3)), "hits/t")
    index["n_items"] = [2, -1]
    with pytest.raises(SpecError, match="gives event 1 the rows 2 to 1"):
        find(write({"hits/_indices": index}, hits__t=np.zeros(3)), "hits/t")


def test_rows_that_belong_to_no_event_are_an_error(write):
    file = write(a=np.zeros(4), o=np.array([0, 1, 3]), ids=np.array([1, 1, 2]))
    for rule in ({"offsets": "o"}, {"id": "ids"}):
        with pytest.raises(SpecError, match="have 3 rows together, but 'a' has 4"):
            find(file, "a", {"rows": {"a": rule}})


def test_pynuml_without_a_table_of_events_has_the_events_of_its_rows(write):
    name = "hit_table/event_id.seq_cnt"
    file = write({name: np.array([[4, 2], [7, 1]]), "hit_table/q": np.zeros((3, 1)), "w": np.zeros(2)})
    assert starts(find(file, "hit_table/q"), "hit_table/q") == [(0, 2), (2, 1)]
    with pytest.raises(SpecError, match="'w' can't be matched with events that have numbers"):
        find(file, ["hit_table/q", "w"])


def test_offsets_go_with_what_they_are_named_for(write):
    data = {"a_offsets": np.array([0, 2, 3]), "b_offsets": np.array([0, 1, 3]), "a_x": np.zeros(3), "b_x": np.zeros(3)}
    found = find(write(**data), ["a_x", "b_x"])
    assert (starts(found, "a_x"), starts(found, "b_x")) == ([(0, 2), (2, 1)], [(0, 1), (1, 2)])
    with pytest.raises(SpecError, match="'x' has 3 rows, which may be events or rows by 'a_offsets'"):
        find(write(**data, x=np.zeros(3)), "x")


def test_what_has_as_many_rows_as_events_and_as_offsets_say_is_not_guessed(write):
    file = write(offsets=np.array([0, 2, 2, 3]), energy=np.zeros(3), values=np.zeros(3))
    assert starts(find(file, "values"), "values") == [(0, 2), (2, 0), (2, 1)]
    with pytest.raises(SpecError, match=r"'energy' has 3 rows, which may be events or rows by 'offsets': say it with"):
        find(file, "energy")
    assert find(file, "energy", "dense").events == 3
    stated = find(file, ["energy", "values"], {"rows": {"values": {"offsets": "offsets"}}})
    assert (stated.columns["energy"].rows, stated.events) == ("", 3)


@pytest.mark.parametrize(
    "numbers_", [np.array([1, 2, 3]), np.array([0, 3, 2, 3]), np.array([0, 1, 2]), np.array([0.0, 3.0])]
)
def test_numbers_that_are_no_offsets_claim_nothing(write, numbers_):
    file = write(g__offsets=numbers_, g__x=np.zeros(3))
    assert find(file, "g/x").events == 3
    assert recognise(file, file.filename).layouts == ()


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_offsets_counts_starts_and_ids_say_the_same(counts, tmp_path_factory):
    path = tmp_path_factory.mktemp("same") / "a.h5"
    counts = np.array(counts)
    total = int(counts.sum())
    with h5py.File(path, "w") as file:
        file["rows"], file["id"] = np.arange(total), np.repeat(np.arange(len(counts)), counts)
        file["o"], file["n"] = np.concatenate([[0], np.cumsum(counts)]), counts
        file["s"] = np.cumsum(counts) - counts
        rules = ({"offsets": "o"}, {"count": "n"}, {"start": "s", "count": "n"})
        for rule in rules:
            found = find(file, "rows", {"rows": {"rows": rule}})
            assert [len(event(file, found, "rows", e)) for e in range(len(counts))] == counts.tolist()
            assert np.concatenate([event(file, found, "rows", e) for e in range(len(counts))]).tolist() == [
                *range(total)
            ]
        by_id = find(file, "rows", {"rows": {"rows": {"id": "id"}}})
        assert by_id.events == np.count_nonzero(counts)


def test_row_tables_of_one_file_have_the_events_of_all(write):
    a = np.array([(3, 0.0), (3, 1.0), (7, 2.0)], [("event", "i4"), ("x", "f4")])
    b = np.array([(5, 0.0), (7, 1.0), (7, 2.0)], [("event", "u8"), ("y", "f4")])
    found = find(write(a=a, b=b), ["a.x", "b.y"])
    assert starts(found, "a.x") == [(0, 2), (0, 0), (2, 1)]
    assert starts(found, "b.y") == [(0, 0), (0, 1), (1, 2)]


def test_rows_of_an_event_that_do_not_lie_together_are_an_error_that_says_how_to_go_on(write):
    rows = np.array([(3, 0.0), (3, 1.0), (7, 2.0), (3, 3.0)], [("event", "i4"), ("x", "f4")])
    file = write(a=rows)
    with pytest.raises(SpecError, match=r"event 3 comes back in row 3 of 'a'.*sort the rows by 'a.event', or.*dense"):
        find(file, "a.x")
    assert find(file, "a.x", "dense").events == 4


def test_a_dense_key_beside_rows_with_event_numbers_needs_numbers_too(write):
    rows = np.array([(3, 0.0), (3, 1.0), (7, 2.0)], [("event", "i4"), ("x", "f4")])
    file = write(a=rows, truth=np.array([[7, 1.5], [3, 2.5]]))
    with pytest.raises(SpecError, match=r"the rows of 'truth' can't be matched with events that have numbers"):
        find(file, ["a.x", "truth"])
    layout = {"rows": {"a": {"id": "a.event"}}, "events": {"id": "truth[0]"}}
    found = find(file, ["a.x", "truth[1]"], layout)
    assert starts(found, "a.x") == [(2, 1), (0, 2)]
    assert [event(file, found, "truth[1]", e) for e in range(2)] == [1.5, 2.5]
    in_order = find(file, ["a.x", "truth[1]"], {"rows": {"a": {"id": "a.event"}}})
    assert starts(in_order, "a.x") == [(0, 2), (2, 1)]


def test_jets_with_the_number_of_their_event_are_examples_themselves(write):
    jets = np.array([(3, 0.0), (3, 1.0), (7, 2.0)], [("event", "i4"), ("pt", "f4")])
    file = write(jets=jets, tracks=np.zeros((3, 40), [("d0", "f4")]))
    assert find(file, ["jets.pt", "tracks.d0"]).events == 3


def test_a_table_that_never_repeats_a_number_has_a_row_an_event(write):
    rows = np.array([(1, 0.0), (2, 1.0), (4, 2.0)], [("event", "i4"), ("X", "f8")])
    found = find(write(events=rows, image=np.zeros((3, 4, 4))), ["events.X", "image"])
    assert (found.events, found.layout) == (3, "")


def test_columns_of_features_are_not_taken_for_event_numbers(write):
    rising = np.stack([np.repeat(np.arange(4.0), 2), np.zeros(8)], 1)
    for features in (rising + 0.5, rising[::-1], rising):  # the last has no table of events beside
        file = write(features=features, other=np.zeros((8, 3)))
        assert find(file, ["features", "other"]).events == 8


def test_classes_in_column_0_are_not_taken_for_event_numbers(write):
    features = np.stack([np.repeat([0.0, 1.0], 4), np.arange(8.0)], 1)
    file = write(features=features, weights=np.ones(2), energy=np.arange(8.0))
    assert find(file, ["features", "energy"]).events == 8
    with pytest.raises(SpecError, match="can't be matched with events that have numbers"):  # what else may they be?
        find(write(HitData=features, truth=np.ones(2)), ["HitData", "truth"])


def test_numbers_of_events_are_found_across_blocks(write, monkeypatch):
    monkeypatch.setattr("hepfeed.schemas.tree._BLOCK_BYTES", 64)
    counts = np.array([1, 40, 3, 1, 1, 200, 2])
    hits = np.stack([np.repeat(np.arange(7.0) * 3, counts), np.arange(248.0)], 1)
    truth = np.stack([np.arange(7.0) * 3, np.zeros(7)], 1)
    found = find(write(hits=hits, truth=truth), ["hits", "truth"])
    assert [count for _, count in starts(found, "hits")] == counts.tolist()


def test_arrays_of_variable_length_in_one_row_must_agree(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        rows = file.create_dataset("C", (2, 2), h5py.vlen_dtype(np.int32))
        rows[0, 0], rows[0, 1], rows[1, 0], rows[1, 1] = [1, 2], [3, 4], [5], [6, 7]
        with pytest.raises(SpecError, match=r"the arrays of event 1 of 'C' must have one length.*and have 1, 2"):
            find(file, "C")


def test_regions_must_be_runs_of_rows(tmp_path):
    FILES["region_reference"](tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        region = file["hits"].regionref[0:9:4]
        file["events"][3] = (3, region, h5py.h5r.RegionReference(), 0.0)
        assert find(file, "events.evid").events == EVENTS
        with pytest.raises(SpecError, match=r"that of event 3 has 3 of the rows 0 to 8: sort the rows by event"):
            find(file, "hits.q")


def test_packets_are_an_error_that_says_what_is_missing(write):
    kind = [("packet_type", "u1"), ("timestamp", "u8"), ("dataword", "u1"), ("trigger", "i4")]
    file = write(packets=np.array([(0, t, 0, t // 3) for t in range(9)], kind))
    with pytest.raises(SpecError, match=r"9 LArPix packets .* without event boundaries"):
        find(file, "packets.dataword")
    contents = recognise(file, file.filename)
    assert (contents.events, contents.keys) == (0, {})
    found = find(file, "packets.dataword", {"rows": {"packets": {"id": "packets.trigger"}}})
    assert starts(found, "packets.dataword") == [(0, 3), (3, 3), (6, 3)]


def test_larcv_names_the_projection_where_there_are_several(tmp_path):
    FILES["larcv3_2d"](tmp_path / "a.h5")
    group = "Data/sparse2d_voxels_group"
    with h5py.File(tmp_path / "a.h5") as file:
        with pytest.raises(SpecError, match=f"several projections: name one, as in '{group}/0/coords'"):
            find(file, f"{group}/coords")
        assert find(file, [f"{group}/3/coords"]).columns == {}
        assert find(file, f"{group}/2/id").columns[f"{group}/2/id"].unravel == ()


def test_larcv_events_must_have_one_grid(tmp_path):
    FILES["larcv3"](tmp_path / "a.h5")
    group = "Data/sparse3d_voxels_group"
    with h5py.File(tmp_path / "a.h5", "a") as file:
        meta = file[f"{group}/image_meta"][:]
        meta["number_of_voxels"][4] = 7
        file[f"{group}/image_meta"][:] = meta
        with pytest.raises(SpecError, match=r"event 4 of .* has a grid of \(7, 7, 7\) voxels, and event 0 one of"):
            find(file, f"{group}/coords")
        assert find(file, f"{group}/value").events == EVENTS


def test_larcv_products_of_several_levels_are_refused(write):
    pair = np.zeros(2, [("first", "u8"), ("n", "u8")])
    group = "Data/cluster3d_x_group"
    names = ("extents", "projection_extents", "cluster_extents")
    file = write(
        {f"{group}/{name}": pair for name in names}, Data__cluster3d_x_group__voxels=table(3, id="u8", value="f4")
    )
    with pytest.raises(SpecError, match=r"several levels .* only sparse tensors are read"):
        find(file, "Data/cluster3d_x_group/voxels.value")


def test_pandas_columns_of_different_blocks_are_keys_of_their_own(tmp_path):
    FILES["pandas_fixed"](tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        with pytest.raises(SpecError, match="lie in blocks of different types: ask for each"):
            find(file, "Tracks[x, n]")
        assert find(file, ["Tracks.name", "Tracks.w"]).columns == {}  # a pickle of objects, and nothing


def test_a_pandas_index_of_entries_numbers_events(write):
    file = write(
        t__block0_items=np.array([b"pt"]),
        t__block0_values=np.arange(5.0)[:, None],
        t__axis1_label0=np.array([0, 0, 1, 1, 1], np.int8),
        t__axis1_level0=np.array([10, 12]),
    )
    path = file.filename
    file.close()
    with h5py.File(path, "a") as file:
        file["t/axis1_level0"].attrs["name"] = np.bytes_("entry")
        assert starts(find(file, "t.pt"), "t.pt") == [(0, 2), (2, 3)]


def test_names_in_pickles_are_read_without_running_them(write):
    kind = [("index", "i8"), ("values_block_0", "f4", (2,))]
    file = write(df__table=np.zeros(3, kind))
    path = file.filename
    file.close()
    with h5py.File(path, "a") as file:
        file["df/table"].attrs["values_block_0_kind"] = np.bytes_("cos\nsystem\n(S'exit 3'\ntR(lp0\nVx\naVy\na.")
        assert find(file, "df.x").columns == {}  # three texts for two columns
        assert find(file, "df/table.values_block_0").events == 3


# ---- layouts that are stated


@pytest.mark.parametrize("layout", [None, "dense", "km3net"])
def test_a_name_is_its_own_form(layout):
    assert check_layout(layout) == layout


def test_a_mapping_is_checked_and_has_one_form():
    layout = {
        "rows": {"hits": {"id": "/hits.event"}, "t/*": {"offsets": "t/o"}},
        "events": {"id": ["e.run", "e.event"]},
    }
    form = check_layout(layout)
    assert form == {
        "rows": {"hits": {"id": ["hits.event"]}, "t/*": {"offsets": "t/o"}},
        "events": {"id": ["e.run", "e.event"]},
    }
    assert check_layout(form) == form


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("km3", "there is no layout 'km3'; did you mean 'km3net'"),
        (7, "layout must be a name such as 'km3net' or a mapping"),
        ({}, "the layout lacks 'rows'"),
        ({"rows": {}}, "rows of a layout must name a data set"),
        ({"row": {}}, "there is no option 'row' of a layout; did you mean 'rows'"),
        ({"rows": {"a": {"ofsets": "b"}}}, "did you mean 'offsets'"),
        ({"rows": {"a": {}}}, "not by nothing"),
        ({"rows": {"a": {"start": "b"}}}, "not by start"),
        ({"rows": {"a": {"offsets": "b", "id": "c"}}}, "not by id and offsets"),
        ({"rows": {"a": {"offsets": 3}}}, "must be a key such as"),
        ({"rows": {"a": {"id": []}}}, "the list is empty"),
        ({"rows": {"a": {"offsets": "b[", "count": "n"}}}, "is not of the form"),
        ({"rows": {"a": {"offsets": "b", "single": True}}}, "single: true goes with"),
        ({"rows": {"a": {"offsets": "b"}}, "events": {"id": "c"}}, "is for rows that are matched by"),
        ({"rows": ["a"]}, "option 'rows' of the layout"),
    ],
)
def test_a_mistake_in_a_layout_is_told(layout, message):
    with pytest.raises(SpecError, match=message):
        check_layout(layout)


def test_a_layout_names_what_is_there(write):
    file = write(a=np.zeros(3), o=np.array([0, 1, 3]))
    with pytest.raises(SpecError, match=r"the layout names 'b', and no data set of .* fits"):
        find(file, "a", {"rows": {"b": {"offsets": "o"}}})
    with pytest.raises(KeyMissingError, match=r"the layout names 'p', which .* lacks"):
        find(file, "a", {"rows": {"a": {"offsets": "p"}}})


def test_the_first_pattern_that_fits_counts(write):
    file = write(h__a=np.arange(3), h__b=np.arange(3), one=np.array([0, 1, 3]), two=np.array([0, 3, 3]))
    layout = {"rows": {"h/b": {"offsets": "one"}, "h/*": {"offsets": "two"}}}
    found = find(file, ["h/a", "h/b"], layout)
    assert starts(found, "h/a") == [(0, 3), (3, 0)]
    assert starts(found, "h/b") == [(0, 1), (1, 2)]


def test_several_columns_together_number_an_event(write):
    kind = [("run", "i4"), ("event", "i4"), ("x", "f4")]
    hits = np.array([(1, 1, 0), (1, 2, 1), (1, 2, 2), (2, 1, 3)], kind)
    events = np.array([(2, 1, 9), (1, 1, 8), (1, 2, 7)], kind)
    file = write(hits=hits, info=events)
    layout = {"rows": {"hits": {"id": ["hits.run", "hits.event"]}}, "events": {"id": ["info.run", "info.event"]}}
    found = find(file, ["hits.x", "info.x"], layout)
    assert starts(found, "hits.x") == [(3, 1), (0, 1), (1, 2)]
    assert [event(file, found, "info.x", e) for e in range(3)] == [9, 8, 7]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([2], r"truth\[0\] 1 has no row in 'summary', and key 'summary\[1\]' needs one: leave the key out"),
        ([1, 1, 2], r"truth\[0\] 1 has 2 rows in 'summary'"),
        ([1, 2, 3], r"summary\[0\] 3 of 'summary' is not among the 2 events of 'truth'"),
    ],
)
def test_a_row_that_is_missing_doubled_or_of_no_event_is_named(write, ids, message):
    summary = np.array([[number, 5.0] for number in ids])
    layout = {
        "rows": {"hits": {"id": "hits[0]"}, "summary": {"id": "summary[0]", "single": True}},
        "events": {"id": "truth[0]"},
    }
    file = write(hits=np.array([[1.0, 0], [1, 1], [2, 2]]), truth=np.array([[1, 0.5], [2, 1.5]]), summary=summary)
    assert find(file, ["hits", "truth[1]"], layout).events == 2
    with pytest.raises(SpecError, match=message):
        find(file, ["hits", "summary[1]"], layout)


def test_the_layout_that_the_readme_shows_is_one(tmp_path):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (shown,) = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "layout:" in block]
    (sample,) = yaml.safe_load(shown)["samples"]
    hits, truth = numbers(4, 7), numbers(2, 9, seed=1)
    hits[:, 0], truth[:, 0] = [5, 5, 5, 9], [9, 5]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["HitData"], file["TruthData"], file["wires/adc"] = hits, truth, np.arange(6)
        file["wires/index"] = np.array([(0, 2), (2, 6)], [("first", "i4"), ("last", "i4")])
        found = find(file, sample["keys"], sample["layout"])
    assert starts(found, "HitData") == [(3, 1), (0, 3)]
    assert starts(found, "wires/adc") == [(0, 2), (2, 4)]
    assert not found.columns["TruthData[1:4]"].rows


# ---- matching


ids = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), unique=True, max_size=8)


@given(ids, ids)
def test_places_are_where_the_numbers_stand(wanted, known):
    a, b = (np.array(x, np.int64).reshape(-1, 2) for x in (wanted, known))
    assert places(a, b).tolist() == [known.index(one) if one in known else -1 for one in wanted]


def test_a_union_keeps_the_order_that_it_finds():
    rising, falling = np.array([[1], [4]]), np.array([[5], [2]])
    assert union([rising, np.array([[2], [4]])]).tolist() == [[1], [2], [4]]
    assert union([falling, np.array([[2], [7]])]).tolist() == [[5], [2], [7]]
    assert union([falling]).tolist() == [[5], [2]]


def test_counts_and_numbers_are_those_of_the_files():
    assert (ROWS, STARTS.tolist(), len(IDS)) == (11, [0, 3, 3, 8, 9, 9], EVENTS)
    assert [len(part) for part in parts(numbers(ROWS))] == COUNTS.tolist()


def test_recognising_needs_no_torch_and_no_reader(run_script):
    code = "import sys, hepfeed.schemas; print([m for m in ('torch', 'pandas', 'hepfeed.reader') if m in sys.modules])"
    assert run_script(code) == "[]\n"
