"""What the PRMs of ``make real`` know: which problem is hard, or which step is wrong?

    python recipes/real_lm.py --root runs/longer --settings '{"prm_updates": 240}' --stage prm_gold
    python recipes/real_lm.py --root runs/longer --settings '{"prm_updates": 240}' --stage rollouts
    python benchmarks/real_prm.py runs/real/full-seed0 runs/longer/full-seed0

For the rollouts of held-out problems in each folder it prints what the first errors are, and for every PRM the AUROC of
right steps against first errors: among all problems, and at the same position of the same problem. What follows a first
error is left out, because the PRMs are not trained on it; the preflight counts it as wrong.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.files import read_json, read_json_lines
from rlhf_prm.preflight.within_groups import Estimate, auroc_within_positions
from rlhf_prm.prm import load_prm
from rlhf_prm.statistics import auroc
from rlhf_prm.wordproblems.checker import stated_calculations

Labelled = tuple[list[float], list[bool]]  # scores and labels of a rollout's steps


def kind_of_error(step: str) -> str:
    """Whether a wrong step calculates wrongly, calculates what nobody asked for, or calculates nothing."""
    stated = stated_calculations(step)
    if not stated:
        return "no calculation"
    return "arithmetic" if any(one.result != result for one, result in stated) else "another calculation"


def first_errors(samples: Sequence[SampledProblem]) -> Iterator[str]:
    """The first wrong step of every rollout that has one."""
    for sample in samples:
        for steps, error in zip(sample.steps, sample.first_errors, strict=True):
            if error >= 0:
                yield steps[error]


def up_to_the_first_error(scores: Sequence[float], error: int) -> Labelled:
    """Scores and labels of the steps that have a label of their own; −1 = no error."""
    kept = list(scores) if error < 0 else list(scores[: error + 1])
    return kept, [k != error for k in range(len(kept))]


def measured(groups: Sequence[Sequence[Labelled]]) -> tuple[float, Estimate]:
    """AUROC of right steps against first errors: over everything, and at the same position of the same problem."""
    steps = [step for group in groups for scores, labels in group for step in zip(scores, labels, strict=True)]
    return auroc([score for score, _ in steps], [right for _, right in steps]), auroc_within_positions(groups)


def scored(prm: Path, samples: Sequence[SampledProblem]) -> list[list[Labelled]]:
    """The labelled steps of each problem's rollouts."""
    scorer = load_prm(str(prm), dtype="bfloat16", max_batch_tokens=2048)
    groups = []
    for sample in samples:
        scores = scorer.score([sample.problem] * len(sample.steps), sample.steps)
        groups.append([up_to_the_first_error(*one) for one in zip(scores, sample.first_errors, strict=True)])
    return groups


def source_of(prm: Path) -> str:
    """Who labelled the solutions that a PRM of the cache was trained on."""
    labels = read_json(prm / "stage.json")["upstream"][-1]
    return read_json(prm.parent / f"labels-{labels}" / "stage.json")["settings"]["source"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of make real, with rollouts.jsonl and cache/")
    for folder in parser.parse_args().folders:
        samples = [SampledProblem(**row) for row in read_json_lines(folder / "rollouts.jsonl")]
        kinds = Counter(map(kind_of_error, first_errors(samples)))
        print(f"{folder}: {sum(len(sample.steps) for sample in samples)} rollouts; first errors {dict(kinds)}")
        for prm in sorted((folder / "cache").glob("prm-*")):
            training = read_json(prm / "training.json")
            solutions, updates = training["rows"] + training["held_out_rows"], training["evaluations"][-1]["update"]
            everywhere, within = measured(scored(prm, samples))
            print(
                f"{source_of(prm):9} {solutions} solutions, {updates} updates, {training['kept_update']} kept", end=""
            )
            print(f"  all {everywhere:.3f}  within {within.value:.3f} ± {within.error:.3f}", flush=True)


if __name__ == "__main__":
    main()
