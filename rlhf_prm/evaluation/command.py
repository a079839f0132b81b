"""``rlhf-prm evaluate NAME``: a PRM against the public benchmarks, and as the judge among a policy's samples."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_prm.command_line import add_separator, check_can_write, loading, number, positive
from rlhf_prm.evaluation import arguments as shared
from rlhf_prm.evaluation.aggregation import AGGREGATIONS
from rlhf_prm.evaluation.best_of_n import best_of_n
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
from rlhf_prm.evaluation.samples import SampledProblem, policy_samples, read_sample_rows, scored, verified_samples
from rlhf_prm.evaluation.step_search import SearchSettings, compare_search
from rlhf_prm.statistics import WRONG_AT_OR_BELOW
from rlhf_prm.steps import StepSplitter
from rlhf_prm.tokenizer_checks import saved_tokenizer

Results = Mapping[str, Mapping[str, Any]]
WITH_POLICY = ("best_of_n", "step_search")  # their --endpoint serves the policy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="evaluation", required=True)
    for name, (summary, add, _) in EVALUATIONS.items():
        kind = kinds.add_parser(name, help=summary, description=summary)
        shared.add_prm_arguments(kind, endpoint_is_the_judges=name not in WITH_POLICY)
        kind.add_argument("--output", type=Path, help="write the results there as JSON too")
        add_separator(kind)
        add(kind)


def run(args: argparse.Namespace) -> None:
    """Print the table of one evaluation; ``--output`` keeps it as JSON."""
    _, _, evaluate = EVALUATIONS[args.evaluation]
    shared.take_judge(args)
    check_can_write(args.output, "--output")
    results = evaluate(args)
    print(shared.table(results))
    shared.write_results({"evaluation": args.evaluation, "prm": args.prm, "results": results}, args.output)


def _splitter(args: argparse.Namespace) -> StepSplitter:
    return StepSplitter(args.separator)


def _threshold(text: str) -> float | str:
    return text if text == TUNING_SUBSET else number(text)


def _data(what: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", required=True, type=Path, help=what)
        parser.add_argument("--threshold", type=number, default=WRONG_AT_OR_BELOW, help="wrong at or below this score")

    return add


def _add_processbench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, help="folder with the subsets' .jsonl files")
    parser.add_argument("--subsets", nargs="+", default=list(SUBSETS), choices=SUBSETS)
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=WRONG_AT_OR_BELOW,
        help=f"a step is wrong at or below this score; {TUNING_SUBSET!r}: the best one there, for all subsets",
    )


def _processbench(args: argparse.Namespace) -> Results:
    subsets = load_processbench(args.data, args.subsets)
    if missing := [name for name in args.subsets if name not in subsets]:
        print(f"not in {args.data}, so not in the mean: {', '.join(missing)}")
    check_threshold(args.threshold, list(subsets))
    return processbench(shared.scorer_from(args), subsets, args.threshold, silence_is_missed=shared.is_judge(args.prm))


def _add_best_of_n(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=Path, help="JSONL of problem, completions, solution, in place of --policy")
    parser.add_argument("--n", type=positive, nargs="+", default=[8], help="subset sizes")
    parser.add_argument(
        "--num-samples", type=positive, help="samples per problem from the policy (default: the largest n)"
    )
    shared.add_policy_arguments(parser, required=False)
    shared.add_verifier_argument(parser)


def samples_from(args: argparse.Namespace, num_samples: int, most: int, *, all_rows: bool) -> list[SampledProblem]:
    """Checked samples from ``--samples``, or drawn from ``--policy`` on ``--problems``.

    Args:
        num_samples: how many are drawn per problem.
        most: the largest n of best-of-n.
        all_rows: whether every row of a file needs that many samples, or one row is enough.

    Raises:
        ValueError: before anything is drawn, verified or scored: a file that cannot be read, or too few samples.
    """
    verifier, splitter = shared.verifier_from(args), _splitter(args)
    if (args.samples is None) == (args.policy is None):
        raise ValueError("expected either --samples FILE or --policy MODEL with --problems FILE")
    if args.samples is not None:
        rows = read_sample_rows(args.samples, args.problem_column, args.solution_column)
        sizes = [len(row.completions) for row in rows]
        enough = min(sizes) if all_rows else max(sizes)
        if enough < most:
            which = f"row {sizes.index(enough) + 1} has" if all_rows else "the rows have at most"
            raise ValueError(f"--n {most}: {which} {enough} samples in {args.samples}; give --n {enough} or fewer")
        samples = verified_samples(rows, verifier, splitter)
        source = args.samples
    else:
        if num_samples < most:
            raise ValueError(f"--num-samples {num_samples} are fewer than --n {most}: draw at least as many")
        problems, solutions = shared.problems_from(args)
        generator, template, _ = shared.policy_from(args)
        prompts = [template(problem) for problem in problems]
        part = args.concurrency * (4 if args.endpoint else 1)  # hosts idle while the last answers of a call come in
        samples = policy_samples(
            generator,
            problems,
            solutions,
            verifier,
            num_samples,
            prompts=prompts,
            splitter=splitter,
            seed=args.seed,
            part=part,
        )
        rows, source = problems, args.problems
    if not samples:
        raise ValueError(f"{source}: the verifier can read none of its {len(rows)} gold answers")
    if len(samples) < len(rows):
        print(f"{len(rows) - len(samples)} of {len(rows)} problems are left out: the verifier cannot read their gold")
    return samples


def _best_of_n(args: argparse.Namespace) -> Results:
    shared.check_prm(args)
    drawn = samples_from(args, args.num_samples or max(args.n), max(args.n), all_rows=True)
    samples = scored(drawn, shared.scorer_from(args))
    results: dict[str, Any] = {}
    for n in args.n:
        results |= best_of_n(samples, n, seed=args.seed)
    return results


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
    problems, solutions = shared.problems_from(args)
    verifier = shared.verifier_from(args)
    shared.check_prm(args)
    generator, template, tokenizer_name = shared.policy_from(args)
    with loading(f"the tokenizer of {tokenizer_name}"):
        tokenizer = saved_tokenizer(tokenizer_name)
    return compare_search(
        generator,
        shared.scorer_from(args, watched=False),
        verifier,
        problems,
        solutions,
        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        settings,
        prompts=[template(problem) for problem in problems],
        seed=args.seed,
        tokenizer=tokenizer,
    )


def _on_rows(measure: Callable[..., Results], rows: list, args: argparse.Namespace, *settings: Any) -> Results:
    """``measure`` on rows that were read already: the PRM is loaded after them."""
    return measure(shared.scorer_from(args), rows, *settings)


Evaluation = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Results]]
EVALUATIONS: dict[str, Evaluation] = {
    "processbench": ("first wrong step of real solutions: F1 per subset and mean", _add_processbench, _processbench),
    "best_of_n": ("accuracy when the PRM chooses among n samples of a policy", _add_best_of_n, _best_of_n),
    "mr_ben": (
        "MR-Score: of a PRM without its reason part, of a judge with --grader the whole",
        add_mr_ben,
        score_mr_ben,
    ),
    "prmbench": (
        "planted errors by category",
        _data("PRMBench's .jsonl"),
        lambda args: _on_rows(prmbench, load_prmbench(args.data), args, args.threshold),
    ),
    "rmb": (
        "best-of-n and pairwise accuracy: the winner must outscore every loser",
        _rmb_arguments,
        lambda args: _on_rows(rmb, load_rmb(args.data), args, args.aggregation, _splitter(args)),
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
