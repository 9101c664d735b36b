"""Records in general: their files, their machines and their settings, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepfeed.bench.record import Machine, Record
from hepfeed.bench.sheet import Mark, Sheet

__all__ = ["differing_settings", "file_sheet", "lead", "letters", "machine_sheet", "moment", "settings_sheet"]


def letters(records: Mapping[str, Record]) -> dict[Machine, str]:
    """Name machines A, B, ..., Z, A2, ...: those of which nothing differs are one."""
    machines = dict.fromkeys(record.machine for record in records.values())
    return {machine: _letter(number) for number, machine in enumerate(machines)}


def moment(record: Record) -> str:
    """Return when a record was made, by the clock of its machine, without seconds."""
    return record.created[:16].replace("T", " ")


def lead(records: Mapping[str, Record], machines: Mapping[Machine, str]) -> str:
    """Return a sentence about all records."""
    days = sorted({record.created[:10] for record in records.values()})
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    results = "One result" if len(records) == 1 else f"{len(records)} results"
    places = "one machine" if len(machines) == 1 else f"{len(machines)} machines"
    return f"{results} of hepfeed bench, measured on {places} {when}."


def file_sheet(records: Mapping[str, Record], machines: Mapping[Machine, str]) -> Sheet:
    """Return a row for each record: what was measured, on which machine, when."""
    rows = [
        [name, record.kind, record.title, machines[record.machine], record.machine.hepfeed, moment(record)]
        for name, record in records.items()
    ]
    columns = ["file", "kind", "title", "machine", "hepfeed", "measured"]
    return Sheet("Files", columns, rows, frozenset(columns))


def machine_sheet(machines: Mapping[Machine, str]) -> Sheet:
    """Return a column for each machine; rows in which machines differ are marked."""
    descriptions = [_described(machine) for machine in machines]
    columns = ["", *(f"machine {letter}" for letter in machines.values())]
    rows = [[name, *(description[name] for description in descriptions)] for name in descriptions[0]]
    return _with_differences(Sheet("Machines", columns, rows, frozenset(columns)))


def settings_sheet(record: Record) -> Sheet:
    """Return a row for each setting; settings of settings have names with dots."""
    columns = ["setting", "value"]
    return Sheet("Settings", columns, [list(pair) for pair in _flat(record.settings).items()], frozenset(columns))


def differing_settings(records: Mapping[str, Record]) -> Sheet:
    """Return the settings that are not the same in all records, a column for each record; perhaps no row."""
    found = {name: _flat(record.settings) for name, record in records.items()}
    keys = dict.fromkeys(key for settings in found.values() for key in settings)
    rows = [[key, *(settings.get(key, "") for settings in found.values())] for key in keys]
    columns = ["setting", *found]
    different = [row for row in rows if len(set(row[1:])) > 1]
    return Sheet("Settings that differ", columns, different, frozenset(columns))


def _letter(number: int) -> str:
    turn, place = divmod(number, 26)
    return chr(ord("A") + place) + (str(turn + 1) if turn else "")


def _described(machine: Machine) -> dict[str, str]:
    return {
        "processor": machine.processor,
        "cores": str(machine.cores),
        "memory": f"{machine.memory_bytes / 2**30:,.1f} GiB",
        "cards": ", ".join(machine.cards) or "none",
        "system": machine.system,
        "Python": machine.python,
        "torch": machine.torch,
        "hepfeed": machine.hepfeed,
    }


def _with_differences(sheet: Sheet) -> Sheet:
    different = [number for number, row in enumerate(sheet.rows) if len(set(row[1:])) > 1]
    marks: dict[tuple[int, int], Mark] = {
        (number, column): "differs" for number in different for column in range(1, len(sheet.columns))
    }
    caption = "Bold: what differs." if marks else ""
    return Sheet(sheet.title, sheet.columns, sheet.rows, sheet.left, caption, marks)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = _said(value)
    return found


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(map(_said, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
