"""Of the ranks that want a world, one has it built; the others wait and find it."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_prm.toyworld.apart import found_or_built_apart
from rlhf_prm.toyworld.stages import NotBuilt, StageCache
from rlhf_prm.toyworld.tool_world import ToolWorldSettings

SETTINGS = ToolWorldSettings()


def slowly(folder: Path) -> None:
    time.sleep(0.2)
    (folder / "made").write_text("")


def world_in(cache: StageCache):
    return [cache.stage(name, {}, slowly) for name in ("first", "second")]


@pytest.fixture
def started(monkeypatch) -> list[tuple[str, ...]]:
    """The flags of each process that would have been started; the stages are built in this one."""
    flags_of = []

    def build(settings, root, *flags):
        flags_of.append(flags)
        world_in(StageCache(root))

    monkeypatch.setattr("rlhf_prm.toyworld.apart.build_apart", build)
    return flags_of


def test_four_ranks_start_one_process_and_a_later_one_none(tmp_path, started):
    with ThreadPoolExecutor(4) as ranks:
        worlds = list(ranks.map(lambda _: found_or_built_apart(world_in, SETTINGS, tmp_path, "--tools"), range(4)))
    assert started == [("--tools",)]
    assert all(stage.cached and (stage.path / "made").exists() for world in worlds for stage in world)
    found_or_built_apart(world_in, SETTINGS, tmp_path, "--tools")
    assert len(started) == 1


def test_what_was_deleted_is_built_again(tmp_path, started):
    shutil.rmtree(found_or_built_apart(world_in, SETTINGS, tmp_path)[1].path)
    assert all(stage.cached for stage in found_or_built_apart(world_in, SETTINGS, tmp_path))
    assert len(started) == 2


def test_a_cache_that_only_finds_says_what_is_missing(tmp_path):
    with pytest.raises(NotBuilt, match=r"got no stage .*first-.*, expected it to be built"):
        world_in(StageCache(tmp_path, builds=False))
    assert not list(tmp_path.glob("first-*"))
