"""The state of a guard that changes during a run, which a checkpoint holds."""

import json
from dataclasses import asdict, dataclass, replace

from rlhf_prm.guard.arbiter import Arbiter
from rlhf_prm.guard.rules import WatchMemory


@dataclass
class GuardState:
    """The guard's memory; updates are counted as the trainer's global steps.

    Args:
        watch: the measures of the first and the newest updates.
        arbiter: accuracy at the start, at best, last and of the weights kept; with its settings, by which a resumed run
            goes on.
        process_scale: the trainer's, at the checkpoint.
        asked: the update at which accuracy was asked for last.
        suspected: the update at which something was suspected last.
        quiet_until: accuracy is not asked for before this update.
        rolled_back: the update of the last rollback.
        made_up: by how many updates the training has been lengthened.
        last_good: the update of the weights that a rollback would restore, at the checkpoint; None: none are kept.
    """

    watch: WatchMemory
    arbiter: Arbiter
    process_scale: float = 1.0
    asked: int = 0
    suspected: int = 0
    quiet_until: int = 0
    rolled_back: int = 0
    made_up: int = 0
    last_good: int | None = None

    def to_json(self, watch: WatchMemory, process_scale: float, last_good: int | None) -> str:
        """The state for a checkpoint, with values that other objects hold during the run."""
        return json.dumps(asdict(replace(self, watch=watch, process_scale=process_scale, last_good=last_good)))

    @classmethod
    def from_json(cls, text: str) -> "GuardState":
        """Restore what ``to_json`` wrote."""
        saved = json.loads(text)
        return cls(**{**saved, "watch": WatchMemory(**saved["watch"]), "arbiter": Arbiter(**saved["arbiter"])})
