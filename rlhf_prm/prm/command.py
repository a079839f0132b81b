"""``rlhf-prm score``: step scores for a file of rollouts, for people who want nothing but the scores."""

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from rlhf_prm.prm.protocol import PLACEMENTS, StepScorer
from rlhf_prm.steps import StepSplitter

PROBLEM_KEYS = ("problem", "prompt", "question")
STEPS_KEYS = ("steps", "completions")
TEXT_KEYS = ("completion", "response", "solution")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prm", required=True, help="the PRM's folder or name on the Hub")
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        help=f"JSON lines with {'|'.join(PROBLEM_KEYS)} and {'|'.join(STEPS_KEYS)} (a list of texts) or "
        f"{'|'.join(TEXT_KEYS)} (one text, cut at --separator)",
    )
    parser.add_argument("--output", type=Path, help="default: the input's name with .scored.jsonl")
    parser.add_argument("--family", default="auto", help="how the PRM is read: auto, or a family of docs/prms.md")
    parser.add_argument("--placement", default="replicate", choices=PLACEMENTS)
    parser.add_argument("--server-url", default="http://127.0.0.1:8000", help="where a served PRM listens")
    parser.add_argument("--reference", help="reference model of an implicit PRM")
    parser.add_argument("--tag", help="step tag of a causal_tag PRM")
    parser.add_argument("--good", help="good answer of a causal_tag PRM")
    parser.add_argument("--bad", help="bad answer of a causal_tag PRM")
    parser.add_argument("--separator", default="\\n\\n", help="what ends a step in a text (default: a blank line)")
    parser.add_argument("--max-length", type=int, help="longest input in tokens (default: the PRM's context)")
    parser.add_argument("--max-batch-tokens", type=int, help="tokens of a micro-batch, padding counted")
    parser.add_argument("--chunk", type=int, default=2048, help="rollouts that are read, sorted and written together")


def run(args: argparse.Namespace) -> None:
    """Write each input row with ``step_scores`` added (null where a step could not be scored); print a summary."""
    from rlhf_prm.prm import load_prm

    rows = read_rollouts(args.input, StepSplitter(args.separator.encode().decode("unicode_escape")))
    keywords = (
        "family",
        "placement",
        "reference",
        "tag",
        "good",
        "bad",
        "max_length",
        "max_batch_tokens",
        "server_url",
    )
    scorer = load_prm(args.prm, **{name: getattr(args, name) for name in keywords})
    output = args.output or args.input.with_suffix(".scored.jsonl")
    with output.open("w") as file:
        for row in scored_rows(rows, scorer, args.chunk):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    stats = scorer.stats
    print(
        f"{output}: {stats.rollouts} rollouts ({stats.duplicates} duplicates) by family {scorer.family.name} in "
        f"{stats.seconds:.1f} s, {stats.tokens / max(stats.seconds, 1e-9):.0f} tokens/s; "
        f"{stats.unscored_steps + stats.non_finite_steps} steps without a score"
    )


def read_rollouts(path: Path, splitter: StepSplitter) -> Iterator[tuple[dict, str, list[str]]]:
    """(row, problem, steps) of each line; ``ValueError`` that names the line where something is missing."""
    if not path.is_file():
        raise ValueError(f"{path} is no file: expected JSON lines of rollouts.")
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number} is not JSON: {error}") from error
            problem = next((row[key] for key in PROBLEM_KEYS if isinstance(row.get(key), str)), None)
            steps = next((row[key] for key in STEPS_KEYS if isinstance(row.get(key), list)), None)
            if steps is None:
                text = next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), None)
                steps = None if text is None else splitter.split(text)
            if problem is None or steps is None or not all(isinstance(step, str) for step in steps):
                raise ValueError(
                    f"{path}:{number} has the fields {sorted(row)}: expected one of {', '.join(PROBLEM_KEYS)} (a text) "
                    f"and one of {', '.join(STEPS_KEYS)} (a list of texts) or {', '.join(TEXT_KEYS)} (a text)."
                )
            yield row, problem, steps


def scored_rows(rollouts: Iterable[tuple[dict, str, list[str]]], scorer: StepScorer, chunk: int) -> Iterator[dict]:
    """The rows in their order, each with ``step_scores``; a chunk is scored as one call."""
    rollouts = iter(rollouts)
    while part := list(islice(rollouts, chunk)):
        scores = scorer.score([problem for _, problem, _ in part], [steps for _, _, steps in part])
        for (row, _, _), values in zip(part, scores, strict=True):
            yield row | {"step_scores": [None if math.isnan(value) else value for value in values]}
