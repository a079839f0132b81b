"""Building a world in a process of its own, for one of several ranks.

Inside a rank, Transformers saves on rank 0 only, shards what it loads, and trains on all of them together.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from rlhf_prm.toyworld.stages import NotBuilt, StageCache

World = TypeVar("World")

# What tells a process that it is one of several; torchrun's and accelerate's.
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_")


def is_one_of_several() -> bool:
    """Whether this process is a rank beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def found_or_built_apart(
    world_in: Callable[[StageCache], World], settings: Any, root: str | os.PathLike[str], *flags: str
) -> World:
    """What ``world_in`` makes of a cache in which every stage is found.

    If one is missing, a process that does not know of the launcher builds it. Ranks look one after the other, so of
    all that share the folder only the first has to wait for such a process, and the others find what it has left.
    """
    given = json.dumps([asdict(settings), *flags], sort_keys=True).encode()
    lock = Path(root) / ".building" / f"ranks-{hashlib.sha256(given).hexdigest()[:16]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    cache = StageCache(root, builds=False)
    with FileLock(lock):
        try:
            return world_in(cache)
        except NotBuilt:
            build_apart(settings, root, *flags)
    return world_in(cache)


def build_apart(settings: Any, root: str | os.PathLike[str], *flags: str) -> None:
    """``python -m rlhf_prm.toyworld`` in a process that does not know of the launcher."""
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHER and not k.startswith(LAUNCHER_PREFIXES)}
    command = [sys.executable, "-m", "rlhf_prm.toyworld", "--root", os.fspath(root), *flags]
    subprocess.run([*command, "--settings", json.dumps(asdict(settings))], env=environment, check=True)
