"""The file of a sample specification: YAML or JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable
from typing import Any

import yaml

from hepfeed.errors import SpecError
from hepfeed.filters import Filter
from hepfeed.patterns import beside, match, relocate
from hepfeed.spec_options import Document, Entry, FilterLike, LabelRule, validate

__all__ = ["read", "to_yaml", "write", "written_entry", "written_filter"]


def read(path: str) -> dict[str, Any]:
    """Return the options of a file, named as in :class:`~hepfeed.spec_options.Document`; a list is its samples.

    Raises:
        SpecError: The file is missing or is neither YAML nor JSON, with the line; or an option is wrong.
        FilterError: The common filter is wrong.
    """
    contents = _parse(path)
    options = {"samples": contents} if isinstance(contents, list) else contents
    if not isinstance(options, dict):
        raise SpecError(f"a specification is a list of samples or a mapping, not {contents!r}")
    validate(Document, options)
    return options


def _parse(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        if path.lower().endswith(".json"):
            return json.loads(text, object_pairs_hook=_unique)
        return yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        folder = os.path.dirname(path)
        raise SpecError(f"there is no specification {path!r}: {beside(path, folder)}") from None
    except OSError as error:
        raise SpecError(f"the specification {path!r} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError("a specification is text (YAML or JSON in UTF-8), and this is a binary file") from None
    except json.JSONDecodeError as error:
        raise SpecError(f"the specification is no JSON in line {error.lineno}: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"the specification is no YAML in line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"the specification is no YAML: {error}") from None


def write(document: dict[str, Any], path: str) -> None:
    """Write a document as YAML or JSON, by the suffix of ``path``.

    Raises:
        SpecError: The suffix is another one.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise SpecError(f"a specification is saved as .yaml, .yml or .json, not {suffix!r}", file=path)
    text = json.dumps(document, indent=2) + "\n" if suffix == ".json" else to_yaml(document)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def to_yaml(document: dict[str, Any]) -> str:
    """Return the text of a YAML file."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


# ---- what is written


def written_entry(entry: Entry, root: str, directory: str) -> dict[str, Any] | list[Any]:
    """Return an entry as a file has it: the list form where that says all, otherwise the mapping.

    Args:
        entry: As it was read.
        root: Directory that its relative patterns start from.
        directory: Of the file, from which they are to start.

    Raises:
        SpecError: Its filter is a function.
    """
    files = [relocate(pattern, root, directory) for pattern in entry.files]
    rule = entry.label.model_dump(by_alias=True, exclude_none=True) if isinstance(entry.label, LabelRule) else None
    keys = [name if paths == (name,) else {name: list(paths)} for name, paths in entry.keys.items()]
    rate: Any = entry.rate
    if isinstance(rate, tuple):
        rate = _Flow(rate)
    elif isinstance(rate, dict):
        rate = {relocate(n, root, directory) if match(n, root) else n: value for n, value in rate.items()}
    options = {
        "files": files[0] if len(files) == 1 else files,
        "keys": _Flow(keys),
        "label": rule or entry.label,
        "rate": rate,
        "filter": None if entry.filter is None else written_filter(entry.filter),
        "layout": entry.layout,
    }
    options = {name: value for name, value in options.items() if value is not None}
    plain = len(files) == 1 and rule is None and not isinstance(rate, (list, dict))
    short = plain and entry.filter is None and entry.layout is None
    return _Flow(options.values()) if short else options


def written_filter(condition: FilterLike) -> str:
    """Return the expression of a filter.

    Raises:
        SpecError: It is a function.
    """
    expression = condition.expression if isinstance(condition, Filter) else None
    if expression is None:
        raise SpecError(f"a filter function ({condition!r}) can't be saved: write it as an expression")
    return expression


# ---- dialects


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    options = dict(pairs)
    if len(options) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"{twice!r} is given twice: keep one")
    return options


class _Loader(yaml.SafeLoader):
    """YAML 1.1 in which ``1e-3`` is a number, and an option that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Flow(list[Any]):
    """A list that YAML writes on one line."""


class _Dumper(yaml.SafeDumper):
    """The counterpart of :class:`_Loader`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)
# Only in double quotes does PyYAML escape line breaks of Unicode, which a plain text would lose.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)
