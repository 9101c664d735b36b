"""The index of events: which files, which rows, of what shape, in which class."""

import h5py
import numpy as np
import pytest
from events import KEYS, write_classes, write_file

from hepfeed.errors import KeyMissingError, SpecError
from hepfeed.filters import Filter
from hepfeed.index import EventIndex
from hepfeed.spec import SampleSpec


@pytest.fixture
def samples(tmp_path):
    return write_classes(tmp_path, {"electron": [30, 20], "pion": [40]}, layout="all_filters")


def test_events_are_counted_file_after_file(samples):
    index = EventIndex(SampleSpec(samples))
    assert len(index) == 90
    assert index.file_start.tolist() == [0, 30, 50, 90]
    assert index.file_class.tolist() == [0, 0, 1]
    assert index.rows.tolist() == [*range(30), *range(20), *range(40)]
    assert index.file_of(np.array([0, 29, 30, 49, 50, 89])).tolist() == [0, 0, 1, 1, 2, 2]
    assert [(group.label, group.start, group.stop, group.rate) for group in index.groups] == [
        ("electron", 0, 50, None),
        ("pion", 50, 90, None),
    ]
    assert repr(index) == "EventIndex(90 events, 3 files, 2 groups)"


def test_keys_have_the_dtype_and_shape_that_are_delivered(samples):
    index = EventIndex(SampleSpec(samples, dtypes={"energy": "float16"}))
    assert [(key.name, key.dtype, key.shape) for key in index.keys] == [
        ("image", np.float32, (5, 4)),
        ("energy", np.float16, ()),
        ("id", np.int32, (3,)),
    ]
    assert index.event_bytes == 80 + 2 + 12


def test_big_endian_data_are_delivered_in_the_order_of_the_machine(tmp_path):
    path = write_file(tmp_path / "a.h5", 3, layout="big_endian")
    (key,) = EventIndex(SampleSpec([[str(path), ["image"], "a"]])).keys
    assert key.dtype.isnative


def test_the_block_of_a_file_is_what_its_large_keys_share(tmp_path):
    path = write_file(tmp_path / "a.h5", 50, layout="all_filters")  # image in chunks of 16
    blocks = {}
    for keys in (["image"], ["energy"], ["image", "energy"]):
        (source,) = EventIndex(SampleSpec([[str(path), keys, "a"]])).sources
        blocks[tuple(keys)] = source.block
    assert blocks == {("image",): 16, ("energy",): 1, ("image", "energy"): 16}


def test_aliases_are_tried_in_order_in_each_file(tmp_path):
    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    with h5py.File(old, "w") as file:
        file["ECAL"] = np.zeros((3, 2), "f4")
    with h5py.File(new, "w") as file:
        file["ECAL/ECAL"] = np.ones((4, 2), "f4")
    keys = [{"ECAL": ["ECAL", "ECAL/ECAL"]}]
    index = EventIndex(SampleSpec([[[str(old), str(new)], keys, "a"]]))
    assert [source.keys for source in index.sources] == [{"ECAL": "ECAL"}, {"ECAL": "ECAL/ECAL"}]
    assert [source.dataset("ECAL").event_shape for source in index.sources] == [(2,), (2,)]


def test_none_of_the_aliases_is_an_error_with_all_of_them(samples, tmp_path):
    with pytest.raises(KeyMissingError, match=r"key 'Image' or 'pixels' does not exist in .*did you mean 'image'"):
        EventIndex(SampleSpec([[str(tmp_path / "pion"), [{"image": ["Image", "pixels"]}], "a"]]))


def test_a_filter_keeps_its_rows_of_each_file(samples):
    index = EventIndex(SampleSpec(samples, filter="energy % 1000 >= 18 and id[2] < 22"))
    assert index.file_start.tolist() == [0, 4, 6, 10]
    assert index.rows.tolist() == [18, 19, 20, 21, 18, 19, 18, 19, 20, 21]


def test_filters_of_a_sample_and_of_all_are_joined_and_may_be_functions(samples):
    entries = [{"files": samples[0][0], "keys": KEYS, "label": "electron", "filter": "energy < 10"}, samples[1]]
    even = Filter(lambda columns: columns["id"][:, 2] % 2 == 0, keys=["id"])
    index = EventIndex(SampleSpec(entries, filter=even))
    assert index.rows.tolist() == [0, 2, 4, 6, 8, *range(0, 40, 2)]


def test_a_filter_is_applied_in_several_processes(tmp_path):
    samples = write_classes(tmp_path, {"a": [6] * 12})
    index = EventIndex(SampleSpec(samples, filter="id[2] >= 4"), workers=2)
    assert index.rows.tolist() == [4, 5] * 12


def test_a_filter_may_read_a_compressed_column_in_another_process(tmp_path):
    samples = write_classes(tmp_path, {"a": [20] * 8}, layout="blosc")
    here = EventIndex(SampleSpec(samples, filter="image[0, 0] > 0"), workers=1).rows.tolist()
    there = EventIndex(SampleSpec(samples, filter="image[0, 0] > 0.0"), workers=2).rows.tolist()
    assert 0 < len(here) < 160
    assert there == here


def test_a_filter_that_keeps_nothing_names_the_class(samples):
    with pytest.raises(SpecError, match="label 'pion' has no events after the filter: loosen it"):
        EventIndex(SampleSpec(samples, filter="id[0] == 0"))
    lenient = EventIndex(SampleSpec(samples, filter="id[0] == 0"), on_error="skip")
    assert len(lenient) == 50
    assert [group.label for group in lenient.groups] == ["electron"]
    assert "label 'pion'" in str(lenient.skipped[0])


def test_a_filter_key_of_another_length_is_an_error(tmp_path):
    path = write_file(tmp_path / "a.h5", 5, extra={"hits": np.zeros(9)})
    with pytest.raises(SpecError, match="differ in their number of events: 'image' has 5, 'hits' has 9"):
        EventIndex(SampleSpec([[str(path), ["image"], "a"]], filter="hits > 0"))


def test_a_filter_key_that_is_missing_is_an_error_with_the_nearest(tmp_path):
    path = write_file(tmp_path / "a.h5", 5)
    with pytest.raises(KeyMissingError, match=r"the filter needs key 'enery', .*did you mean 'energy'"):
        EventIndex(SampleSpec([[str(path), ["image"], "a"]], filter="enery > 0"))


def test_rates_of_files_make_groups_of_files(tmp_path):
    samples = write_classes(tmp_path, {"a": [30, 20]})
    rated = [[*samples[0], {"a_0.h5": 1.0, "a_1.h5": 3.0}]]
    index = EventIndex(SampleSpec(rated))
    assert [(group.rate, group.start, group.stop) for group in index.groups] == [(1.0, 0, 30), (3.0, 30, 50)]
    assert [group.label for group in index.groups] == ["a", "a"]


def test_a_rate_of_a_sample_is_that_of_all_its_files(tmp_path):
    samples = write_classes(tmp_path, {"a": [30, 20], "b": [7]}, rates={"a": 2.0, "b": 1.0})
    index = EventIndex(SampleSpec(samples))
    assert [(group.rate, len(group)) for group in index.groups] == [(2.0, 50), (1.0, 7)]


@pytest.mark.parametrize(
    ("stored", "wanted"), [("float32", "int32"), ("complex64", "float32"), ("int16", "uint8"), ("float64", "int64")]
)
def test_a_conversion_that_loses_the_kind_is_refused(tmp_path, stored, wanted):
    path = write_file(tmp_path / "a.h5", 3, extra={"x": np.zeros(3, stored)})
    with pytest.raises(SpecError, match=f"asks for key 'x' as {wanted}, but it is stored as {stored}"):
        EventIndex(SampleSpec([[str(path), ["x"], "a"]], dtypes={"x": wanted}))


def test_files_of_different_dtypes_go_together_with_a_conversion(tmp_path):
    paths = [write_file(tmp_path / f"{layout}.h5", 4, layout=layout) for layout in ("contiguous", "half")]
    index = EventIndex(SampleSpec([[list(map(str, paths)), ["image"], "a"]], dtypes={"image": "float32"}))
    assert index.keys[0].dtype == np.float32


def test_all_files_at_fault_leave_nothing_to_feed(tmp_path):
    (tmp_path / "bad.h5").write_bytes(b"")
    with pytest.raises(SpecError, match=r"no file of the specification can be read: .*zero bytes"):
        EventIndex(SampleSpec([[str(tmp_path / "bad.h5"), ["image"], "a"]]), on_error="skip")


def test_split_and_splits_go_together(samples):
    with pytest.raises(SpecError, match="split and splits go together"):
        EventIndex(SampleSpec(samples), split="train")


def test_progress_is_told_of_files_and_filters(samples):
    told = []
    EventIndex(SampleSpec(samples, filter="energy >= 0"), progress=lambda *what: told.append(what))
    assert told == [
        *(("opening files", done, 3) for done in (1, 2, 3)),
        *(("filtering", done, total) for total, counts in ((2, (1, 2)), (1, (1,))) for done in counts),
    ]
