"""Files that appear whole or not at all, and JSON lines with errors that name the line."""

import pytest

from rlhf_prm.files import read_json, read_json_lines, whole, write_json, write_json_lines, write_text


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert write_json_lines(path, [{"a": 1}, {"b": "é"}]) == 2
    before = path.read_bytes()

    def rows():
        yield {"a": 2}
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_json_lines(path, rows())
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_nothing_is_seen_before_it_is_whole(tmp_path):
    with whole(tmp_path / "a") as partial:
        partial.write_text("half")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "half"


def test_two_may_write_at_once(tmp_path):
    with whole(tmp_path / "a") as first, whole(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"  # complete last
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"ρ": [1, None], "x": {1}}, default=sorted)
    assert read_json(tmp_path / "a.json") == {"ρ": [1, None], "x": [1]}
    write_text(tmp_path / "a.json", "{")
    with pytest.raises(ValueError, match=r"a\.json is damaged: not JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("bad", ["{", "[1]", "3", '{"a": 1} {"b": 2}', "\udcff"])
def test_a_bad_line_is_named(tmp_path, bad):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + bad.encode("utf-8", "surrogateescape") + b'\n{"a": 2}')
    for may_be_cut in (False, True):
        with pytest.raises(ValueError, match=r"rows\.jsonl:3: (not JSON|got a).*one JSON object a line"):
            read_json_lines(path, may_be_cut=may_be_cut)


def test_a_line_that_was_cut_off_was_never_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_json_lines(path, may_be_cut=True) == []
    with pytest.raises(FileNotFoundError):
        read_json_lines(path)
    for end in ('{"a": 2', '{"a": 2}'):
        path.write_text('{"a": 1}\n' + end)
        assert read_json_lines(path, may_be_cut=True) == [{"a": 1}]
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]  # nobody was killed: it is a line like any other
    assert read_json_lines(path, may_be_cut=True) == [{"a": 1}]
