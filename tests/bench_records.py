"""Records as benchmarks leave them, with figures that are easy to check by hand."""

from hepfeed.bench.record import Machine, Record

LAPTOP = Machine(
    processor="Small CPU",
    cores=2,
    memory_bytes=16 << 30,
    cards=(),
    system="Linux 6.1 x86_64",
    python="3.11.7",
    torch="2.13.0+cpu",
    hepfeed="0.1.0",
)
SERVER = LAPTOP.model_copy(update={"processor": "Large CPU", "cores": 64, "cards": ("H100", "H100")})


def record(kind, title, rows, settings=None, notes=(), machine=LAPTOP, created="2026-03-01T10:30:59+01:00"):
    """A record of some rows."""
    return Record(
        kind=kind,
        title=title,
        settings=settings or {},
        rows=rows,
        notes=list(notes),
        machine=machine,
        created=created,
    )


def kernels(factor=1.0, machine=LAPTOP, title="Kernels: medians of 3 rounds, ms", rows=3):
    """Times of hepfeed that are multiplied, of a rival that are not; rows 0 and 2 have the rival."""
    found = []
    for number in range(rows):
        seconds = {"hepfeed": [factor * (number + 1) * 1e-3 * spread for spread in (1.0, 1.1, 0.9)]}
        if number % 2 == 0:
            seconds["spconv"] = [(number + 1) * 4e-3 * spread for spread in (1.0, 1.2, 0.8)]
        found.append({"what": f"map 3^3, {number + 1:,} sites", "bound": 1e-4, "seconds": seconds, "absent": {}})
    settings = {"threads": 2, "peaks": {"bandwidth": 1e10, "flops": {"float32": 1e12}}, "numbers": ["float32"]}
    return record("kernels", title, found, settings, ["spconv did not take part in one row"], machine)


def sizes(start_s=0.5, title="Start-up by number of events"):
    """A plain table."""
    rows = [
        {"events": events, "loader": loader, "start_s": start_s * factor, "files": 100, "verified": True}
        for events in (100_000, 1_000_000)
        for loader, factor in (("hepfeed", 1), ("torch", 8))
    ]
    return record("table", title, rows, {"index": True})
