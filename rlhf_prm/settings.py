"""Reads, checks and builds settings from YAML, from JSON on a command line, or from mappings."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

Config = TypeVar("Config")


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; {} for an empty file.

    Raises:
        ValueError: the file is missing, not YAML, or not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict | None):
        raise ValueError(f"{path}: got a {type(settings).__name__}, expected a mapping of settings")
    return settings or {}


def json_mapping(where: str, value: Any) -> dict[str, Any]:
    """A mapping given as such, as a JSON object in a text, or not at all (None or an empty text).

    Raises:
        ValueError: another value; the message begins with ``where``.
    """
    problem = f'{where}: got {value!r}, expected a mapping, on a command line a JSON object such as {{"seed": 0}}'
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{problem} ({error})") from error
    if not isinstance(value or {}, dict):
        raise ValueError(problem)
    return value or {}


def build(config: type[Config], settings: Any, where: str) -> Config:
    """An instance of a dataclass from a mapping. Fields that are dataclasses, or lists of them, are built in turn.

    Raises:
        ValueError: an unknown key, a missing one, a value of the wrong type, or one that the dataclass refuses; the
            message begins with ``where``.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"{where}: got {settings!r:.60}, expected {_name(config)}")
    known = {field.name for field in fields(config)}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"{where}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    if missing := [name for name in _required(config) if name not in settings]:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    types = get_type_hints(config)
    return config(**{name: _value(value, types[name], f"{where}: {name}") for name, value in settings.items()})


def _value(value: Any, wanted: Any, where: str) -> Any:
    """The value, built where its type is a dataclass or a list of them."""
    options = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    for option in options:
        if is_dataclass(option) and not (value is None and NoneType in options):
            return build(option, value, where)
        inner = get_args(option)
        if get_origin(option) is list and inner and is_dataclass(inner[0]) and isinstance(value, list):
            return [build(inner[0], item, where) for item in value]
    if not any(_fits(value, option) for option in options):
        raise ValueError(f"{where}: got {value!r:.60}, expected {' or '.join(map(_name, options))}")
    return value


def _fits(value: Any, wanted: Any) -> bool:
    wanted = get_origin(wanted) or wanted
    if wanted is float:
        wanted = int | float
    if wanted not in (str, int, int | float, bool, list, dict, NoneType):
        return True
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def _name(wanted: Any) -> str:
    """A type as a person writes its values."""
    inner = get_args(wanted)
    if is_dataclass(wanted):
        return f"a mapping such as {{{', '.join(f'{name}: …' for name in _required(wanted))}}}"
    if get_origin(wanted) is list and inner and is_dataclass(inner[0]):
        return f"a list of {_name(inner[0]).removeprefix('a ').replace('mapping', 'mappings')}"
    return "nothing" if wanted is NoneType else getattr(wanted, "__name__", str(wanted))


def _required(config: Any) -> list[str]:
    return [field.name for field in fields(config) if field.default is field.default_factory is MISSING]
