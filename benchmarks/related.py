"""Relatives of the paper in the toy world: a judge that chooses, a judge of small questions and its student, pairs.

python benchmarks/related.py judge_choice --build 10    # pointwise and pairwise best-of-8 by a fallible judge
python benchmarks/related.py decomposed --build 10      # teacher and student, with and without small questions
python benchmarks/related.py pairs --build 10           # PCRM and Bradley–Terry on the same pairs
python benchmarks/related.py decomposed --build 11 --teachers    # no students: seconds in place of minutes
python benchmarks/related.py page                       # the tables of docs/related_work.md

Every run appends a line to benchmarks/results/related.jsonl. CPU: judge_choice 10 seconds once the policy is there, the
others a minute.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from related_page import filled

from rlhf_prm.evaluation.first_errors import first_error_known, process_by_answer
from rlhf_prm.evaluation.judge_best_of_n import JudgeChoice, judge_best_of_n
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.files import read_json_lines
from rlhf_prm.judges.decomposed import DecomposedScorer, decomposed_verdicts, step_score, student_rows, together_row
from rlhf_prm.judges.load import load_judge
from rlhf_prm.prm import load_prm
from rlhf_prm.prm_training.pair_config import PairConfig
from rlhf_prm.prm_training.pair_trainer import PairTrainer
from rlhf_prm.prm_training.pairs import pairs_from_samples
from rlhf_prm.statistics import first_error, predicted_first_error
from rlhf_prm.steps import StepSplitter
from rlhf_prm.toyworld import ToyWorldSettings, build_world
from rlhf_prm.toyworld.aspects import TOY_MARKS, AspectJudge
from rlhf_prm.toyworld.checker import step_labels
from rlhf_prm.toyworld.labels import judged_labels, policy_sampler, sampled_solutions, stepwise_rows
from rlhf_prm.toyworld.pair_judge import ToyPairJudge
from rlhf_prm.toyworld.problems import SEPARATOR
from rlhf_prm.toyworld.reward_model import train_reward_model
from rlhf_prm.toyworld.verifier import final_answer
from rlhf_prm.toyworld.world import problem_splits

RESULTS = Path(__file__).parent / "results" / "related.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "related_work.md"
AT_ONCE = 0.1  # wrong verdicts of a judge that is asked everything at once
SMALL = {  # of one that is asked small questions: as many in all, or half as many
    "as many errors": {"calculation": 0.06, "inference": 0.02, "givens": 0.02},
    "half the errors": {"calculation": 0.03, "inference": 0.01, "givens": 0.01},
}
SOLUTIONS, HELD_OUT = 1000, 400


def samples_of(settings: ToyWorldSettings, policy: Path, part: str, problems: int, n: int) -> list[SampledProblem]:
    """``n`` solutions of each problem, with the right answer known."""
    chosen = problem_splits(settings)[part][:problems]
    sampler, splitter = policy_sampler(policy, settings.max_completion_length), StepSplitter(SEPARATOR)
    groups = sampler.generate([problem.prompt for problem in chosen], n, seed=settings.seed)
    return [
        SampledProblem(
            problem.prompt,
            [splitter.split(text) for text in texts],
            [final_answer(text) == problem.solution for text in texts],
            [final_answer(text) for text in texts],
        )
        for problem, texts in zip(chosen, groups, strict=True)
    ]


def judge_choice(settings: ToyWorldSettings, policy: Path) -> dict:
    """Best of 8 by a judge with one wrong verdict in ten."""
    samples = samples_of(settings, policy, "eval", 200, 8)
    judge = load_judge("toy", generator=ToyPairJudge(AT_ONCE, settings.seed), behind_error="wrong")
    found = judge_best_of_n(judge, samples, JudgeChoice(n=8, seed=settings.seed, separator=SEPARATOR))
    exact = [[first_error(step_labels(one.problem, steps)) for steps in one.steps] for one in samples]
    judged = [[first_error_known(row) for row in one.step_scores] for one in scored(samples, judge)]
    shares = {
        name: process_by_answer(replace(one, first_errors=row) for one, row in zip(samples, errors, strict=True))["all"]
        for name, errors in (("by the judge", judged), ("exact", exact))
    }
    return found | {"wrong process": {name: share["wrong_process"] for name, share in shares.items()}}


def decomposed(settings: ToyWorldSettings, policy: Path, students: bool = True) -> dict:
    """First-error F1 on exact labels: the judge asked at once and in small questions, and a student of each."""
    splits = problem_splits(settings)
    sampler = policy_sampler(policy, settings.max_completion_length)
    held = sampled_solutions(sampler, splits["eval"][:HELD_OUT], seed=settings.seed + 1)
    truth = [first_error(step_labels(row["prompt"], row["steps"])) for row in held]
    problems, steps = [row["prompt"] for row in held], [row["steps"] for row in held]

    def asked(rows, flips):
        judge = load_judge("toy", generator=AspectJudge(flips, settings.seed))
        return decomposed_verdicts(judge, [row["prompt"] for row in rows], [row["steps"] for row in rows], seed=7)

    judged = judged_labels(held, flips=AT_ONCE, seed=settings.seed)
    found = {"teacher, at once": [one.first_error for one in judged]}
    for name, flips in SMALL.items():
        told = asked(held, flips)
        small = [predicted_first_error([step_score(verdict) for verdict in one]) for one in told]
        found[f"teacher, small questions, {name}"] = small
    if not students:
        return {name: processbench_metrics(errors, truth) for name, errors in found.items()}
    train = sampled_solutions(sampler, splits["labelled"][:SOLUTIONS], seed=settings.seed)
    name, flips = "half the errors", SMALL["half the errors"]
    verdicts = asked(train, flips)
    rows = {
        "student, at once": stepwise_rows(train, judged_labels(train, flips=AT_ONCE, seed=settings.seed)),
        f"student, small questions, {name}": [
            row
            for one, said in zip(train, verdicts, strict=True)
            for row in student_rows(one["prompt"], one["steps"], said, TOY_MARKS)
        ],
        f"student, brought together, {name}": [
            row
            for one, said in zip(train, verdicts, strict=True)
            for row in together_row(one["prompt"], one["steps"], said)
        ],
    }
    for name, labelled in rows.items():
        with tempfile.TemporaryDirectory() as folder:
            train_reward_model(
                policy, labelled, Path(folder), seed=settings.seed, updates=200, batch_size=64, learning_rate=1e-3,
                held_out=0.1, eval_every=100, patience=3,
            )  # fmt: skip
            prm = load_prm(folder)
            scorer = DecomposedScorer(prm, TOY_MARKS) if name.startswith("student, small") else prm
            found[name] = [predicted_first_error(row) for row in scorer.score(problems, steps)]
    return {name: processbench_metrics(errors, truth) for name, errors in found.items()}


def pairs(settings: ToyWorldSettings, policy: Path) -> dict:
    """Accuracy, score spread and length correlation of PCRM and Bradley–Terry on the same pairs."""
    train = pairs_from_samples(samples_of(settings, policy, "labelled", 700, 4), most=2, seed=settings.seed)
    held = pairs_from_samples(samples_of(settings, policy, "eval", 400, 4), most=2, seed=settings.seed)
    results = {"pairs": {"train": len(train), "held_out": len(held)}}
    for name, choice in {
        "bradley_terry": {"loss": "bradley_terry"},
        "pcrm, length ratio": {"loss": "pcrm"},
        "pcrm, fixed": {"loss": "pcrm", "similarity": "fixed"},
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            config = PairConfig(
                output_dir=folder, per_device_train_batch_size=32, per_device_eval_batch_size=64, max_steps=150,
                learning_rate=1e-3, lr_scheduler_type="constant_with_warmup", warmup_steps=20, seed=settings.seed,
                report_to="none", save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True, **choice,
            )  # fmt: skip
            trainer = PairTrainer(policy, config, train, held)
            trainer.train()
            told = trainer.evaluate()
        results[name] = {key: told[f"eval_{key}"] for key in ("accuracy", "margin", "spread", "length_correlation")}
    return results


STUDIES = {"judge_choice": judge_choice, "decomposed": decomposed, "pairs": pairs}
FILLER = ("pairs",)  # studies in the world with filler lines, where answers to one problem differ in length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=[*STUDIES, "page"])
    parser.add_argument("--build", type=int, default=10)
    parser.add_argument("--teachers", action="store_true", help="decomposed: the judges only, no students")
    parser.add_argument("--cache", default="runs/cache")
    args = parser.parse_args()
    if args.study == "page":
        PAGE.write_text(filled(PAGE.read_text(), read_json_lines(RESULTS)))
        print(PAGE)
        return
    torch.set_num_threads(1)
    start = time.perf_counter()
    settings = ToyWorldSettings(seed=args.build, filler=args.study in FILLER)
    policy = build_world(replace(settings, label_source="gold", labelled_solutions=1), args.cache, with_prm=False)
    study = partial(decomposed, students=False) if args.teachers else STUDIES[args.study]
    results = study(settings, policy.policy_path)
    row = {"study": args.study, "build": args.build, "seconds": round(time.perf_counter() - start, 1)}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row | {"results": results}) + "\n")
    print(json.dumps(row | {"results": results}, indent=1))


if __name__ == "__main__":
    main()
