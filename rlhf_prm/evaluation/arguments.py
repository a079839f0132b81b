"""Command-line arguments that the evaluations and the audit share: which PRM, which policy, which problems."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reward.verifier import Verifier
from rlhf_prm.annotate.config import GeneratorConfig
from rlhf_prm.annotate.generators import Generator
from rlhf_prm.prm.protocol import PLACEMENTS, StepScorer

SCORER_SETTINGS = ("family", "placement", "reference", "max_length", "max_batch_tokens", "server_url")


def add_prm_arguments(parser: argparse.ArgumentParser, many: bool = False) -> None:
    help_text = "the PRM's folder or name on the Hub"
    if many:
        parser.add_argument("--prm", required=True, nargs="+", help=f"{help_text}; several are ranked by agreement too")
    else:
        parser.add_argument("--prm", required=True, help=help_text)
    parser.add_argument("--family", default="auto", help="how the PRM is read: auto, or a family of docs/prms.md")
    parser.add_argument("--placement", default="replicate", choices=PLACEMENTS)
    parser.add_argument("--server-url", default="http://127.0.0.1:8000", help="where a served PRM listens")
    parser.add_argument("--reference", help="reference model of an implicit PRM")
    parser.add_argument("--max-length", type=int, help="longest input in tokens (default: the PRM's context)")
    parser.add_argument("--max-batch-tokens", type=int, default=16384, help="tokens of a micro-batch, padding counted")


def scorer_from(args: argparse.Namespace, prm: str | None = None) -> StepScorer:
    """The scorer of ``--prm`` (or of one of several)."""
    from rlhf_prm.prm import load_prm

    return load_prm(prm or args.prm, **{name: getattr(args, name) for name in SCORER_SETTINGS})


def add_policy_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--policy", required=required, help="the policy's folder, Hub name, or name it is served under")
    parser.add_argument("--endpoint", nargs="*", default=[], help="OpenAI-compatible base URLs that serve the policy")
    parser.add_argument("--backend", default="auto", help="auto, hf, vllm, endpoint, or a dotted path")
    parser.add_argument(
        "--template", default="chat", help="chat (the tokenizer's), plain, chatml, or text with {problem}"
    )
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=2048, help="longest sample, in tokens")
    parser.add_argument("--concurrency", type=int, default=128, help="requests in flight, or prompts per call")
    parser.add_argument("--problems", help="file, folder or Hub dataset of problems with gold answers")
    parser.add_argument("--problem-column", default="problem")
    parser.add_argument("--solution-column", default="solution")
    parser.add_argument("--split", default="test", help="split of a Hub dataset")
    parser.add_argument("--limit", type=int, help="only the first so many problems")
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
    return config.build(args.concurrency), config.prompt_template(), config.tokenizer or config.model


def problems_from(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Problems and gold solutions of ``--problems``; rows without gold are left out."""
    from rlhf_prm.data import load_prompts

    if args.problems is None:
        raise ValueError("--problems is needed to sample from a policy: a file with problems and gold answers")
    columns = {"prompt": args.problem_column, "solution": args.solution_column}
    rows = load_prompts(args.problems, columns=columns, split=args.split, limit=args.limit)
    known = [(row["problem"], row["solution"]) for row in rows if row["solution"] is not None]
    if not known:
        raise ValueError(f"{args.problems}: no row has a gold answer in the column {args.solution_column!r}")
    return [problem for problem, _ in known], [solution for _, solution in known]


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
    """The results as JSON, where ``--output`` asks for it."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=1) + "\n")
