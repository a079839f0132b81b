"""Records that survive: torn lines, mixed settings, two writers, rows set aside."""

import json

import pytest

from rlhf_prm.annotate.store import Shards, StageStore, file_hash, settings_hash
from rlhf_prm.files import write_text
from rlhf_prm.step_data import cut_torn_line

SETTINGS = {"model": "m", "n": 8}


def store(tmp_path, settings=SETTINGS):
    return StageStore(tmp_path / "stage", settings, shard_size=10)


def test_records_come_back_in_order_by_shard(tmp_path):
    with store(tmp_path) as first:
        for number in (3, 12, 4):
            first.append(first.shard_of(number), {"id": str(number), "text": "ü\n"})
    with store(tmp_path) as again:
        again.append(0, {"id": "5", "text": ""})
    shards = Shards(tmp_path / "stage", 10)
    assert [r["id"] for r in shards.records(0)] == ["3", "4", "5"]
    assert list(shards.records(1)) == [{"id": "12", "text": "ü\n"}]
    assert list(shards.records(7)) == [] and shards.last_shard() == 1
    assert Shards(tmp_path / "none", 10).last_shard() == -1


@pytest.mark.parametrize("torn", ['{"id": "4", "te', "x", '{"id": "4"}', "y" * 200_000])
def test_a_torn_line_was_never_written(tmp_path, torn):
    with store(tmp_path) as first:
        first.append(0, {"id": "3"})
    path = tmp_path / "stage" / "00000.jsonl"
    with open(path, "a") as file:
        file.write(torn)
    assert [r["id"] for r in Shards(tmp_path / "stage", 10).records(0)] == ["3"]
    with store(tmp_path) as again:
        again.append(0, {"id": "4"})
    assert path.read_text() == '{"id": "3"}\n{"id": "4"}\n'


def test_a_torn_first_line_leaves_an_empty_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("abc")
    cut_torn_line(path)
    assert path.read_text() == ""
    cut_torn_line(tmp_path / "none")


def test_damage_inside_is_named(tmp_path):
    with store(tmp_path) as first:
        first.append(0, {"id": "3"})
    path = tmp_path / "stage" / "00000.jsonl"
    path.write_text('{"id": \n' + path.read_text())
    with pytest.raises(ValueError, match=r"00000.jsonl:1: not JSON.*delete that line"):
        list(Shards(tmp_path / "stage", 10).records(0))


def test_other_settings_are_refused_and_named(tmp_path):
    store(tmp_path).close()
    with pytest.raises(ValueError, match=r"other settings \(n: 8 there, 4 now\)"):
        store(tmp_path, {"model": "m", "n": 4})
    with pytest.raises(ValueError, match=r"extra: None there, 1 now"):
        store(tmp_path, SETTINGS | {"extra": 1})
    store(tmp_path).close()  # the refusals let go of the folder
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1}) != settings_hash({"a": 1, "b": 3})


def test_two_writers_are_refused(tmp_path):
    with store(tmp_path), pytest.raises(ValueError, match="another process is writing there"):
        store(tmp_path)
    store(tmp_path).close()


def test_rows_set_aside(tmp_path):
    with store(tmp_path) as first:
        assert first.rejected() == {}
        first.reject("7", "odd")
    with open(tmp_path / "stage" / "rejected.jsonl", "a") as file:
        file.write('{"id": "8", ')
    with store(tmp_path) as again:
        assert again.rejected() == {"7": "odd"}
        again.reject("9", "odder")
        assert again.rejected() == {"7": "odd", "9": "odder"}
        again.append(0, {"id": "7", "vote": 0})
        again.append(0, {"id": "5", "vote": 0})
        again.append(0, {"id": "7", "vote": 1})
        again.append(200, {"id": "9", "vote": 0})
    with store(tmp_path) as last:
        last.forget_rejected(lambda records: records[:1])
        assert last.rejected() == {}
        assert list(last.records(0)) == [{"id": "7", "vote": 0}, {"id": "5", "vote": 0}]
        assert list(last.records(200)) == [{"id": "9", "vote": 0}]


def test_many_shards_do_not_keep_many_files_open(tmp_path):
    with store(tmp_path) as first:
        for shard in [*range(200), 0]:
            first.append(shard, {"id": str(shard)})
        assert len(first._files) <= 64
    assert len(list(Shards(tmp_path / "stage", 10).records(0))) == 2


def test_hashes_and_whole_files(tmp_path):
    write_text(tmp_path / "a", "one")
    before = file_hash(tmp_path / "a")
    write_text(tmp_path / "a", "two")
    assert file_hash(tmp_path / "a") != before and (tmp_path / "a").read_text() == "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_manifest_says_what_the_records_were_made_with(tmp_path):
    store(tmp_path).close()
    manifest = json.loads((tmp_path / "stage" / "manifest.json").read_text())
    assert manifest == {"hash": settings_hash(SETTINGS), "settings": SETTINGS}
