"""``rlhf-prm evaluate first_errors``, ``judge_best_of_n`` and ``mr_ben``: what a judge says of solutions."""

import argparse
from pathlib import Path
from typing import Any

from rlhf_prm.command_line import add_columns, check_can_write, number, positive
from rlhf_prm.evaluation import arguments as shared
from rlhf_prm.evaluation.first_errors import labelled_rows, process_by_answer, write_labelled
from rlhf_prm.evaluation.judge_best_of_n import WAYS, JudgeChoice, judge_best_of_n
from rlhf_prm.evaluation.mr_ben import load_mr_ben, mr_ben
from rlhf_prm.evaluation.mr_ben_reasons import graded_mr_ben
from rlhf_prm.evaluation.samples import read_sample_rows, verified_samples
from rlhf_prm.judges.load import is_judge, load_judge
from rlhf_prm.statistics import WRONG_AT_OR_BELOW
from rlhf_prm.steps import StepSplitter


def _add_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", required=True, type=Path, help="JSONL of problem, completions, solution")
    add_columns(parser)
    shared.add_verifier_argument(parser)


def add_first_errors(parser: argparse.ArgumentParser) -> None:
    _add_samples(parser)
    parser.add_argument("--labelled", type=Path, help="write the samples there, with first_errors")
    parser.add_argument("--threshold", type=number, default=WRONG_AT_OR_BELOW, help="wrong at or below this score")


def count_first_errors(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The samples' first errors by ``--judge`` or ``--prm``, counted by answer and written to ``--labelled``."""
    check_can_write(args.labelled, "--labelled")
    if args.labelled is not None and args.labelled.resolve() == args.samples.resolve():
        raise ValueError(f"--labelled {args.labelled} is the file of samples, expected another file")
    rows = read_sample_rows(args.samples, args.problem_column, args.solution_column)
    splitter = StepSplitter(args.separator)
    labelled = labelled_rows(rows, shared.scorer_from(args), splitter, args.threshold)
    if args.labelled is not None:
        write_labelled(args.samples, labelled, args.labelled)
    samples = verified_samples(labelled, shared.verifier_from(args), splitter)
    if len(samples) < len(rows):
        print(
            f"{len(rows) - len(samples)} of {len(rows)} problems are not counted: the verifier cannot read their gold"
        )
    return process_by_answer(samples)


def add_judge_best_of_n(parser: argparse.ArgumentParser) -> None:
    _add_samples(parser)
    parser.add_argument("--n", type=positive, default=8, help="samples to choose among (8)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="how the judge chooses (both)")
    parser.add_argument("--attempts", type=positive, default=2, help="tries of a comparison that cannot be read (2)")
    parser.add_argument("--seed", type=int, default=0)


def judge_chooses(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Best-of-n by ``--judge`` on ``--samples``."""
    if not is_judge(args.prm):
        raise ValueError(
            f"judge_best_of_n: got --prm {args.prm}, expected --judge MODEL; evaluate best_of_n takes PRMs"
        )
    rows = read_sample_rows(args.samples, args.problem_column, args.solution_column)
    if few := [index for index, row in enumerate(rows, 1) if len(row.completions) < args.n]:
        have = len(rows[few[0] - 1].completions)
        raise ValueError(f"--n {args.n}: row {few[0]} has {have} samples in {args.samples}; give --n {have} or fewer")
    judge = shared.judge_from(args.prm, args.prm_kwargs)
    samples = verified_samples(rows, shared.verifier_from(args), StepSplitter(args.separator))
    if not samples:
        raise ValueError(f"{args.samples}: the verifier can read none of its {len(rows)} gold answers")
    settings = JudgeChoice(args.n, args.ways, args.attempts, args.seed, args.separator)
    return judge_best_of_n(judge, samples, settings)


def add_mr_ben(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, help="MR-Ben's JSON of a subject, or JSONL of its rows")
    parser.add_argument("--threshold", type=number, default=WRONG_AT_OR_BELOW, help="wrong at or below this score")
    parser.add_argument(
        "--grader",
        metavar="MODEL",
        help="grades the reasons that --judge gives: the whole MR-Score in place of two thirds",
    )
    parser.add_argument("--grader-endpoint", nargs="+", default=[], help="base URLs that serve the grader")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked for the whole MR-Score")


def score_mr_ben(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The parts that a PRM can have, or with ``--judge`` and ``--grader`` the whole MR-Score."""
    if args.grader_endpoint and args.grader is None:
        raise ValueError("--grader-endpoint needs --grader: the name of the model served there")
    items = load_mr_ben(args.data)
    if args.grader is None:
        silent = is_judge(args.prm)
        return mr_ben(shared.scorer_from(args), items, args.threshold, silence_is_missed=silent)
    if not is_judge(args.prm):
        raise ValueError(f"--grader grades the reasons of a judge, and --prm {args.prm} gives none: use --judge MODEL")
    grader = load_judge(args.grader, endpoint=args.grader_endpoint, temperature=0.0)
    return graded_mr_ben(shared.judge_from(args.prm, args.prm_kwargs), grader, items, seed=args.seed)
