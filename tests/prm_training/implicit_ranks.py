"""Three updates of an implicit PRM; alone on all rollouts or as one of several ranks with a part of them each."""

import json
import sys
import zlib
from pathlib import Path

import torch
from accelerate import PartialState

from tests.prm_training.test_implicit import ROLLOUTS, implicit


def run(folders: list[str], rollouts: list) -> dict:
    torch.set_num_threads(1)
    scorer = implicit(folders, budget=8, beta=0.5, learning_rate=1e-3, keep_from=0.0, keep_to=0.9)
    told = [scorer.update(rollouts) for _ in range(3)]
    scores = scorer.score_tokens(ROLLOUTS)
    weights = scorer.models.model.reader.state_dict().values()
    return {
        "told": [{k: v for k, v in row.items() if "seconds" not in k} for row in told],
        "scores": [x for row in scores for x in row.tolist()],
        "weights": zlib.crc32(b"".join(t.numpy().tobytes() for t in weights)),
    }


if __name__ == "__main__":
    state, folder = PartialState(cpu=True), Path(sys.argv[1])
    mine = ROLLOUTS[:1] if state.process_index == 0 else ROLLOUTS[1:]  # the group of a prompt spans the ranks
    found = run([folder / "phi", folder / "reference"], mine)
    (folder / f"rank{state.process_index}.json").write_text(json.dumps(found))
