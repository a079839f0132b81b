"""``rlhf-prm evaluate NAME``: a PRM on the public benchmarks, and choosing among a policy's samples."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_prm.command_line import add_separator, check_can_write, loading, number, positive
from rlhf_prm.evaluation import arguments as shared
from rlhf_prm.evaluation.aggregation import AGGREGATIONS
from rlhf_prm.evaluation.best_of_n_command import add_best_of_n, choose_best
from rlhf_prm.evaluation.guided_search import METHODS, compare_guided, shape_of
from rlhf_prm.evaluation.judge_commands import (
    add_first_errors,
    add_judge_best_of_n,
    add_mr_ben,
    count_first_errors,
    judge_chooses,
    score_mr_ben,
)
from rlhf_prm.evaluation.prmbench import load_prmbench, prmbench
from rlhf_prm.evaluation.processbench import SUBSETS, TUNING_SUBSET, check_threshold, load_processbench, processbench
from rlhf_prm.evaluation.rmb import load_rmb, rmb
from rlhf_prm.evaluation.step_search import SearchSettings, compare_search
from rlhf_prm.prm.protocol import target_of
from rlhf_prm.statistics import WRONG_AT_OR_BELOW
from rlhf_prm.steps import StepSplitter
from rlhf_prm.tokenizer_checks import saved_tokenizer

Results = Mapping[str, Mapping[str, Any]]
WITH_POLICY = ("best_of_n", "step_search")  # their --endpoint serves the policy
WITH_PRMS = ("best_of_n",)  # they compare several
OF_AN_OUTCOME_MODEL = (
    "This is an outcome model: it judges whole solutions. Its score of a step is its verdict on the solution up to "
    "there, as if it ended there, and its first error is the first step after which it gives up on the answer."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="evaluation", required=True)
    for name, (summary, add, _) in EVALUATIONS.items():
        kind = kinds.add_parser(name, help=summary, description=summary)
        shared.add_prm_arguments(kind, many=name in WITH_PRMS, endpoint_is_the_judges=name not in WITH_POLICY)
        kind.add_argument("--output", type=Path, help="write the results there as JSON too")
        add_separator(kind)
        add(kind)


def run(args: argparse.Namespace) -> None:
    """Print the table of one evaluation; ``--output`` writes it as JSON too."""
    _, _, evaluate = EVALUATIONS[args.evaluation]
    shared.take_judge(args, many=args.evaluation in WITH_PRMS)
    check_can_write(args.output, "--output")
    results = evaluate(args)
    print(shared.table(results))
    prm = args.prm[0] if isinstance(args.prm, list) and len(args.prm) == 1 else args.prm
    shared.write_results({"evaluation": args.evaluation, "prm": prm, "results": results}, args.output)


def _splitter(args: argparse.Namespace) -> StepSplitter:
    return StepSplitter(args.separator)


def _threshold(text: str) -> float | str:
    """A number, or else the name of the subset to tune it on."""
    try:
        return number(text)
    except argparse.ArgumentTypeError:
        if text.lower() in ("nan", "inf", "-inf"):
            raise
        return text


def _data(what: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", required=True, type=Path, help=what)
        parser.add_argument("--threshold", type=number, default=WRONG_AT_OR_BELOW, help="wrong at or below this score")

    return add


def _add_processbench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help="folder with ProcessBench's .jsonl files, or any file or folder of rows with problem, steps and label",
    )
    parser.add_argument(
        "--subsets",
        nargs="+",
        help=f"sets to read from a folder (default: {', '.join(SUBSETS)}, or else all there are)",
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=WRONG_AT_OR_BELOW,
        help=f"a step is wrong at or below this; a subset's name, as {TUNING_SUBSET}: the best one there, for all",
    )


def _processbench(args: argparse.Namespace) -> Results:
    subsets = load_processbench(args.data, args.subsets)
    expected = args.subsets or (SUBSETS if set(subsets) & set(SUBSETS) and args.data.is_dir() else ())
    if missing := [name for name in expected if name not in subsets]:
        print(f"not in {args.data}, so not in the mean: {', '.join(missing)}")
    check_threshold(args.threshold, list(subsets))
    scorer = shared.scorer_from(args)
    if target_of(scorer) == "outcome":
        print(OF_AN_OUTCOME_MODEL)
    return processbench(scorer, subsets, args.threshold, silence_is_missed=shared.is_judge(args.prm))


def _rmb_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", required=True, type=Path, help="RMB's best-of-n or pairwise JSON or a folder of them, or plain rows"
    )
    parser.add_argument("--aggregation", default="product", choices=list(AGGREGATIONS))


def _add_step_search(parser: argparse.ArgumentParser) -> None:
    defaults = SearchSettings()
    shared.add_policy_arguments(parser, required=True)
    shared.add_verifier_argument(parser)
    parser.add_argument(
        "--token-budget", type=positive, default=defaults.token_budget, help="generated tokens per problem"
    )
    parser.add_argument("--threshold", type=number, default=defaults.threshold, help="a step is accepted above this")
    parser.add_argument(
        "--tries", type=positive, default=defaults.tries, help="samples of a step before one is taken back"
    )
    parser.add_argument(
        "--search",
        nargs="+",
        default=["step_search"],
        choices=["step_search", *METHODS],
        help="step_search: accept or resample (default); greedy, beam, dvts: keep the best of --width candidates",
    )
    parser.add_argument("--width", type=positive, default=8, help="greedy, beam, dvts: candidates at each depth (8)")
    parser.add_argument("--candidates", type=positive, default=4, help="beam, dvts: candidates of each beam (4)")
    parser.add_argument("--aggregation", default=defaults.aggregation, choices=list(AGGREGATIONS))
    parser.add_argument(
        "--final-pattern",
        default=defaults.final_pattern,
        help="regular expression of a step that ends a solution (default: a box, or #### with a number)",
    )


def _step_search(args: argparse.Namespace) -> Results:
    settings = SearchSettings(
        token_budget=args.token_budget,
        threshold=args.threshold,
        tries=args.tries,
        separator=args.separator,
        aggregation=args.aggregation,
        final_pattern=args.final_pattern,
    )
    guided = [method for method in METHODS if method in args.search]
    for method in guided:
        shape_of(method, args.width, args.candidates)  # raises before anything is loaded
    problems, solutions = shared.problems_from(args)
    verifier = shared.verifier_from(args)
    shared.check_prm(args)
    generator, template, tokenizer_name = shared.policy_from(args)
    with loading(f"the tokenizer of {tokenizer_name}"):
        tokenizer = saved_tokenizer(tokenizer_name)
    scorer, prompts = shared.scorer_from(args, watched=False), [template(problem) for problem in problems]
    count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    given = (generator, scorer, verifier, problems, solutions, count, settings)
    common: dict[str, Any] = {"prompts": prompts, "seed": args.seed, "tokenizer": tokenizer}
    results: dict[str, Any] = compare_search(*given, **common) if "step_search" in args.search else {}
    if guided:
        results |= compare_guided(*given, guided, n=args.width, candidates=args.candidates, **common)
    return results


def _prmbench(args: argparse.Namespace) -> Results:
    items = load_prmbench(args.data)  # before the PRM
    return prmbench(shared.scorer_from(args), items, args.threshold, silence_is_missed=shared.is_judge(args.prm))


def _rmb(args: argparse.Namespace) -> Results:
    items = load_rmb(args.data)  # before the PRM
    return rmb(shared.scorer_from(args), items, args.aggregation, _splitter(args))


Evaluation = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Results]]
EVALUATIONS: dict[str, Evaluation] = {
    "processbench": ("first wrong step of real solutions: F1 per subset and mean", _add_processbench, _processbench),
    "best_of_n": ("accuracy when the PRM chooses among n samples of a policy", add_best_of_n, choose_best),
    "mr_ben": (
        "MR-Score: of a PRM without its reason part, of a judge with --grader the whole",
        add_mr_ben,
        score_mr_ben,
    ),
    "prmbench": (
        "planted errors by category",
        _data("PRMBench's .jsonl"),
        _prmbench,
    ),
    "rmb": (
        "best-of-n and pairwise accuracy: the winner must outscore every loser",
        _rmb_arguments,
        _rmb,
    ),
    "first_errors": (
        "right answers by a wrong process: first wrong steps, written into a samples file",
        add_first_errors,
        count_first_errors,
    ),
    "judge_best_of_n": (
        "accuracy when a judge chooses among n samples: share of right steps, or knock-out",
        add_judge_best_of_n,
        judge_chooses,
    ),
    "step_search": ("step-wise search against best-of-n at equal tokens", _add_step_search, _step_search),
}
