"""Command-line arguments of the evaluations and the audit: the PRM, the policy, the problems."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward.verifier import Verifier
from rlhf_prm.columns import PROBLEM_COLUMNS, SOLUTION_COLUMNS, gold_of, problem_of
from rlhf_prm.command_line import add_columns, loading, number, positive
from rlhf_prm.files import write_json
from rlhf_prm.generation import Generator
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.judges.decomposed import DecomposedScorer
from rlhf_prm.judges.load import PREFIX, check_judge_keywords, is_judge, load_judge
from rlhf_prm.prm.protocol import PLACEMENTS, StepScorer
from rlhf_prm.progress import WatchedScorer
from rlhf_prm.step_data import SUFFIXES, read_all

if TYPE_CHECKING:
    from rlhf_prm.prm.families import Checkpoint, Family

DECOMPOSED = "decomposed:"  # of a PRM's name: the student of a judge that answered small questions
BATCH_TOKENS = 16384
SCORER_SETTINGS = {  # keywords of load_prm that are options of the commands, with their defaults there
    **{"family": "auto", "placement": "replicate", "reference": None, "max_length": None},
    **{"max_batch_tokens": BATCH_TOKENS, "server_url": "http://127.0.0.1:8000"},
}


def add_prm_arguments(
    parser: argparse.ArgumentParser, many: bool = False, endpoint_is_the_judges: bool = False
) -> None:
    """``--prm``, ``--judge`` and how they run.

    Args:
        many: several PRMs.
        endpoint_is_the_judges: ``--endpoint`` is another name of ``--judge-endpoint``, where no policy has it.
    """
    help_text = (
        f"the PRM's folder or name on the Hub, {PREFIX}MODEL, or {DECOMPOSED}FOLDER (a student of small questions)"
    )
    if many:
        parser.add_argument("--prm", nargs="+", help=f"{help_text}; several are compared")
    else:
        parser.add_argument("--prm", help=help_text)
    parser.add_argument("--judge", metavar="MODEL", help=f"a model that judges: the same as --prm {PREFIX}MODEL")
    other = ["--endpoint"] if endpoint_is_the_judges else []
    parser.add_argument(
        "--judge-endpoint", *other, nargs="+", default=[], help="base URLs that serve the judge; none: in this process"
    )
    add_prm_kwargs(parser)
    parser.add_argument("--family", help="how the PRM is read: auto, or a family of docs/prms.md")
    parser.add_argument("--placement", choices=PLACEMENTS)
    parser.add_argument("--server-url", help="where a served PRM listens")
    parser.add_argument("--reference", help="reference model of an implicit PRM")
    parser.add_argument("--max-length", type=positive, help="longest input in tokens (default: the PRM's context)")
    parser.add_argument("--max-batch-tokens", type=positive, help="tokens of a micro-batch, padding counted")
    parser.set_defaults(**SCORER_SETTINGS)


def add_prm_kwargs(parser: argparse.ArgumentParser) -> None:
    """Add ``--prm-kwargs``, also under the spelling of the recipes."""
    text = "JSON of further keywords of load_prm, or of a judge: votes, form, budget_calls, … (docs/judges.md)"
    parser.add_argument("--prm-kwargs", "--prm_kwargs", type=_keywords, default={}, help=text)


def _keywords(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except json.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a JSON object such as '{{\"votes\": 4}}'")
    return given


def take_judge(args: argparse.Namespace, many: bool = False, required: bool = True) -> None:
    """Turn ``--judge`` and ``--judge-endpoint`` into the ``--prm`` and ``--prm-kwargs`` that they stand for.

    Raises:
        ValueError: both or none of ``--prm`` and ``--judge``, or an endpoint without a judge.
    """
    if args.judge is not None:
        if args.prm:
            raise ValueError(f"got --prm {args.prm} and --judge {args.judge}, expected one of them")
        args.prm = [PREFIX + args.judge] if many else PREFIX + args.judge
    if required and not args.prm:
        raise ValueError(f"--prm is needed: a PRM's folder or Hub name, or --judge MODEL (the same as {PREFIX}MODEL)")
    names = args.prm if many else [args.prm]
    if args.judge_endpoint:
        if not any(is_judge(name) for name in names or ()):
            raise ValueError("--judge-endpoint needs --judge: the name of the model served there")
        args.prm_kwargs = {"endpoint": args.judge_endpoint} | args.prm_kwargs


def judge_from(name: str, keywords: Mapping[str, Any]) -> StepScorer:
    """The judge of ``--prm judge:MODEL``; steps behind a first error count as wrong, as in labels for PRMs.

    Its budget is for all that it scores here.
    """
    try:
        check_judge_keywords(dict(keywords))
        judge = load_judge(name, **{"behind_error": "wrong", **keywords})
        judge.share_budget()
        return judge
    except (TypeError, ValueError) as error:
        raise ValueError(f"--prm {name}: {error}") from error


def refuse_settings_of_prms(judge: str, args: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` for a setting that only a PRM reads, given beside a judge."""
    for name, default in defaults.items():
        if (value := getattr(args, name)) != default:
            raise ValueError(
                f"--{name.replace('_', '-')} {value} has no effect on {judge}, not a PRM: leave it out. What a "
                "judge reads is given by --prm-kwargs (docs/judges.md)"
            )


def _refuse_beside_judges(args: argparse.Namespace) -> None:
    names = args.prm if isinstance(args.prm, list) else [args.prm]
    if all(map(is_judge, names)):
        refuse_settings_of_prms(", ".join(names), args, SCORER_SETTINGS)


def scorer_from(args: argparse.Namespace, prm: str | None = None, watched: bool = True) -> StepScorer:
    """The scorer of ``--prm`` (or of one of several); ``watched``: with a bar over what it scores."""
    from rlhf_prm.prm import load_prm

    name = prm or args.prm
    if is_judge(name):
        _refuse_beside_judges(args)
        scorer = judge_from(name, args.prm_kwargs)
    else:
        with loading(f"--prm {name}"):
            scorer = load_prm(name.removeprefix(DECOMPOSED), **_load_keywords(args, name.removeprefix(DECOMPOSED)))
        if name.startswith(DECOMPOSED):
            scorer = DecomposedScorer(scorer)
    return WatchedScorer(scorer, f"score with {Path(name).name}") if watched else scorer


def _load_keywords(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """The keywords of ``load_prm`` for this PRM; of several PRMs the implicit ones alone are given the reference."""
    keywords = {setting: getattr(args, setting) for setting in SCORER_SETTINGS} | args.prm_kwargs
    if keywords["placement"] == "server" and keywords["max_batch_tokens"] == BATCH_TOKENS:
        keywords["max_batch_tokens"] = None  # the default is for a PRM in this process
    several = isinstance(args.prm, list) and len(args.prm) > 1
    if several and keywords["reference"] is not None and _recognised(name, keywords)[1].beta is None:
        keywords["reference"] = None
    return keywords


def _recognised(name: str, keywords: Mapping[str, Any]) -> tuple["Checkpoint", "Family"]:
    """The checkpoint, without its weights, and the family that ``load_prm`` would choose for it."""
    from transformers import AutoConfig

    from rlhf_prm.prm.families import Checkpoint
    from rlhf_prm.prm.load import chosen_family
    from rlhf_prm.tokenizer_checks import saved_tokenizer

    with loading(f"--prm {name}"):
        checkpoint = Checkpoint(name, AutoConfig.from_pretrained(name), saved_tokenizer(name), keywords["reference"])
    marks = {mark: keywords.get(mark) for mark in ("tag", "good", "bad", "between_steps")}
    with warnings.catch_warnings(action="ignore"):  # loading the PRM gives the same warnings
        return checkpoint, chosen_family(checkpoint, keywords["family"], **marks)


def check_prm(args: argparse.Namespace, prm: str | None = None) -> None:
    """Check, before any long work, that ``--prm`` exists and has a known family; no weights are loaded.

    Raises:
        ValueError: it does not exist, its family is unknown, or it reads no reference.
    """
    name = (prm or args.prm).removeprefix(DECOMPOSED)
    if is_judge(name):
        _refuse_beside_judges(args)
        if args.prm_kwargs.get("endpoint"):
            judge_from(name, args.prm_kwargs)  # loads nothing, but checks that the hosts answer
        check_judge_keywords(args.prm_kwargs)
        return
    from transformers import AutoConfig

    from rlhf_prm.prm.load import check_reference

    keywords = _load_keywords(args, name)
    check_reference(*_recognised(name, keywords))
    if (reference := keywords["reference"]) is not None:
        with loading(f"--reference {reference}"):
            AutoConfig.from_pretrained(reference)


def check_prms(args: argparse.Namespace) -> None:
    """``check_prm`` of each of several, and that one of them reads the reference if there is one.

    Raises:
        ValueError: as ``check_prm``, or no PRM is implicit.
    """
    for name in args.prm:
        check_prm(args, name)
    reference = args.prm_kwargs.get("reference", args.reference)
    read = [name for name in args.prm if not is_judge(name)]
    if reference is not None and all(_load_keywords(args, name)["reference"] is None for name in read):
        raise ValueError(f"--reference {reference} has no effect: none of {', '.join(args.prm)} is an implicit PRM")


def add_policy_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--policy", required=required, help="the policy's folder, Hub name, or name it is served under")
    parser.add_argument("--endpoint", nargs="*", default=[], help="OpenAI-compatible base URLs that serve the policy")
    parser.add_argument("--backend", default="auto", help="auto, hf, vllm, endpoint, or a dotted path")
    parser.add_argument(
        "--template", default="chat", help="chat (the tokenizer's), plain, chatml, or text with {problem}"
    )
    parser.add_argument("--temperature", type=number, default=1.0)
    parser.add_argument("--max-tokens", type=positive, default=2048, help="longest sample, in tokens")
    parser.add_argument("--concurrency", type=positive, default=128, help="requests in flight, or prompts per call")
    parser.add_argument("--problems", help="file, folder or Hub dataset of problems with gold answers")
    add_columns(parser)
    parser.add_argument("--split", default="test", help="split of a Hub dataset")
    parser.add_argument("--limit", type=positive, help="use only this many problems, the first ones")
    parser.add_argument("--seed", type=int, default=0)


def policy_from(args: argparse.Namespace) -> tuple[Generator, Callable[[str], str], str]:
    """The policy's generator, its prompt template, and the name of its tokenizer."""
    config = GeneratorConfig(
        args.policy,
        backend=args.backend,
        endpoints=args.endpoint,
        template=args.template,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
    )
    template = config.prompt_template()  # loads a tokenizer at most, so it fails before the model is loaded
    return config.build(args.concurrency), template, config.tokenizer or config.model


def problems_from(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Problems and gold solutions of ``--problems``; rows without gold are left out."""
    from rlhf_prm.prompts import load_prompts

    if args.problems is None:
        raise ValueError("--problems is needed to sample from a policy: a file with problems and gold answers")
    if args.problems.endswith(SUFFIXES):
        pairs = [_problem_and_gold(where, row, args) for where, row in read_all(args.problems)[: args.limit]]
    else:  # a folder of a saved dataset, a .csv, or a name on the Hub
        from datasets import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        named = {"prompt": args.problem_column, "solution": args.solution_column}
        columns = {ours: theirs for ours, theirs in named.items() if theirs}
        rows = load_prompts(
            args.problems, columns=columns, usual_prompts=PROBLEM_COLUMNS, split=args.split, limit=args.limit
        )
        pairs = [(row["problem"], row["solution"]) for row in rows]
    known = [(problem, gold) for problem, gold in pairs if gold is not None]
    if not known:
        where = repr(args.solution_column) if args.solution_column else " or ".join(SOLUTION_COLUMNS)
        raise ValueError(f"--problems {args.problems}: none of {len(pairs)} rows has a gold answer in {where}")
    return [problem for problem, _ in known], [solution for _, solution in known]


def _problem_and_gold(where: str, row: dict[str, Any], args: argparse.Namespace) -> tuple[str, str | None]:
    try:
        return problem_of(row, args.problem_column), gold_of(row, args.solution_column)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def add_verifier_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verifier", default="math", help="math, or the dotted path of a class that gives verdicts")


def verifier_from(args: argparse.Namespace) -> Verifier:
    from reward import resolve
    from reward.verifier import MathVerifier

    return resolve(args.verifier, {"math": MathVerifier}, "verifier")()


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Aligned text: one line per row, numbers with three decimals, whole numbers as they are."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [["", *columns], *([name, *(_cell(row.get(column)) for column in columns)] for name, row in rows.items())]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) if index == 0 else cell.rjust(width) for index, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def write_results(results: Mapping[str, Any], output: Path | None) -> None:
    """Write the results as JSON, if ``--output`` is given."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, results)
