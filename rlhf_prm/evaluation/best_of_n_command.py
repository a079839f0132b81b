"""``rlhf-prm evaluate best_of_n``: one PRM on one set of samples with intervals, or a table of PRMs by sets."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from rlhf_prm.command_line import positive
from rlhf_prm.evaluation import arguments as shared
from rlhf_prm.evaluation.best_of_n import best_of_n
from rlhf_prm.evaluation.equal_answers import with_equal_answers
from rlhf_prm.evaluation.samples import SampledProblem, policy_samples, read_sample_rows, scored, verified_samples
from rlhf_prm.prm.protocol import target_of
from rlhf_prm.steps import StepSplitter

OUR_COLUMNS = ("problem", "completions", "solution")
IN_TABLE = ("product", "min", "last", "rm")  # the rules that the table shows


def add_best_of_n(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples",
        nargs="+",
        metavar="[NAME=]FILE",
        help="JSONL of problem, completions, solution, in place of --policy; several sets make a table",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=THEIRS",
        help=f"where a file has {', '.join(OUR_COLUMNS)} under other names: problem=question completions=outputs …",
    )
    parser.add_argument("--n", type=positive, nargs="+", default=[8], help="subset sizes")
    parser.add_argument(
        "--num-samples", type=positive, help="samples per problem from the policy (default: the largest n)"
    )
    shared.add_policy_arguments(parser, required=False)
    shared.add_verifier_argument(parser)


def named_files(given: list[str]) -> dict[str, Path]:
    """Name → file, from ``NAME=FILE`` or ``FILE``, whose name is then the file's own without its ending.

    Raises:
        ValueError: two files have the same name.
    """
    pairs = []
    for text in given:
        name, found, path = text.partition("=")
        if not found or not name or "/" in name:  # a path may hold an equals sign
            name, path = Path(text).name.partition(".")[0], text
        pairs.append((name, Path(path)))
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"--samples: two sets are called {twice[0]!r}; name them with NAME=FILE")
    return dict(pairs)


def take_columns(args: argparse.Namespace) -> None:
    """Turn ``--columns`` into the options of reading a file.

    Raises:
        ValueError: an entry is not OURS=THEIRS, or names a column that we do not have.
    """
    args.completions_column = None
    for text in args.columns:
        ours, found, theirs = text.partition("=")
        if not found or not theirs or ours not in OUR_COLUMNS:
            raise ValueError(f"--columns {text}: expected OURS=THEIRS with {' or '.join(OUR_COLUMNS)} before the sign")
        setattr(args, f"{ours}_column", theirs)


def samples_from(args: argparse.Namespace, num_samples: int, most: int, *, all_rows: bool) -> list[SampledProblem]:
    """Checked samples from ``--samples``, or drawn from ``--policy`` on ``--problems``; equal answers have one text.

    Args:
        num_samples: how many are drawn per problem.
        most: the largest n of best-of-n.
        all_rows: whether every row of a file needs that many samples, or one row is enough.

    Raises:
        ValueError: before anything is drawn, verified or scored: a file that cannot be read, or too few samples.
    """
    verifier, splitter = shared.verifier_from(args), StepSplitter(args.separator)
    if (args.samples is None) == (args.policy is None):
        raise ValueError("expected either --samples FILE or --policy MODEL with --problems FILE")
    if args.samples is not None:
        columns = args.problem_column, args.solution_column, getattr(args, "completions_column", None)
        rows = read_sample_rows(args.samples, *columns)[: args.limit]  # a row holds all samples of its problem
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
        part = args.concurrency * (4 if args.endpoint else 1)  # hosts are idle while the last answers of a call come in
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
    return with_equal_answers(samples, verifier)


def choose_best(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """One PRM on one set: every rule with its interval. Several: a table of PRM × rule by set, and the sets' mean."""
    take_columns(args)
    shared.check_prms(args)
    drawn = args.num_samples or max(args.n)
    files = named_files(args.samples or [])
    if args.samples is None or (len(files) == 1 and "=" not in args.samples[0]):
        given = argparse.Namespace(**vars(args) | {"samples": next(iter(files.values()), None)})
        sets = {"samples": samples_from(given, drawn, max(args.n), all_rows=True)}
        if len(args.prm) == 1:
            return _one(sets["samples"], args)
    else:
        sets = {
            name: samples_from(argparse.Namespace(**vars(args) | {"samples": path}), drawn, max(args.n), all_rows=True)
            for name, path in files.items()
        }
    return best_of_n_table(sets, args)


def _one(drawn: list[SampledProblem], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    scorer = shared.scorer_from(args, args.prm[0])
    samples = scored(drawn, scorer)
    results: dict[str, Any] = {}
    for n in args.n:
        results |= best_of_n(samples, n, seed=args.seed, target=target_of(scorer))
    return results


def best_of_n_table(sets: dict[str, list[SampledProblem]], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Rows mean@1, pass@n, maj@n and each PRM by product, min and last (an outcome model: rm); columns the sets.

    The PRMs are loaded one after another. ``mean`` is the plain mean of the sets, as the paper averages them.
    """
    rows: dict[str, dict[str, float]] = {}
    short = Counter(Path(prm).name for prm in args.prm)
    for prm in args.prm:
        title = Path(prm).name if short[Path(prm).name] == 1 else prm
        scorer = shared.scorer_from(args, prm)
        for name, samples in sets.items():
            with_scores = scored(samples, scorer)
            for n in args.n:
                values = best_of_n(with_scores, n, resamples=1, seed=args.seed, target=target_of(scorer))
                for rule, value in values.items():
                    if rule in ("mean@1", f"pass@{n}", f"maj@{n}"):
                        rows.setdefault(rule, {})[name] = value["mean"]
                    elif rule.partition("@")[0] in IN_TABLE:
                        rows.setdefault(f"{title} {rule}", {})[name] = value["mean"]
    order = sorted(rows, key=lambda row: " " in row)  # the policy's own rows first; sorting is stable
    return {row: rows[row] | {"mean": sum(rows[row].values()) / len(rows[row])} for row in order}
