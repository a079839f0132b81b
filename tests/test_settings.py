"""Settings that a person wrote: what is built, and what is said of a wrong key or type."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from rlhf_prm.settings import build, json_mapping, read_mapping


@dataclass
class Model:
    name: str
    temperature: float = 1.0


@dataclass
class Settings:
    out: str
    first: Model
    others: list[Model] = field(default_factory=list)
    judge: Model | None = None
    limit: int | None = None
    flag: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def test_nested_dataclasses_are_built():
    given = {"out": "o", "first": {"name": "a", "temperature": 1}, "others": [{"name": "b"}], "judge": {"name": "c"}}
    assert build(Settings, given, "x") == Settings("o", Model("a", 1), [Model("b")], Model("c"))
    assert build(Settings, {"out": "o", "first": {"name": "a"}, "judge": None}, "x").judge is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outt": 1}, "config: unknown keys outt; known are extra, first, flag, judge, limit, others, out"),
        ({"first": {}}, "config: first: missing name"),
        ({"first": None}, r"config: first: got None, expected a mapping such as {name: …}"),
        ({"first": {"name": "a", "temprature": 1}}, "config: first: unknown keys temprature; known are name"),
        ({"others": [{"name": 3}]}, "config: others: name: got 3, expected str"),
        ({"others": ["a"]}, r"others: got 'a', expected a mapping such as {name: …}"),
        ({"others": "a"}, r"others: got 'a', expected a list of mappings such as {name: …}"),
        ({"judge": "a"}, r"judge: got 'a', expected a mapping"),
        ({"out": 3}, "out: got 3, expected str"),
        ({"limit": 1.5}, "limit: got 1.5, expected int or nothing"),
        ({"limit": True}, "limit: got True, expected int or nothing"),
        ({"flag": 1}, "flag: got 1, expected bool"),
        ({"extra": [1]}, r"extra: got \[1\], expected dict"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(Settings, {"out": "o", "first": {"name": "a"}} | changes, "config")


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="config: missing out, first"):
        build(Settings, {}, "config")


def test_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    for text, found in [("a: 1\nb: {c: [2]}", {"a": 1, "b": {"c": [2]}}), ("", {}), ("# nothing", {})]:
        path.write_text(text)
        assert read_mapping(path) == found
    for content, message in [
        (b"- 1", "got a list, expected a mapping"),
        (b"a: [", "is not YAML"),
        (b"\xff", "not YAML"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.yaml.*{message}"):
            read_mapping(path)
    with pytest.raises(ValueError, match="absent: no such file"):
        read_mapping(tmp_path / "absent")


def test_json_on_a_command_line():
    assert json_mapping("x", None) == json_mapping("x", "") == json_mapping("x", "{}") == {}
    assert json_mapping("x", '{"seed": 1}') == json_mapping("x", {"seed": 1}) == {"seed": 1}
    for bad in ("{", "[1]", 3, [1]):
        with pytest.raises(ValueError, match=r"x: got .*expected a mapping"):
            json_mapping("x", bad)
