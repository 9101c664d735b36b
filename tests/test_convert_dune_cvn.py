"""Conversion of DUNE CVN pixel maps."""

import json
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hepfeed.cli.convert import register
from hepfeed.convert import convert_dune_cvn, read_info, read_pixel_map
from hepfeed.errors import (
    CorruptDataError,
    FileFormatError,
    HepfeedError,
    ResourceError,
    SourceError,
    SpecError,
)

INFO = ["4", "3.5", "2.25", "0", "0", "0", "0.9", "-12", "1", "0", "2", "3", "0", "0", "70"]


def write_event(folder, number, pixels, *, energy="3.5"):
    """Write ``eventN.gz`` with ``{(view, plane, cell): charge}`` set, and its ``eventN.info``."""
    folder.mkdir(parents=True, exist_ok=True)
    image = np.zeros((3, 500, 500), np.uint8)
    for site, charge in pixels.items():
        image[site] = charge
    (folder / f"event{number}.gz").write_bytes(zlib.compress(image.tobytes(), 1))
    (folder / f"event{number}.info").write_text("\n".join([INFO[0], energy, *INFO[2:]]) + "\n")


@pytest.fixture
def source(tmp_path):
    """Class nue with events 2 (two pixels), 10 (none) and 1 (one); class nc with event 0."""
    root = tmp_path / "raw"
    write_event(root / "nue", 2, {(2, 499, 499): 7, (0, 3, 4): 255}, energy="20.5")
    write_event(root / "nue", 10, {}, energy="100")
    write_event(root / "nue", 1, {(1, 0, 499): 9}, energy="1.5")
    write_event(root / "nc", 0, {(0, 0, 0): 1})
    return root


@pytest.fixture
def run():
    """Call the command line with these arguments."""
    app = typer.Typer()
    register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def leftovers(folder):
    return [path.name for path in Path(folder).rglob("*") if path.name.endswith(".tmp")]


def test_classes_become_folders_and_files_hold_the_asked_number_of_events(source, tmp_path):
    out = tmp_path / "h5"
    paths = convert_dune_cvn(source, out, events_per_file=2, workers=1)
    assert list(paths) == [str(out / "nc/nc_0.h5"), str(out / "nue/nue_0.h5"), str(out / "nue/nue_1.h5")]
    assert leftovers(out) == []
    events = []
    for path in paths:
        with h5py.File(path) as file:
            events.append(file["event_number"][()].tolist())
    assert events == [[0], [1, 2], [10]]


def test_dense_form_keeps_every_pixel_with_one_event_a_chunk(source, tmp_path):
    path = convert_dune_cvn(source, tmp_path / "h5", workers=1)[1]
    with h5py.File(path) as file:
        image = file["image"]
        assert (image.shape, image.dtype, image.chunks) == ((3, 3, 500, 500), np.uint8, (1, 3, 500, 500))
        assert (image.compression, image.compression_opts) == ("gzip", 4)
        found = {tuple(site): int(image[tuple(site)]) for site in np.argwhere(image[()]).tolist()}
        assert found == {(0, 1, 0, 499): 9, (1, 0, 3, 4): 255, (1, 2, 499, 499): 7}
        assert "hits" not in file


def test_sparse_form_has_sorted_coordinates_and_an_empty_event_owns_no_hits(source, tmp_path):
    path = convert_dune_cvn(source, tmp_path / "h5", form="sparse", workers=1)[1]
    with h5py.File(path) as file:
        hits = file["hits"]
        assert [hits[key].dtype for key in ("coords", "value", "offsets")] == [np.int16, np.uint8, np.int64]
        assert hits["coords"][()].tolist() == [[1, 0, 499], [0, 3, 4], [2, 499, 499]]
        assert hits["value"][()].tolist() == [9, 255, 7]
        assert hits["offsets"][()].tolist() == [0, 1, 3, 3]
        assert "image" not in file


def test_a_file_of_empty_events_only_has_no_hits(tmp_path):
    write_event(tmp_path / "raw/nc", 5, {})
    (path,) = convert_dune_cvn(tmp_path / "raw", tmp_path / "h5", form="sparse", workers=1)
    with h5py.File(path) as file:
        assert file["hits/coords"].shape == (0, 3)
        assert file["hits/value"].shape == (0,)
        assert file["hits/offsets"][()].tolist() == [0, 0]


def test_both_forms_tell_of_the_same_pixels(source, tmp_path):
    for path in convert_dune_cvn(source, tmp_path / "h5", form="both", workers=1):
        with h5py.File(path) as file:
            offsets = file["hits/offsets"][()]
            again = np.zeros(file["image"].shape, np.uint8)
            rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
            again[(rows, *file["hits/coords"][()].T)] = file["hits/value"][()]
            np.testing.assert_array_equal(again, file["image"][()])


def test_truth_of_each_event_comes_from_its_info_lines(source, tmp_path):
    path = convert_dune_cvn(source, tmp_path / "h5", workers=1)[1]
    with h5py.File(path) as file:
        assert file["info"].shape == (3, 15)
        np.testing.assert_array_equal(
            file["info"][0], np.float32([4, 1.5, 2.25, 0, 0, 0, 0.9, -12, 1, 0, 2, 3, 0, 0, 70])
        )
        assert file["energy"][()].tolist() == [1.5, 20.5, 100.0]
        assert file["lepton_energy"][()].tolist() == [2.25, 2.25, 2.25]
        assert file["pdg"][()].tolist() == [-12, -12, -12]
        assert file["n_hits"][()].tolist() == [70, 70, 70]
        assert [file[key].dtype for key in ("energy", "pdg", "n_hits")] == [np.float32, np.int32, np.int32]
        assert file["energy"].attrs["units"] == "GeV"


def test_a_file_says_where_it_comes_from(source, tmp_path):
    path = convert_dune_cvn(source, tmp_path / "h5", form="both", workers=1)[0]
    with h5py.File(path) as file:
        assert file.attrs["class"] == "nc"
        assert file.attrs["source"] == str(source / "nc")
        assert file.attrs["source_format"] == "DUNE CVN pixel maps"
        assert file.attrs["form"] == "both"
        assert file.attrs["creator"].startswith("hepfeed ")
        assert file["hits"].attrs["spatial_shape"].tolist() == [3, 500, 500]
        named = [Path(record["path"]).name for record in json.loads(file.attrs["sources"])]
        assert named == ["event0.gz", "event0.info"]


def test_level_zero_stores_without_compression(source, tmp_path):
    path = convert_dune_cvn(source, tmp_path / "h5", form="both", level=0, workers=1)[1]
    with h5py.File(path) as file:
        assert file["image"].compression is None
        assert file["hits/coords"].compression is None
        assert file["image"][1, 2, 499, 499] == 7


def test_two_processes_write_what_one_writes(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    one = convert_dune_cvn(source, tmp_path / "one", form="both", events_per_file=1, workers=1)
    two = convert_dune_cvn(source, tmp_path / "two", form="both", events_per_file=1, workers=2)
    assert [os.path.relpath(path, tmp_path / "one") for path in one] == [
        os.path.relpath(path, tmp_path / "two") for path in two
    ]
    assert [Path(path).read_bytes() for path in one] == [Path(path).read_bytes() for path in two]


def test_progress_counts_up_to_all_events(source, tmp_path):
    seen = []
    convert_dune_cvn(
        source, tmp_path / "h5", events_per_file=2, workers=1, progress=lambda *counts: seen.append(counts)
    )
    assert [counts for what, *counts in seen if what == "converting events"] == [[1, 4], [2, 4], [3, 4], [4, 4]]


def test_a_second_run_of_another_form_replaces_files_only_when_told_to(source, tmp_path):
    first = convert_dune_cvn(source, tmp_path / "h5", workers=1)
    with pytest.raises(SourceError, match="it was converted from others; overwrite it"):
        convert_dune_cvn(source, tmp_path / "h5", form="sparse", workers=1)
    again = convert_dune_cvn(source, tmp_path / "h5", form="sparse", workers=1, overwrite=True)
    assert again.files == first.files
    with h5py.File(first[0]) as file:
        assert sorted(file["hits"]) == ["coords", "offsets", "value"]


def test_damaged_events_are_skipped_counted_and_reported(source, tmp_path):
    (source / "nue/event2.gz").write_bytes(b"broken")
    (source / "nue/event10.info").unlink()
    converted = convert_dune_cvn(source, tmp_path / "h5", on_error="skip", workers=1)
    assert (converted.events, converted.skipped_events) == (2, 2)
    assert [each.fault.file for each in converted.skipped] == [
        str(source / "nue/event10.info"),
        str(source / "nue/event2.gz"),
    ]
    with h5py.File(converted[1]) as file:
        assert file["event_number"][()].tolist() == [1]
        assert len(file["image"]) == 1


def test_files_of_another_conversion_are_not_mixed_with_new_ones(source, tmp_path):
    convert_dune_cvn(source, tmp_path / "h5", events_per_file=1, workers=1)
    with pytest.raises(SourceError, match=r"nue_1\.h5, whose events would be fed too; remove it") as caught:
        convert_dune_cvn(source, tmp_path / "h5", workers=1)
    assert caught.value.file == str(tmp_path / "h5/nue/nue_1.h5")


def test_truncated_stream_is_corrupt_and_leaves_no_file(source, tmp_path):
    path = source / "nue/event2.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptDataError, match=r"whole zlib stream in .*event2\.gz.*fetch the file again"):
        convert_dune_cvn(source, tmp_path / "h5", workers=1)
    assert os.listdir(tmp_path / "h5/nue") == []


def test_an_error_in_a_worker_process_arrives_with_its_file(source, tmp_path):
    path = source / "nue/event2.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptDataError) as caught:
        convert_dune_cvn(source, tmp_path / "h5", workers=2)
    assert caught.value.file == str(path)
    assert "in read_pixel_map" in str(caught.value.__cause__)
    assert leftovers(tmp_path / "h5") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_conversion_that_is_interrupted_keeps_whole_files_only(source, tmp_path, workers):
    def interrupt(what, done, total):
        if what == "converting events" and done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_dune_cvn(source, tmp_path / "h5", events_per_file=1, workers=workers, progress=interrupt)
    assert leftovers(tmp_path / "h5") == []
    paths = sorted((tmp_path / "h5").glob("*/*.h5"))
    assert paths
    for path in paths:
        with h5py.File(path) as file:
            assert len(file["event_number"]) == len(file["image"]) == 1


def test_a_script_needs_no_guard_of_its_main_part(run_script, source, tmp_path):
    out = run_script(
        """
        import sys
        from hepfeed.convert import convert_dune_cvn
        print(len(convert_dune_cvn(sys.argv[1], sys.argv[2], events_per_file=2, workers=2)))
        """,
        source,
        tmp_path / "h5",
    )
    assert out == "3\n"


def test_bytes_that_are_no_zlib_stream_are_corrupt(tmp_path):
    path = tmp_path / "event0.gz"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CorruptDataError, match=r"expected a zlib stream in .*event0\.gz"):
        read_pixel_map(path)


@pytest.mark.parametrize(("size", "came"), [(749_999, "749999"), (750_001, "more than 750000")])
def test_a_pixel_map_of_another_size_is_refused(tmp_path, size, came):
    path = tmp_path / "event0.gz"
    path.write_bytes(zlib.compress(bytes(size)))
    with pytest.raises(FileFormatError, match=rf"expected 750000 pixels .*event0\.gz, got {came}"):
        read_pixel_map(path)


@pytest.mark.parametrize(("lost", "left"), [(".info", ".gz"), (".gz", ".info")])
def test_an_event_with_only_one_of_its_files_is_refused(source, tmp_path, lost, left):
    (source / f"nue/event10{lost}").unlink()
    with pytest.raises(SourceError, match=rf"event10\{lost} beside event10\{left}, found none") as caught:
        convert_dune_cvn(source, tmp_path / "h5", workers=1)
    assert caught.value.file == str(source / f"nue/event10{lost}")
    assert not (tmp_path / "h5").exists()


@pytest.mark.parametrize("count", [0, 14, 16])
def test_info_of_another_number_of_lines_is_refused(tmp_path, count):
    path = tmp_path / "event0.info"
    path.write_text("1\n" * count)
    with pytest.raises(FileFormatError, match=rf"expected 15 lines in .*event0\.info, got {count}"):
        read_info(path)


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        (2, "3.5 GeV", "one finite number"),
        (3, "nan", "one finite number"),
        (8, "12.5", "a whole number"),
        (15, "1e10", "a whole number"),
    ],
)
def test_info_names_the_line_that_is_no_number_of_its_kind(tmp_path, line, text, expected):
    path = tmp_path / "event0.info"
    path.write_text("\n".join([*INFO[: line - 1], text, *INFO[line:]]))
    with pytest.raises(FileFormatError, match=rf"expected {expected} in line {line} of .*, got '{text}'"):
        read_info(path)


def test_a_missing_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match=r"could not read .*event0\.gz: No such file"):
        read_pixel_map(tmp_path / "event0.gz")


def test_names_that_are_no_event_are_refused(source, tmp_path):
    (source / "nue/event07.gz").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"names like event7\.gz .*, found event07\.gz"):
        convert_dune_cvn(source, tmp_path / "h5", workers=1)


def test_a_class_folder_given_as_source_is_told_of_its_parent(source, tmp_path):
    with pytest.raises(SourceError, match=rf"one folder a class, found none; give its parent, {source}"):
        convert_dune_cvn(source / "nue", tmp_path / "h5", workers=1)


def test_a_source_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SourceError, match="expected a folder at"):
        convert_dune_cvn(tmp_path / "nowhere", tmp_path / "h5", workers=1)


def test_an_output_folder_that_can_not_be_made_is_named(source, tmp_path):
    (tmp_path / "h5").write_text("in the way")
    with pytest.raises(ResourceError, match=r"could not make the folder .*h5/nc"):
        convert_dune_cvn(source, tmp_path / "h5", workers=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "ragged"}, "form must be one of 'dense', 'sparse', 'both'; got 'ragged'"),
        ({"events_per_file": 0}, "events_per_file must be at least 1; got 0"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"level": 10}, r"level must be 0 \(no compression\) to 9"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(source, tmp_path, options, message):
    with pytest.raises(SpecError, match=message):
        convert_dune_cvn(source, tmp_path / "h5", **options)
    assert not (tmp_path / "h5").exists()


def test_command_converts_and_says_what_it_wrote(run, source, tmp_path):
    out = tmp_path / "h5"
    result = run(
        "convert",
        "dune-cvn",
        source,
        out,
        "--form",
        "sparse",
        "--events-per-file",
        2,
        "--workers",
        1,
        "--level",
        9,
    )
    assert result.exit_code == 0, result.output
    assert "3 files" in result.output
    with h5py.File(out / "nue/nue_0.h5") as file:
        assert file["hits/value"].compression_opts == 9
        assert file["hits/value"][()].tolist() == [9, 255, 7]


def test_command_help_has_examples(run):
    result = run("convert", "dune-cvn", "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert "hepfeed convert dune-cvn" in result.output


def test_command_raises_hepfeed_errors(run, tmp_path):
    result = run("convert", "dune-cvn", tmp_path / "nowhere", tmp_path / "h5")
    assert isinstance(result.exception, HepfeedError)
