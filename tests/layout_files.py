"""Small files in every layout of the field, and the events that they hold.

Each writer of ``FILES`` writes one file to the schema that the experiment's own software writes, with h5py alone, and
returns the events that must come out.  Most have events without rows.
"""

from dataclasses import dataclass, field

import h5py
import numpy as np

COUNTS = np.array([3, 0, 5, 1, 0, 2])
EVENTS, ROWS = len(COUNTS), int(COUNTS.sum())
STARTS = np.cumsum(COUNTS) - COUNTS
IDS = np.array([33, 34, 36, 40, 41, 47])  # numbers of events, with gaps


@dataclass
class Events:
    """What a file holds.

    Attributes:
        dense: Key -> ``(events, ...)``.
        jagged: Key -> one array an event.
        layout: To be stated in the specification; None: it is recognised.
    """

    dense: dict = field(default_factory=dict)
    jagged: dict = field(default_factory=dict)
    layout: object = None

    @property
    def keys(self):
        return [*self.jagged, *self.dense]

    @property
    def events(self):
        return len(next(iter({**self.jagged, **self.dense}.values())))


def parts(values, counts=COUNTS):
    """Divide rows into events."""
    return np.split(values, np.cumsum(counts)[:-1])


def numbers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(0, 10, shape).astype(dtype)


def table(rows, seed=0, **types):
    """Return a compound array; a type may be padded with ``_offsets`` and ``_size``."""
    made = np.zeros(rows, list(types.items()))
    for place, name in enumerate(made.dtype.names):
        made[name] = numbers(*made[name].shape, seed=seed + place, dtype=np.float64).astype(made[name].dtype)
    return made


def padded(rows, dtype):
    """Return a table whose fields lie 16 bytes apart, as the writers of IceTray and larcv3 leave them."""
    wide = np.dtype(
        {
            "names": list(dtype.names),
            "formats": [dtype[name] for name in dtype.names],
            "offsets": [16 * place for place in range(len(dtype.names))],
            "itemsize": 16 * len(dtype.names),
        }
    )
    made = np.zeros(len(rows), wide)
    for name in dtype.names:
        made[name] = rows[name]
    return made


# ---- dense


def dense(path):
    """Images of several shapes and types, of the other byte order too."""
    made = {
        "ECAL": numbers(4, 5, 5, 5, seed=1),
        "HCAL/HCAL": numbers(4, 2, 3, seed=2, dtype=">f4"),
        "features": numbers(4, 2, 6, 8, seed=3, dtype=np.float16),
        "Event/energy": numbers(4, seed=4, dtype=np.float64),
        "pdgID": np.array([11, -211, 22, 111], ">i4"),
        "counts8": np.arange(8, dtype=np.uint8).reshape(4, 2),
        "wide": np.array([1, 2**63, 3, 2**64 - 1], np.uint64),
    }
    with h5py.File(path, "w") as file:
        for name, values in made.items():
            file[name] = values
    return Events({**made, "ECAL[0, 1:3, 0;4]": made["ECAL"][:, 0][:, 1:3][:, :, [0, 4]]})


def atlas(path):
    """Jets, and 40 tracks of each with a field that says which are there."""
    jets = table(EVENTS, pt="f4", eta="f4", flavour="i4", eventNumber="u8")
    jets["eventNumber"] = [5, 5, 5, 7, 7, 9]  # several jets an event: the jets are the examples
    tracks = np.zeros((EVENTS, 40), np.dtype([("d0", "f4"), ("valid", "?"), ("hits", "u1")], align=True))
    tracks["d0"], tracks["valid"] = numbers(EVENTS, 40, seed=4), np.arange(40) < COUNTS[:, None]
    with h5py.File(path, "w") as file:
        file.create_dataset("jets", data=jets, compression="gzip")
        file.create_dataset("tracks", data=tracks, chunks=(2, 40), compression="gzip", shuffle=True)
    both = np.stack([jets["pt"], jets["eta"]], -1)
    return Events(
        {"jets.pt": jets["pt"], "jets[pt, eta]": both, "tracks.d0": tracks["d0"], "tracks.valid": tracks["valid"]}
    )


def jetnet(path):
    """Particles that are padded, with a mask as their last feature."""
    made = {"particle_features": numbers(EVENTS, 30, 4), "jet_features": numbers(EVENTS, 4, seed=1)}
    with h5py.File(path, "w") as file:
        for name, values in made.items():
            file[name] = values
    return Events(made)


def sub_arrays(path):
    """Fields that are arrays."""
    made = np.zeros(EVENTS, [("charge", ">f4", (8, 24)), ("label", "i1")])
    made["charge"], made["label"] = numbers(EVENTS, 8, 24), np.arange(EVENTS)
    with h5py.File(path, "w") as file:
        file["daya_bay"] = made
    return Events(
        {
            "daya_bay.charge": made["charge"],
            "daya_bay.label": made["label"],
            "daya_bay.charge[3]": made["charge"][:, 3],
        }
    )


def virtual(path):
    """A virtual data set over two files beside it."""
    values = numbers(6, 4, 3)
    layout = h5py.VirtualLayout((6, 4, 3), values.dtype)
    for part in range(2):
        name = f"{path}.part{part}"
        with h5py.File(name, "w") as file:
            file["image"] = values[3 * part : 3 * part + 3]
        layout[3 * part : 3 * part + 3] = h5py.VirtualSource(name, "image", (3, 4, 3))
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("image", layout)
        file["energy"] = np.arange(6.0)
    return Events({"image": values, "energy": np.arange(6.0)})


def external(path):
    """A data set whose bytes lie in another file."""
    values = numbers(6, 4, dtype="<f4")
    values.tofile(f"{path}.raw")
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (6, 4), "<f4", external=[(f"{path}.raw", 0, values.nbytes)])
    return Events({"image": values})


# ---- jagged


def km3net(path):
    """KM3NeT: an index of hits, a table of tracks with the event of each, and tables with a row an event."""
    time, dom = numbers(ROWS, dtype=np.float64), np.arange(ROWS, dtype=np.int32)
    info = table(EVENTS, energy="f8", group_id="i8")
    info["group_id"] = np.arange(EVENTS)
    tracks = table(4, seed=5, dir_z="f8", group_id="i8")
    tracks["group_id"] = [0, 2, 2, 5]
    with h5py.File(path, "w") as file:
        file["hits/_indices"] = np.array(list(zip(STARTS, COUNTS)), [("index", "i8"), ("n_items", "i8")])
        file.create_dataset("hits/time", data=time, chunks=(4,), compression="gzip", shuffle=True, fletcher32=True)
        file["hits/dom_id"] = dom
        file["hits/_i_time/sorted"] = np.zeros(9)  # an index of PyTables: no data
        file["event_info"] = info
        file["mc_tracks"] = tracks
        file["raw_header"] = np.zeros(18, [("parameter", "S8")])
    return Events(
        {"event_info.energy": info["energy"], "hits/_indices.n_items": COUNTS},
        {
            "hits/time": parts(time),
            "hits/dom_id": parts(dom),
            "mc_tracks.dir_z": parts(tracks["dir_z"], [1, 0, 2, 0, 0, 1]),
        },
    )


def icetray(path):
    """IceTray: tables with index tables that have other frames each, in padded types."""
    pulses = table(ROWS, Run="u4", Event="u4", vector_index="u8", charge="f8")
    fit = table(EVENTS, Run="u4", Event="u4", exists="u1", energy="f8")
    index = np.zeros(EVENTS, [("Run", "u4"), ("Event", "u4"), ("exists", "u1"), ("start", "u8"), ("stop", "u8")])
    index["Run"], index["Event"], index["exists"] = 7, IDS, COUNTS > 0
    index["start"], index["stop"] = STARTS, STARTS + COUNTS
    order = np.array([4, 0, 1, 2, 3, 5])  # the frames of the fit come in another order
    fits = index[order].copy()
    fits["start"], fits["stop"], fits["exists"] = np.arange(EVENTS), np.arange(EVENTS) + 1, 1
    with h5py.File(path, "w") as file:
        for name, rows, entries in (("Pulses", pulses, index), ("Fit", fit, fits)):
            file[name] = padded(rows, rows.dtype)
            file[f"__I3Index__/{name}"] = padded(entries, entries.dtype)
    return Events({"Fit.energy": fit["energy"][np.argsort(order)]}, {"Pulses.charge": parts(pulses["charge"])})


def lhe(path):
    """LHE: start and nparticles are columns of float64, named in an attribute."""
    events, particles = numbers(EVENTS, 4, dtype=np.float64), numbers(ROWS, 7, seed=1, dtype=np.float64)
    events[:, 1], events[:, 2] = COUNTS, STARTS
    with h5py.File(path, "w") as file:
        file["events"], file["particles"] = events, particles
        file["events"].attrs["properties"] = ["pid", "nparticles", "start", "scale"]
        file["particles"].attrs["properties"] = ["id", "status", "px", "py", "pz", "e", "m"]
        file["init"] = np.zeros(10)
    return Events(
        {"events.scale": events[:, 3], "events": events},
        {
            "particles.px": parts(particles[:, 2]),
            "particles[px, py, pz, e]": parts(particles[:, 2:6]),
            "particles[e, id, m]": parts(particles[:, [5, 0, 6]]),
            "particles[0]": parts(particles[:, 0]),
        },
    )


def lhe_columns(path):
    """The first form of LHE in HDF5: a data set for each column."""
    px, ids = numbers(ROWS, dtype=np.float64), np.arange(ROWS)
    with h5py.File(path, "w") as file:
        file["event/nparticles"], file["event/start"] = COUNTS, STARTS
        file["event/weight"] = np.arange(EVENTS) + 0.5
        file["particle/px"], file["particle/id"] = px, ids
    return Events({"event/weight": np.arange(EVENTS) + 0.5}, {"particle/px": parts(px), "particle/id": parts(ids)})


def pynuml(path):
    """NuGraph: events without rows are absent from the index."""
    position, ids = numbers(ROWS, 3), np.arange(ROWS, dtype=np.int32)[:, None]
    energy = numbers(EVENTS, 1, seed=3)
    with h5py.File(path, "w") as file:
        file["event_table/event_id"] = np.stack([np.ones(EVENTS, int), IDS], 1)
        file["event_table/nu_energy"] = energy
        file["event_table/event_id.seq_cnt"] = np.stack([np.arange(EVENTS), np.ones(EVENTS, int)], 1)
        has = np.flatnonzero(COUNTS)
        file["hit_table/event_id.seq_cnt"] = np.stack([has, COUNTS[has]], 1)
        file["hit_table/event_id.seq"] = np.repeat(np.arange(EVENTS), COUNTS)[:, None]
        file["hit_table/position"], file["hit_table/hit_id"] = position, ids
    return Events(
        {"event_table/nu_energy": energy}, {"hit_table/position": parts(position), "hit_table/hit_id": parts(ids)}
    )


def flat(path):
    """Coordinates and charges with offsets, beside images."""
    coords, values = np.arange(3 * ROWS, dtype=np.int16).reshape(ROWS, 3), numbers(ROWS, dtype=np.float16)
    with h5py.File(path, "w") as file:
        file["Hits/C"], file["Hits/V"] = coords, values
        file["Hits/offsets"] = np.concatenate([[0], np.cumsum(COUNTS)])
        file["energy"] = np.arange(EVENTS, dtype=">f8")
    return Events({"energy": np.arange(EVENTS, dtype=">f8")}, {"Hits/C": parts(coords), "Hits/V": parts(values)})


def flat_counts(path):
    """Two kinds of rows in one group: jets with counts, and as many muons as there are events, with offsets."""
    counts = np.array([1, 0, 0, 0, 4, 1])
    pt, eta, charge = numbers(ROWS), numbers(ROWS, seed=1), numbers(6, seed=2)
    with h5py.File(path, "w") as file:
        file["jet_pt"], file["jet_eta"], file["muon_charge"] = pt, eta, charge
        file["jet_counts"] = COUNTS.astype(np.uint8)
        file["muon_offsets"] = np.concatenate([[0], np.cumsum(counts)])
        file["met"] = np.arange(EVENTS, dtype=np.float32)
    return Events(
        {"met": np.arange(EVENTS, dtype=np.float32)},
        {"jet_pt": parts(pt), "jet_eta": parts(eta), "muon_charge": parts(charge, counts)},
    )


def row_table(path):
    """Rows with the number of their event, which has gaps, and a table of the events in another order."""
    hits = table(ROWS, X="f8", Q="f8", event="i4")
    hits["event"] = np.repeat(IDS, COUNTS)
    order = np.array([1, 0, 2, 3, 5, 4])
    with h5py.File(path, "w") as file:
        file["RECO/Events"] = hits
        file["RECO/_i_Events/event/sorted"] = np.zeros((3, 4))
        file["Run/events"] = np.array([(IDS[i], i) for i in order], [("evt_number", "i4"), ("timestamp", "u8")])
    return Events(
        {"Run/events.timestamp": order.astype(np.uint64)},
        {"RECO/Events.X": [parts(hits["X"])[i] for i in order], "RECO/Events.Q": [parts(hits["Q"])[i] for i in order]},
    )


def row_array(path):
    """LiquidO: arrays of float32 with the event's number in column 0, which start at 1."""
    hits, truth = numbers(ROWS, 7), numbers(EVENTS, 9, seed=1)
    truth[:, 0] = np.arange(EVENTS) + 1
    hits[:, 0] = np.repeat(truth[:, 0], COUNTS)
    with h5py.File(path, "w") as file:
        file["HitData"], file["TruthData"] = hits, truth
        file["SiPMIDxyz"] = table(50, SiPMID="i4", x="f4")
    return Events({"TruthData": truth}, {"HitData": parts(hits), "HitData[1:4]": parts(hits[:, 1:4])})


def variable_length(path):
    """LArIAT: rows of variable length, of numbers, of compound items, and three an event for the coordinates."""
    charge, coords = numbers(ROWS), np.arange(3 * ROWS, dtype=np.int32).reshape(ROWS, 3)
    step = table(ROWS, x="f4", n="i2")
    with h5py.File(path, "w") as file:
        values = file.create_dataset("images3D/V", (EVENTS,), h5py.vlen_dtype(np.float32))
        places = file.create_dataset("images3D/C", (EVENTS, 3), h5py.vlen_dtype(np.int32))
        steps = file.create_dataset("steps", (EVENTS,), h5py.vlen_dtype(step.dtype))
        for event, (v, c, s) in enumerate(zip(parts(charge), parts(coords), parts(step))):
            values[event], steps[event] = v, s
            for axis in range(3):
                places[event, axis] = c[:, axis]
        file["Energy"] = np.arange(EVENTS) * 0.1
        file["names"] = np.array(["a"] * EVENTS, h5py.string_dtype())
    return Events(
        {"Energy": np.arange(EVENTS) * 0.1},
        {
            "images3D/V": parts(charge),
            "images3D/C": parts(coords),
            "steps.x": parts(step["x"]),
            "steps[x, n]": [np.stack([s["x"], s["n"].astype("f4")], -1) for s in parts(step)],
        },
    )


def region_reference(path):
    """LArPix: events point to their hits and tracks with region references."""
    hits, tracks = table(ROWS, px="f8", q="f8"), table(3, seed=4, theta="f8", start=("f8", (4,)))
    with h5py.File(path, "w") as file:
        file["hits"], file["tracks"] = hits, tracks
        references = [("hit_ref", h5py.regionref_dtype), ("track_ref", h5py.regionref_dtype)]
        kind = np.dtype([("evid", "i8"), *references, ("q", "f8")])  # as written there, with fields behind them
        events = file.create_dataset("events", (EVENTS,), kind)
        for event in range(EVENTS):
            mine = file["hits"].regionref[STARTS[event] : STARTS[event] + COUNTS[event]]
            its_tracks = file["tracks"].regionref[0:3] if event == 2 else h5py.h5r.RegionReference()  # null
            events[event] = (event, mine, its_tracks, event * 0.5)
    track_counts = [0, 0, 3, 0, 0, 0]
    return Events(
        {"events.evid": np.arange(EVENTS), "events.q": np.arange(EVENTS) * 0.5},
        {
            "hits.q": parts(hits["q"]),
            "tracks.theta": parts(tracks["theta"], track_counts),
            "tracks.start": parts(tracks["start"], track_counts),
        },
    )


def larcv3(path, *, dimension=3, projections=1, counts=COUNTS, seed=0):
    """larcv3: sparse tensors of one or several projections; events may have no voxel, or lack a projection."""
    random = np.random.default_rng(seed)
    grid = {2: (64, 128), 3: (30, 40, 50)}[dimension]
    group = f"Data/sparse{dimension}d_voxels_group"
    extents, voxel_extents, meta, ids, values = [], [], [], [], []
    expected = {p: ([], []) for p in range(projections)}
    for event, count in enumerate(counts):
        first = len(voxel_extents)
        for p in range(projections):
            if projections > 1 and (event, p) == (1, 1):  # this event lacks a projection
                expected[p][0].append(np.empty((0, dimension), np.int32))
                expected[p][1].append(np.empty(0, np.float32))
                continue
            n = count + p if count else 0
            flat_ids = np.sort(random.choice(int(np.prod(grid)), n, replace=False))
            energy = random.random(n).astype(np.float32)
            voxel_extents.append((sum(map(len, ids)), n, p))
            meta.append((True, p, grid))
            ids.append(flat_ids)
            values.append(energy)
            expected[p][0].append(np.stack(np.unravel_index(flat_ids, grid), -1).astype(np.int32))
            expected[p][1].append(energy)
        extents.append((first, len(voxel_extents) - first))
    voxels = np.zeros(sum(map(len, ids)), [("id", "u8"), ("value", "f4")])
    voxels["id"], voxels["value"] = np.concatenate(ids), np.concatenate(values)
    with h5py.File(path, "w") as file:
        made = file.create_group(group)
        pair, triple = [("first", "u8"), ("n", "u8")], [("first", "u8"), ("n", "u8"), ("id", "u8")]
        kind = [("valid", "?"), ("projection_id", "u8"), ("number_of_voxels", "u8", (dimension,))]
        for name, rows in (
            ("extents", np.array(extents, pair)),
            ("voxel_extents", np.array(voxel_extents, triple)),
            ("voxels", voxels),
            ("image_meta", np.array(meta, kind)),
        ):
            stored = padded(rows, rows.dtype) if name == "voxels" else rows
            made.create_dataset(name, data=stored, compression=1, chunks=True, maxshape=(None,))
        run = np.zeros(len(counts), [("run", "i8"), ("subrun", "i8"), ("event", "i8")])
        run["event"] = np.arange(len(counts))
        file["Events/event_id"] = run
    jagged = {}
    for p, (coords, energy) in expected.items():
        place = f"{group}/{p}" if projections > 1 else group
        jagged |= {f"{place}/coords": coords, f"{place}/value": energy}
    return Events({"Events/event_id.event": run["event"]}, jagged)


def larcv3_2d(path):
    """Three projections in two dimensions."""
    return larcv3(path, dimension=2, projections=3)


def larcv3_particles(path):
    """A product with one level, beside voxels."""
    made = larcv3(path)
    particles = table(ROWS, seed=3, pdg="i4", energy_init="f8")
    with h5py.File(path, "a") as file:
        file["Data/particle_mc_group/particles"] = particles
        file["Data/particle_mc_group/extents"] = np.array(list(zip(STARTS, COUNTS)), [("first", "u8"), ("n", "u8")])
    made.jagged["Data/particle_mc_group/particles.energy_init"] = parts(particles["energy_init"])
    return made


def larcv3_million(path):
    """An event of a million voxels between empty ones; 16 MB, so only where it is asked for."""
    random = np.random.default_rng(0)
    grid, n = (200, 200, 200), 1_000_000
    flat_ids, values = np.sort(random.choice(8_000_000, n, replace=False)), random.random(n).astype(np.float32)
    group = "Data/sparse3d_voxels_group"
    with h5py.File(path, "w") as file:
        made = file.create_group(group)
        made["extents"] = np.array([(0, 1), (1, 1), (2, 1)], [("first", "u8"), ("n", "u8")])
        entries = [(0, 0, 0), (0, n, 0), (n, 0, 0)]
        made["voxel_extents"] = np.array(entries, [("first", "u8"), ("n", "u8"), ("id", "u8")])
        made["image_meta"] = np.array([(grid,)] * 3, [("number_of_voxels", "u8", (3,))])
        voxels = np.zeros(n, [("id", "u8"), ("value", "f4")])
        voxels["id"], voxels["value"] = flat_ids, values
        made.create_dataset("voxels", data=voxels, chunks=(1 << 16,), compression=1)
    coords = np.stack(np.unravel_index(flat_ids, grid), -1).astype(np.int32)
    none = np.empty((0, 3), np.int32), np.empty(0, np.float32)
    return Events(
        {},
        {
            f"{group}/coords": [none[0], coords, none[0]],
            f"{group}/value": [none[1], values, none[1]],
        },
    )


def _pandas_columns(event):
    rows = len(event)
    return {
        "event": event.astype(np.int32),
        "x": numbers(rows, dtype=np.float64),
        "y": numbers(rows, seed=1, dtype=np.float64),
        "z": numbers(rows, seed=2, dtype=np.float64),
        "n": np.arange(rows),
    }


def pandas_fixed(path):
    """A pandas frame in the fixed format: columns of one type lie in a block."""
    columns = _pandas_columns(np.repeat(IDS, COUNTS))
    with h5py.File(path, "w") as file:
        group = file.create_group("Tracks")
        group.attrs["pandas_type"] = np.bytes_("frame")
        group["axis0"], group["axis1"] = np.array([*columns], "S8"), np.arange(ROWS)
        for block, names in enumerate((["event"], ["x", "y", "z"], ["n"])):
            group[f"block{block}_items"] = np.array(names, "S8")
            group[f"block{block}_values"] = np.stack([columns[name] for name in names], 1)
        text = group.create_dataset("block3_values", (1,), h5py.vlen_dtype(np.uint8))  # a pickle of objects
        text[0] = np.frombuffer(b"cos\nsystem\n.", np.uint8)
        group["block3_items"] = np.array(["name"], "S8")
    some = COUNTS[COUNTS > 0]
    return Events(
        {},
        {
            "Tracks.x": parts(columns["x"], some),
            "Tracks[z, x]": parts(np.stack([columns["z"], columns["x"]], 1), some),
            "Tracks[x, y, z]": parts(np.stack([columns["x"], columns["y"], columns["z"]], 1), some),
            "Tracks.n": parts(columns["n"], some),
        },
    )


def pandas_table(path, *, data_column=False):
    """A pandas frame in the table format, with the names of columns in pickles of the first protocol."""
    columns = _pandas_columns(np.repeat(IDS, COUNTS))
    blocks = {"values_block_0": ["x", "y", "z"], "values_block_1": ["n"], "values_block_2": ["event"]}
    kinds = [("index", "i8"), ("values_block_0", "f8", (3,)), ("values_block_1", "i8", (1,))]
    if data_column:
        del blocks["values_block_2"]
    kinds += [("event", "i4")] if data_column else [("values_block_2", "i4", (1,))]
    rows = np.zeros(ROWS, kinds)
    for field_, names in blocks.items():
        rows[field_] = np.stack([columns[name] for name in names], 1)
    if data_column:
        rows["event"] = columns["event"]
    with h5py.File(path, "w") as file:
        file["df/table"] = rows
        for field_, names in blocks.items():
            pickled = "(lp0\n" + "a".join(f"V{name}\np{place}\n" for place, name in enumerate(names, 1)) + "a."
            file["df/table"].attrs[f"{field_}_kind"] = np.bytes_(pickled)
    some = COUNTS[COUNTS > 0]
    return Events(
        {},
        {
            "df.y": parts(columns["y"], some),
            "df[x, z]": parts(np.stack([columns["x"], columns["z"]], 1), some),
            "df.n": parts(columns["n"], some),
            "df.event": parts(columns["event"], some),
            "df/table.values_block_0": parts(np.stack([columns["x"], columns["y"], columns["z"]], 1), some),
        },
    )


def pandas_data_column(path):
    """A pandas table whose event number is a column that can be searched, and so a field of its own."""
    return pandas_table(path, data_column=True)


def pandas_wide(path):
    """Top tagging: a row a jet, with 200 constituents of 4 columns each."""
    rows = np.zeros(EVENTS, [("index", "i8"), ("values_block_0", "f4", (800,)), ("values_block_1", "i8", (1,))])
    rows["values_block_0"] = numbers(EVENTS, 800)
    rows["values_block_1"][:, 0] = np.arange(EVENTS) % 2
    names = [f"{part}_{place}" for place in range(200) for part in ("E", "PX", "PY", "PZ")]
    with h5py.File(path, "w") as file:
        file.create_dataset("table/table", data=rows, chunks=(2,), compression=9)
        for field_, held in (("values_block_0", names), ("values_block_1", ["is_signal_new"])):
            pickled = "(lp0\n" + "a".join(f"V{name}\np{place}\n" for place, name in enumerate(held, 1)) + "a."
            file["table/table"].attrs[f"{field_}_kind"] = np.bytes_(pickled)
    return Events(
        {
            "table.is_signal_new": rows["values_block_1"][:, 0],
            "table[E_0, E_1]": rows["values_block_0"][:, [0, 4]],
            "table/table.values_block_0": rows["values_block_0"],
        }
    )


# ---- stated


def stated_start(path):
    """Flat columns with starts under names that nobody knows."""
    values = numbers(ROWS)
    with h5py.File(path, "w") as file:
        file["wires/adc"] = values
        file["wires/where"] = np.array(list(zip(STARTS, STARTS + COUNTS)), [("from", "f8"), ("to", "f8")])
        file["energy"] = np.arange(EVENTS) * 1.5
    rule = {"start": "wires/where.from", "stop": "wires/where.to"}
    return Events({"energy": np.arange(EVENTS) * 1.5}, {"wires/adc": parts(values)}, {"rows": {"wires": rule}})


def stated_id(path):
    """Two tables with numbers of events, and the table of events."""
    hits, truth = numbers(ROWS, 4), numbers(EVENTS, 3, seed=1)
    truth[:, 2] = IDS
    hits[:, 3] = np.repeat(IDS, COUNTS)
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = hits, truth
        file["other"] = np.arange(EVENTS)
    layout = {"rows": {"a": {"id": "a[3]"}}, "events": {"id": "b[2]"}}
    return Events({"b[0:2]": truth[:, :2], "other": np.arange(EVENTS)}, {"a[0]": parts(hits[:, 0])}, layout)


FILES = {
    writer.__name__: writer
    for writer in (
        dense,
        atlas,
        jetnet,
        sub_arrays,
        virtual,
        external,
        km3net,
        icetray,
        lhe,
        lhe_columns,
        pynuml,
        flat,
        flat_counts,
        row_table,
        row_array,
        variable_length,
        region_reference,
        larcv3,
        larcv3_2d,
        larcv3_particles,
        pandas_fixed,
        pandas_table,
        pandas_data_column,
        pandas_wide,
        stated_start,
        stated_id,
    )
}
"""Name -> writer; :func:`larcv3_million` is apart."""
