"""The public face: complete, documented, light to import, and built in layers."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import hepfeed
from hepfeed import errors

# What a module may import lies in a row below its own.  Sub-packages are one entry.
LAYERS = [
    ["cli"],
    ["advice", "bench", "demo", "lightning", "statistics"],
    ["feed_monitor", "provider"],
    ["loader", "sparse"],
    ["loader_clock", "loader_state"],
    ["dataset_iterator", "feed_iterator"],
    ["resumable"],
    ["late_steps", "live", "transfer", "usage", "watch"],
    ["device"],
    ["check", "collate", "shipment"],
    ["copy_engine", "cuda_engine", "dataset", "pool", "sampling", "walk", "world"],
    ["ranks", "sampler_states", "stream"],
    ["ending"],
    ["cache", "filler"],
    ["lane"],
    ["crawl", "index"],
    ["reader", "spec"],
    ["caches"],
    ["moments", "pipeline", "selection", "weights"],
    ["spec_file", "store", "tasks", "transforms", "weight_rules"],
    ["dataset_process"],
    ["dataset_reader", "file_events", "layouts", "parts", "reference", "source_reader"],
    ["loader_options"],
    ["spec_options"],
    ["convert", "noise", "plain_collate", "programs", "schemas"],
    ["filters", "graphs", "hdf5", "images", "parcel", "synthetic", "torch_worker", "voxels"],
    [
        "code",
        "columns",
        "draws",
        "expression",
        "fault",
        "figures",
        "form",
        "grid",
        "inflaters",
        "kernel_map",
        "live_files",
        "live_view",
        "patterns",
        "revocable_view",
        "room",
    ],
    [
        "accelerated",
        "demo_model",
        "exports",
        "kinematics",
        "percentiles",
        "prediction",
        "presets",
        "quotas",
        "ring",
        "sites",
        "splits",
        "stats",
    ],
    ["stats_table", "thread_worker"],
    ["crew", "worker"],
    [
        "allocator",
        "batch_spec",
        "bottleneck",
        "channel",
        "fetchers",
        "h5_handles",
        "late_torch",
        "order",
        "ordered",
        "packing",
        "partition",
        "processors",
        "random_states",
        "tensors",
    ],
    [
        "errors",
        "late",
        "libc",
        "progress",
        "ranges",
        "_cache",
        "_convolution",
        "_core",
        "_images",
        "_rows",
        "_sites",
        "_voxels",
    ],
]
ROW = {name: number for number, row in enumerate(LAYERS) for name in row}
HOME = Path(hepfeed.__file__).parent
MODULES = sorted(path for path in HOME.rglob("*.py") if path != HOME / "__init__.py")


def entry(path):
    """The entry of a file in the table."""
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imports(path):
    """Entries that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "hepfeed":
            names = [f"hepfeed.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("hepfeed.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOME)))
def test_imports_run_downward_only(path):
    here = entry(path)
    assert here in ROW, f"give {here} a row in the table of layers"
    wrong = {name for name in imports(path) - {here} if ROW[name] <= ROW[here]}
    assert not wrong, f"{here} imports {wrong}, which lie no lower"


def test_every_entry_of_the_table_is_there():
    there = {entry(path) for path in MODULES}
    there |= {"_cache", "_convolution", "_core", "_images", "_rows", "_sites", "_voxels"}
    assert set(ROW) == there
    assert sum(map(len, LAYERS)) == len(ROW)


def test_nothing_that_a_reader_needs_imports_torch(run_script):
    below = [name for row in LAYERS[LAYERS.index(["cache", "filler"]) :] for name in row if name != "demo_model"]
    script = f"""
        import importlib, sys
        import hepfeed
        assert hepfeed.SampleSpec and hepfeed.Filler and hepfeed.errors
        for name in {below}:
            importlib.import_module("hepfeed." + name)
        print("torch" in sys.modules, "matplotlib" in sys.modules, "pandas" in sys.modules)
    """
    assert run_script(script).split() == ["False", "False", "False"]


def test_the_package_imports_nothing_heavy(run_script):
    script = """
        import sys
        import hepfeed
        print(*sorted({"torch", "h5py", "numpy", "matplotlib", "pydantic"} & set(sys.modules)))
    """
    assert run_script(script).split() == []


def test_all_is_complete_and_sorted():
    assert hepfeed.__all__ == sorted(hepfeed.__all__)
    assert hepfeed.__all__ == [
        "BatchSpec",
        "DataLoader",
        "DataProvider",
        "EventDataset",
        "EventIndex",
        "Filler",
        "Filter",
        "SampleSpec",
        "errors",
    ]
    assert set(dir(hepfeed)) == {*hepfeed.__all__, "__version__"}
    with pytest.raises(AttributeError, match="module 'hepfeed' has no attribute 'Dataset'"):
        hepfeed.Dataset  # noqa: B018


@pytest.mark.parametrize("name", hepfeed.__all__)
def test_every_public_name_is_documented_with_all_its_public_parts(name):
    thing = getattr(hepfeed, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for part, member in vars(thing).items():
            if not part.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
                assert inspect.getdoc(member), f"{name}.{part}"


def modules():
    names = [module.name for module in pkgutil.walk_packages([str(HOME)], "hepfeed.")]
    return [name for name in names if not name.startswith("hepfeed.cli") and not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_what_it_offers(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for offered in getattr(module, "__all__", []):
        thing = getattr(module, offered)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{offered}"


def test_every_error_is_a_hepfeed_error_and_pickles_with_its_fields():
    import pickle

    classes = [getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))]
    assert len(classes) >= 12
    for error in classes:
        assert issubclass(error, errors.HepfeedError)
        again = pickle.loads(pickle.dumps(error("what", file="a.h5", key="ECAL", event=3)))
        assert type(again) is error
        assert (again.message, again.file, again.key, again.event) == ("what", "a.h5", "ECAL", 3)


def test_an_error_says_where_it_was_unless_its_message_does():
    assert str(errors.SourceError("gone", file="/d/a1.h5", event=1)) == "gone [file '/d/a1.h5', event 1]"
    assert str(errors.SourceError("event 1 of '/d/a.h5' is gone", file="/d/a.h5", event=1)) == (
        "event 1 of '/d/a.h5' is gone"
    )
    assert str(errors.SourceError("event 12 is gone", event=1)) == "event 12 is gone [event 1]"


def test_the_nearest_names_are_proposed():
    assert errors.nearest("ecal", ["ECAL", "HCAL"]) == "did you mean 'ECAL'?"
    assert errors.nearest("ECALL", ["ECAL", "HCAL"]) == "did you mean 'ECAL' or 'HCAL'?"
    assert errors.nearest("xyz", ["ECAL", "HCAL"]) == "there are 'ECAL', 'HCAL'"
    assert errors.nearest("xyz", []) == "there are none"


def test_the_version_is_a_string():
    assert isinstance(hepfeed.__version__, str)
    assert hepfeed.__version__
