"""``rlhf-prm label decomposed|mutations`` labels steps by small questions to a judge, or by mutants and tests."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from rlhf_prm.columns import problem_of, steps_of
from rlhf_prm.command_line import add_separator, check_can_write, positive
from rlhf_prm.files import write_json, write_json_lines
from rlhf_prm.step_data import read_all, write_rows
from rlhf_prm.steps import StepSplitter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True)
    text = "ask a judge of each paragraph for calculation, inference and use of the givens; rows that train a student"
    decomposed = kinds.add_parser("decomposed", help=text, description=text)
    decomposed.add_argument("--input", required=True, type=Path, help="JSONL of problem and steps, or response")
    decomposed.add_argument("--judge", required=True, metavar="MODEL", help="the model that judges")
    decomposed.add_argument("--endpoint", nargs="+", default=[], help="base URLs that serve it; none: in this process")
    decomposed.add_argument(
        "--judge-kwargs", type=json.loads, default={}, help="JSON of further keywords of load_judge"
    )
    decomposed.add_argument("--verdicts", type=Path, help="also write each solution with the answers to all questions")
    decomposed.add_argument(
        "--together",
        action="store_true",
        help="one row per solution, without marks: right if all answers are",
    )
    decomposed.add_argument("--attempts", type=positive, default=2, help="tries of a question (2)")
    add_separator(decomposed)
    text = "label lines of programs: the line that a killed mutant changes is wrong, the lines before it are right"
    mutations = kinds.add_parser("mutations", help=text, description=text)
    source = mutations.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", type=Path, help="JSONL of problem, code, tests (a text, or a list of assertions)")
    source.add_argument("--toy", type=positive, metavar="N", help="N programs of the toy Python world, not --input")
    mutations.add_argument("--most", type=positive, default=4, help="killed mutants of a program (4)")
    mutations.add_argument("--timeout", type=float, default=5.0, help="seconds a program may take with its tests (5)")
    mutations.add_argument("--workers", type=positive, default=4, help="programs run at once (4)")
    for kind in (decomposed, mutations):
        kind.add_argument("--output", required=True, type=Path, help=".jsonl or .parquet of stepwise rows")
        kind.add_argument("--report", type=Path, help="write the counts as JSON")
        kind.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> None:
    """Write stepwise rows and print what was counted."""
    check_can_write(args.output, "--output")
    check_can_write(args.report, "--report")
    counts = {"decomposed": _decomposed, "mutations": _mutations}[args.kind](args)
    print(f"{args.output}: {counts['rows']} rows")
    if args.report is not None:
        write_json(args.report, counts)


def _decomposed(args: argparse.Namespace) -> dict[str, Any]:
    from rlhf_prm.generation.tasks import Rejection
    from rlhf_prm.judges.decomposed import ASPECTS, decomposed_verdicts, step_score, student_rows, together_row
    from rlhf_prm.judges.load import check_judge_keywords, load_judge

    check_can_write(args.verdicts, "--verdicts")
    splitter, problems, steps = StepSplitter(args.separator), [], []
    for where, record in read_all(args.input):
        try:
            problems.append(problem_of(record))
            steps.append(steps_of(record, splitter))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    check_judge_keywords(args.judge_kwargs)
    judge = load_judge(args.judge, **{"endpoint": args.endpoint} | args.judge_kwargs)
    answers = decomposed_verdicts(judge, problems, steps, seed=args.seed, attempts=args.attempts)
    told = [
        (problem, row, one)
        for problem, row, one in zip(problems, steps, answers, strict=True)
        if not isinstance(one, Rejection)
    ]
    rows_of = together_row if args.together else student_rows
    rows = write_rows(args.output, [row for one in told for row in rows_of(*one)])
    if args.verdicts is not None:
        write_json_lines(
            args.verdicts,
            (
                {
                    "problem": problem,
                    "steps": row,
                    "answers": [{name: None if math.isnan(v) else v for name, v in one.items()} for one in verdicts],
                    "step_scores": [None if math.isnan(s) else s for s in map(step_score, verdicts)],
                }
                for problem, row, verdicts in told
            ),
        )
    asked = [verdict for _, _, verdicts in told for verdict in verdicts]
    wrong = {name: sum(verdict[name] == 0.0 for verdict in asked) for name in ASPECTS}
    silent = sum(math.isnan(value) for verdict in asked for value in verdict.values())
    print(
        f"{len(told)} solutions, {len(asked)} paragraphs, {judge.meter.calls} questions; found wrong in "
        + ", ".join(f"{name} {count}" for name, count in wrong.items())
        + f"; {silent} answers could not be read, {len(answers) - len(told)} solutions were refused"
    )
    return {"rows": rows, "solutions": len(told), "paragraphs": len(asked), "wrong": wrong, "unreadable": silent}


def _mutations(args: argparse.Namespace) -> dict[str, Any]:
    from rlhf_prm.annotate.mutations import mutation_rows

    if args.toy is not None:
        from rlhf_prm.toyworld.programs import draw_programs

        programs = draw_programs(args.seed, args.toy)
    else:
        programs = [_program(where, record) for where, record in read_all(args.input)]
    found, report = mutation_rows(programs, most=args.most, seed=args.seed, timeout=args.timeout, workers=args.workers)
    for problem in report.failing:
        print(f"left out: fails its own tests: {problem[:80]!r}")
    for name, row in report.table().items():
        print(f"{name:12} {row['mutants']:6} mutants, {row['killed']:6} killed ({row['share']:.0%})")
    rows = write_rows(args.output, found)
    return {"rows": rows, "programs": report.programs, "failing": report.failing, "mutants": report.table()}


def _program(where: str, record: dict[str, Any]):
    from rlhf_prm.annotate.mutations import Program, code_steps

    tests = record.get("tests")
    tests = "\n".join(tests) if isinstance(tests, list) and all(isinstance(one, str) for one in tests) else tests
    code = record.get("code")
    for name, value in (("code", code), ("tests", tests)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{where}: {name}: got {record.get(name)!r:.60}, expected a text")
    try:
        code_steps(code)
        return Program(problem_of(record), code, tests)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
