"""Refresh a PRM twice; alone or as one of several ranks."""

import zlib
from pathlib import Path

from accelerate import PartialState

from rlhf_prm.prm import load_prm
from rlhf_prm.prm_training.refresh import PRMRefresher
from tests.prm_training.test_refresh import SETTINGS, Words, fresh


def run(prm: str, folder: Path) -> dict:
    scorer, labeller = load_prm(prm, max_batch_tokens=100), Words()
    refresher = PRMRefresher(scorer, labeller, SETTINGS, folder=folder / "prm_refresh")
    told = []
    for update in (2, 4):
        refresher.collect(fresh(120, seed=update))
        told.append({k: v for k, v in refresher.refresh(update).items() if "seconds" not in k})
    again = PRMRefresher(load_prm(prm), labeller, SETTINGS, folder=folder / "prm_refresh")
    again.load(refresher.state(), 4)  # rank 0 reads, all have the weights
    weights = {name: t for name, t in scorer.placement.reader.state_dict().items()}
    scores = scorer.score(["add 1", "add 2"], [["so good 1", "so bad 2"], ["so bad 1"]])
    return {
        "told": told,
        "weights": zlib.crc32(b"".join(t.numpy().tobytes() for t in weights.values())),
        "loaded": zlib.crc32(
            b"".join(t.numpy().tobytes() for t in again.scorer.placement.reader.state_dict().values())
        ),
        "scores": [score for row in scores for score in row],
        "labelled": len(labeller.seen),
    }


def results_of(folder: Path, parts: list[str]) -> dict:
    """``parts``: the PRM's folder."""
    return run(parts[0], folder) | {"world_size": PartialState().num_processes}
