import json
import os
import signal

import pytest

from rlhf_prm.toyworld.stages import StageCache
from tests.killed import killed


def test_a_stage_is_built_once_and_keeps_its_seconds(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "result").write_text("42")

    first = StageCache(tmp_path).stage("answer", {"seed": 1}, build)
    record = json.loads((first.path / "stage.json").read_text())
    (first.path / "stage.json").write_text(json.dumps({**record, "seconds": 12.5}))
    again = StageCache(tmp_path).stage("answer", {"seed": 1}, build)
    assert len(built) == 1 and again.path == first.path and (again.path / "result").read_text() == "42"
    assert (first.cached, again.cached, again.seconds) == (False, True, 12.5)


def test_settings_and_upstream_decide_the_folder(tmp_path):
    cache = StageCache(tmp_path)
    one, two = (cache.stage("a", {"seed": seed}, lambda folder: None) for seed in (1, 2))
    after_one, after_two = (cache.stage("b", {}, lambda folder: None, (upstream,)) for upstream in (one, two))
    assert len({one.path, two.path, after_one.path, after_two.path}) == 4
    assert not after_two.cached


def test_a_stage_that_failed_leaves_nothing_and_is_built_anew(tmp_path):
    def half(folder):
        (folder / "half").write_text("1")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="fire"):
        StageCache(tmp_path).stage("a", {}, half)
    stage = StageCache(tmp_path).stage("a", {}, lambda folder: (folder / "whole").write_text("2"))
    assert not stage.cached and sorted(p.name for p in stage.path.iterdir()) == ["stage.json", "whole"]


def killed_in_the_second_stage(root):
    def build(folder):
        (folder / "half").write_text("2")
        os.kill(os.getpid(), signal.SIGKILL)

    cache = StageCache(root)
    first = cache.stage("first", {}, lambda folder: (folder / "result").write_text("1"))
    cache.stage("second", {}, build, (first,))


def test_killed_within_a_stage_the_next_run_goes_on_from_there(tmp_path):
    killed(killed_in_the_second_stage, tmp_path)
    cache = StageCache(tmp_path)
    first = cache.stage("first", {}, lambda folder: pytest.fail("built twice"))
    second = cache.stage("second", {}, lambda folder: (folder / "whole").write_text("2"), (first,))
    assert first.cached and not second.cached
    assert sorted(path.name for path in second.path.iterdir()) == ["stage.json", "whole"]
