"""Building a world in a process of its own, for one of several ranks.

Inside a rank, Transformers saves on rank 0 only, shards what it loads, and trains on all of them together.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any

# What tells a process that it is one of several; torchrun's and accelerate's.
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_")


def is_one_of_several() -> bool:
    """Whether this process is a rank beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def build_apart(settings: Any, root: str | os.PathLike[str], *flags: str) -> None:
    """``python -m rlhf_prm.toyworld`` in a process that does not know of the launcher.

    Ranks may do so at once: of several that want one stage, one builds and the others wait.
    """
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHER and not k.startswith(LAUNCHER_PREFIXES)}
    command = [sys.executable, "-m", "rlhf_prm.toyworld", "--root", os.fspath(root), *flags]
    subprocess.run([*command, "--settings", json.dumps(asdict(settings))], env=environment, check=True)
