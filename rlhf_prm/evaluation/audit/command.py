"""``rlhf-prm audit`` measures whether a PRM is safe to train a given policy against."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rlhf_prm.command_line import add_separator, check_can_write, number, positive
from rlhf_prm.evaluation import arguments as shared
from rlhf_prm.evaluation.audit.page import MARKS, audit_text, write_audit_page
from rlhf_prm.evaluation.audit.probes import ProbeTexts
from rlhf_prm.evaluation.audit.run import Audit, AuditSettings, audit
from rlhf_prm.evaluation.best_of_n_command import samples_from
from rlhf_prm.evaluation.insight import written_insight
from rlhf_prm.evaluation.poem import independent_ranking
from rlhf_prm.evaluation.processbench import load_processbench
from rlhf_prm.evaluation.qualeval import accuracy_by_category, assign_categories, named_categories, scored_affinity
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.judges.load import load_judge
from rlhf_prm.statistics import WRONG_AT_OR_BELOW, predicted_first_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_prm_arguments(parser, many=True)
    parser.add_argument("--samples", type=Path, help="JSONL of problem, completions, solution, in place of --policy")
    shared.add_policy_arguments(parser, required=False)
    shared.add_verifier_argument(parser)
    parser.add_argument("--n", type=positive, default=8, help="samples per problem, and the n of best-of-n")
    parser.add_argument("--threshold", type=number, default=WRONG_AT_OR_BELOW, help="wrong at or below this score")
    add_separator(parser)
    parser.add_argument("--processbench", type=Path, help="folder of ProcessBench, for right answers by wrong steps")
    parser.add_argument(
        "--probe-problems", type=positive, default=200, help="problems whose solutions the probes rewrite"
    )
    parser.add_argument("--filler", nargs="+", help="filler lines of a probe, in the policy's own language")
    parser.add_argument("--categories", type=int, default=0, help="report by this many categories, named by --policy")
    parser.add_argument(
        "--insight", metavar="MODEL", help="a model that summarises the results by category, from the table alone"
    )
    parser.add_argument("--insight-endpoint", nargs="+", default=[], help="base URLs that serve the model of --insight")
    parser.add_argument("--page", type=Path, help="write a self-contained HTML page")
    parser.add_argument("--output", type=Path, help="write the findings as JSON")


def run(args: argparse.Namespace) -> None:
    """Print each PRM's findings; with several PRMs also their ranking by agreement."""
    shared.take_judge(args, many=True)
    check_can_write(args.page, "--page")
    check_can_write(args.output, "--output")
    if args.categories and args.policy is None:
        raise ValueError("--categories needs --policy: a chat model that names the categories and rates the problems")
    if args.categories == 1 or args.categories < 0:
        raise ValueError(f"--categories {args.categories}: expected 0 for none, or at least 2")
    if args.insight_endpoint and args.insight is None:
        raise ValueError("--insight-endpoint needs --insight: the name of the model served there")
    labelled = right_answers_of_processbench(args.processbench) if args.processbench else []
    shared.check_prms(args)
    samples = samples_from(args, args.n, args.n, all_rows=False)
    settings = AuditSettings(
        n=args.n,
        threshold=args.threshold,
        probe_problems=args.probe_problems,
        texts=ProbeTexts(filler=tuple(args.filler)) if args.filler else ProbeTexts(),
        seed=args.seed,
    )
    categories = _categories(args, samples)
    if args.insight and not categories:
        raise ValueError("--insight writes about results by category: give --categories N, or samples with a category")
    audits, predictions, by_category, insights = [], [], {}, {}
    for name in args.prm:
        scorer = shared.scorer_from(args, name)
        judged = scored(samples, scorer)
        audits.append(audit(scorer, judged, settings, name=name, labelled=labelled))
        predictions.append(_first_errors(judged, args.threshold))
        print(audit_text(audits[-1]) + "\n")
        if categories:
            by_category[name] = accuracy_by_category(*_calls(judged, categories, args.threshold))
            print(f"How often {name} and the verifier agree on a solution, by category:")
            print(shared.table(by_category[name]) + "\n")
            if args.insight:
                insights[name] = _insight(args, by_category[name])
    ranking, warnings = [], []
    if len(args.prm) > 1:
        ranked, warnings = independent_ranking(args.prm, predictions)
        ranking = [(args.prm[index], ranked.weights[index], ranked.kept[index]) for index in ranked.order]
        print("Ranking by agreement (PoEM), the most agreed with first:")
        print(shared.table({name: {"weight": weight, "reference": kept} for name, weight, kept in ranking}))
        print("".join(f"warning: {warning}\n" for warning in warnings), end="")
    _write(args, audits, ranking, warnings, {"by_category": by_category, "insights": insights})


def _write(args: argparse.Namespace, audits: list[Audit], ranking: list, warnings: list[str], categories: dict) -> None:
    if args.page:
        write_audit_page(args.page, audits, ranking, warnings)
        print(f"page: {args.page}")
    results = {
        "audits": [one.as_dict() for one in audits],
        "ranking": ranking,
        "ranking_warnings": warnings,
        **categories,
    }
    shared.write_results(results, args.output)
    print("verdict: " + ", ".join(f"{one.prm} {MARKS[one.verdict]}" for one in audits))


def right_answers_of_processbench(folder: Path) -> list[SampledProblem]:
    """ProcessBench's solutions with a right answer, as samples with known first errors."""
    return [
        SampledProblem(item.problem, [item.steps], [True], [None], first_errors=[item.label])
        for items in load_processbench(folder).values()
        for item in items
        if item.final_answer_correct
    ]


def _first_errors(judged: Sequence[SampledProblem], threshold: float) -> list[int]:
    return [predicted_first_error(scores, threshold) for sample in judged for scores in sample.step_scores]


def _categories(args: argparse.Namespace, samples: list[SampledProblem]) -> list[list[str]]:
    """Category names of each problem: from the samples' own column, or named and scored by the policy's model."""
    if not args.categories:
        known = all(sample.category is not None for sample in samples)
        return [[sample.category] for sample in samples] if known else []
    generator, _, _ = shared.policy_from(args)
    problems = [sample.problem for sample in samples]
    names = named_categories(generator, problems, args.categories, args.seed)
    assigned = assign_categories(scored_affinity(generator, problems, names, args.seed))
    return [[names[index] for index in row] for row in assigned]


def _insight(args: argparse.Namespace, table: dict) -> dict:
    """The text of ``--insight``'s model about the table, printed with the numbers that the table lacks."""
    writer = load_judge(args.insight, endpoint=args.insight_endpoint, temperature=0.0).generator
    insight = written_insight(writer, table, args.seed)
    print(f"{args.insight} on this table:\n{insight.text}")
    if insight.unsupported:
        print(f"warning: not in the table: {', '.join(insight.unsupported)}")
    print()
    return asdict(insight)


def _calls(
    judged: Sequence[SampledProblem], categories: list[list[str]], threshold: float
) -> tuple[list[bool], list[list[str]]]:
    """For each solution whether "no step is wrong" agrees with the verifier, and the categories of its problem."""
    agrees, names = [], []
    for sample, of_problem in zip(judged, categories, strict=True):
        for scores, correct in zip(sample.step_scores, sample.correct, strict=True):
            agrees.append((predicted_first_error(scores, threshold) == -1) == correct)
            names.append(of_problem)
    return agrees, names
