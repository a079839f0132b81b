"""Three updates of an implicit PRM; alone on all rollouts or as one of several ranks with a part of them each."""

import zlib
from pathlib import Path

from accelerate import PartialState

from tests.prm_training.test_implicit import ROLLOUTS, implicit


def models_in(folder: Path) -> list[Path]:
    """The model that learns and its reference."""
    return [folder / "phi", folder / "reference"]


def run(folders: list[Path], rollouts: list) -> dict:
    scorer = implicit(folders, budget=8, beta=0.5, learning_rate=1e-3, keep_from=0.0, keep_to=0.9)
    told = [scorer.update(rollouts) for _ in range(3)]
    scores = scorer.score_tokens(ROLLOUTS)
    weights = scorer.models.model.reader.state_dict().values()
    return {
        "told": [{k: v for k, v in row.items() if "seconds" not in k} for row in told],
        "scores": [x for row in scores for x in row.tolist()],
        "weights": zlib.crc32(b"".join(t.numpy().tobytes() for t in weights)),
    }


def results_of(folder: Path, parts: list[str]) -> dict:
    """``parts``: a folder that holds the PRM's two models."""
    first = PartialState().process_index == 0
    return run(models_in(Path(parts[0])), ROLLOUTS[:1] if first else ROLLOUTS[1:])  # a prompt's group spans the ranks
