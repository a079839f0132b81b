"""A cache of stages: each is built once, in a folder named by the hash of what it depends on."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from rlhf_prm.files import read_json, write_json

VERSION = 1  # raised when a change of this package alters what a stage builds from equal settings
RECORD = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A finished stage.

    Args:
        path: the folder that holds it.
        key: the hash of its settings and of everything upstream.
        seconds: how long building it took, even if that was earlier.
        cached: whether it was found rather than built now.
    """

    path: Path
    key: str
    seconds: float
    cached: bool


class NotBuilt(LookupError):
    """A stage that a cache was to find is not there."""


class StageCache:
    """Builds stages under ``root`` and finds them again.

    A stage is built in a temporary folder and moved into place when it is complete, so a process killed at any moment
    leaves either the whole stage or none. Of several processes that want one stage, one builds and the others wait.

    Args:
        builds: False for a cache that only finds, and raises ``NotBuilt`` where a stage is missing.
    """

    def __init__(self, root: str | os.PathLike[str], *, builds: bool = True) -> None:
        self.root, self.builds = Path(root), builds

    def stage(
        self, name: str, settings: dict, build: Callable[[Path], None], upstream: tuple[Stage, ...] = ()
    ) -> Stage:
        """The stage ``name`` for these settings, built by ``build(folder)`` if it does not exist yet.

        Args:
            settings: what the stage itself depends on; must be JSON.
            upstream: the stages whose results it reads.
        """
        identity = {"stage": name, "version": VERSION, "settings": settings, "upstream": [s.key for s in upstream]}
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        path, building = self.root / f"{name}-{key}", self.root / ".building" / f"{name}-{key}"
        building.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{building}.lock"):
            if (path / RECORD).is_file():
                return Stage(path, key, read_json(path / RECORD)["seconds"], cached=True)
            if not self.builds:
                raise NotBuilt(f"got no stage {path}, expected it to be built")
            for leftover in (building, path):
                shutil.rmtree(leftover, ignore_errors=True)
            building.mkdir()
            start = time.perf_counter()
            build(building)
            seconds = round(time.perf_counter() - start, 2)
            write_json(building / RECORD, {**identity, "seconds": seconds})
            os.replace(building, path)
        return Stage(path, key, seconds, cached=False)
