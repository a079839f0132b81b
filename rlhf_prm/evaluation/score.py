"""``rlhf-prm score``: step scores for a file of rollouts, for people who want nothing but the scores."""

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from rlhf_prm.columns import PROBLEM_COLUMNS, RESPONSE_COLUMNS, STEPS_COLUMNS, problem_of, steps_of
from rlhf_prm.command_line import add_separator, check_can_write, loading, positive
from rlhf_prm.evaluation.arguments import add_prm_kwargs, judge_from
from rlhf_prm.files import whole
from rlhf_prm.judges.load import is_judge
from rlhf_prm.prm.protocol import PLACEMENTS, StepScorer
from rlhf_prm.progress import Bar
from rlhf_prm.step_data import read_records
from rlhf_prm.steps import StepSplitter

TEXT_COLUMNS = (*RESPONSE_COLUMNS, "solution")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prm", required=True, help="the PRM's folder or name on the Hub, or judge:MODEL")
    add_prm_kwargs(parser)
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        help=f".jsonl or .parquet with {'|'.join(PROBLEM_COLUMNS)} and {'|'.join(STEPS_COLUMNS)} (a list of texts) or "
        f"{'|'.join(TEXT_COLUMNS)} (one text, cut at --separator)",
    )
    parser.add_argument("--output", type=Path, help="default: the input's name with .scored.jsonl")
    parser.add_argument("--family", default="auto", help="how the PRM is read: auto, or a family of docs/prms.md")
    parser.add_argument("--placement", default="replicate", choices=PLACEMENTS)
    parser.add_argument("--server-url", default="http://127.0.0.1:8000", help="where a served PRM listens")
    parser.add_argument("--reference", help="reference model of an implicit PRM")
    parser.add_argument("--tag", help="step tag of a causal_tag PRM")
    parser.add_argument("--good", help="good answer of a causal_tag PRM")
    parser.add_argument("--bad", help="bad answer of a causal_tag PRM")
    parser.add_argument("--score-scale", type=float, default=1.0, help="scale of the PRM's log-odds (docs/prms.md)")
    parser.add_argument("--score-shift", type=float, default=0.0, help="shift of the scaled log-odds")
    add_separator(parser)
    parser.add_argument("--problem-column", help="default: problem, prompt or question")
    parser.add_argument("--max-length", type=positive, help="longest input in tokens (default: the PRM's context)")
    parser.add_argument("--max-batch-tokens", type=positive, help="tokens of a micro-batch, padding counted")
    parser.add_argument("--chunk", type=positive, default=256, help="rollouts read, scored and written together")


def run(args: argparse.Namespace) -> None:
    """Write each input row with ``step_scores`` added (null where a step could not be scored); print a summary.

    The input is read through once before the PRM is loaded, so that a bad row is said at once. The output appears when
    it is complete; until then it is called ``….partial``.
    """
    from rlhf_prm.prm import load_prm

    splitter = StepSplitter(args.separator)
    output = args.output or args.input.with_suffix(".scored.jsonl")
    if output.resolve() == args.input.resolve():
        raise ValueError(f"--output {output} is the input, expected another file")
    total = sum(1 for _ in read_rollouts(args.input, splitter, args.problem_column))
    if not total:
        raise ValueError(f"{args.input} has no rows, expected at least one rollout")
    check_can_write(output, "--output")
    keywords = (
        "family",
        "placement",
        "reference",
        "tag",
        "good",
        "bad",
        "score_scale",
        "score_shift",
        "max_length",
        "max_batch_tokens",
        "server_url",
    )
    if is_judge(args.prm):
        scorer = judge_from(args.prm, args.prm_kwargs)
    else:
        with loading(f"--prm {args.prm}"):
            scorer = load_prm(args.prm, **{name: getattr(args, name) for name in keywords} | args.prm_kwargs)
    rows = read_rollouts(args.input, splitter, args.problem_column)
    with whole(output) as partial, partial.open("w", encoding="utf-8") as file, Bar(total, "score") as bar:
        for row in scored_rows(rows, scorer, args.chunk):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            bar.add()
    stats = scorer.stats
    if is_judge(args.prm):
        print(f"{output}: {total} rollouts; {stats.told()}")
        return
    print(
        f"{output}: {stats.rollouts} rollouts ({stats.duplicates} duplicates) by family {scorer.family.name} in "
        f"{stats.seconds:.1f} s, {stats.tokens / max(stats.seconds, 1e-9):.0f} tokens/s; "
        f"{stats.unscored_steps + stats.non_finite_steps} steps without a score"
    )


def read_rollouts(
    path: Path, splitter: StepSplitter, problem_column: str | None = None
) -> Iterator[tuple[dict, str, list[str]]]:
    """(row, problem, steps) of each row; ``ValueError`` that names the row where something is missing."""
    for where, row in read_records(path):
        try:
            if isinstance(row, ValueError):
                raise row
            yield row, problem_of(row, problem_column), steps_of(row, splitter, TEXT_COLUMNS)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def scored_rows(rollouts: Iterable[tuple[dict, str, list[str]]], scorer: StepScorer, chunk: int) -> Iterator[dict]:
    """The rows in their order, each with ``step_scores``; a chunk is scored as one call."""
    rollouts = iter(rollouts)
    while part := list(islice(rollouts, chunk)):
        scores = scorer.score([problem for _, problem, _ in part], [steps for _, _, steps in part])
        for (row, _, _), values in zip(part, scores, strict=True):
            yield row | {"step_scores": [None if math.isnan(value) else value for value in values]}
