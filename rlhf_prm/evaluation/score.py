"""``rlhf-prm score`` adds step scores to a file of rollouts."""

import argparse
import hashlib
import json
from functools import partial
from pathlib import Path

from rlhf_prm.columns import PROBLEM_COLUMNS, STEPS_COLUMNS
from rlhf_prm.command_line import add_separator, check_can_write, loading, positive
from rlhf_prm.evaluation.arguments import SCORER_SETTINGS, add_prm_kwargs, judge_from, refuse_settings_of_prms
from rlhf_prm.evaluation.score_rows import TEXT_COLUMNS, read_rollouts, scored_rows
from rlhf_prm.evaluation.score_shards import ScoreShards
from rlhf_prm.files import whole
from rlhf_prm.judges.load import is_judge
from rlhf_prm.prm.protocol import PLACEMENTS
from rlhf_prm.progress import Bar
from rlhf_prm.steps import StepSplitter

RUNNERS = ("local", "ray")
PRM_SETTINGS = {  # keywords of load_prm that are options here, with their defaults
    **(SCORER_SETTINGS | {"max_batch_tokens": None}),
    **{"tag": None, "good": None, "bad": None, "score_scale": 1.0, "score_shift": 0.0},
}


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
    parser.add_argument("--family", help="how the PRM is read: auto, or a family of docs/prms.md")
    parser.add_argument("--placement", choices=PLACEMENTS)
    parser.add_argument("--server-url", help="where a served PRM listens")
    parser.add_argument("--reference", help="reference model of an implicit PRM")
    parser.add_argument("--tag", help="step tag of a causal_tag PRM")
    parser.add_argument("--good", help="good answer of a causal_tag PRM")
    parser.add_argument("--bad", help="bad answer of a causal_tag PRM")
    parser.add_argument("--score-scale", type=float, help="scale of the PRM's log-odds (docs/prms.md)")
    parser.add_argument("--score-shift", type=float, help="shift of the scaled log-odds")
    add_separator(parser)
    parser.add_argument("--problem-column", help="default: problem, prompt or question")
    parser.add_argument("--max-length", type=positive, help="longest input in tokens (default: the PRM's context)")
    parser.add_argument("--max-batch-tokens", type=positive, help="tokens of a micro-batch, padding counted")
    parser.set_defaults(**PRM_SETTINGS)
    parser.add_argument("--runner", default="local", choices=RUNNERS, help="ray: on the workers of a Ray cluster")
    parser.add_argument("--workers", type=positive, default=2, help="of runner ray, each with the PRM")
    parser.add_argument("--gpus-per-worker", type=float, default=0.0, help="of runner ray")
    parser.add_argument("--shard-size", type=positive, default=2048, help="rows per shard of runner ray")
    parser.add_argument("--chunk", type=positive, default=256, help="rollouts read, scored and written together")


def run(args: argparse.Namespace) -> None:
    """Write each input row with ``step_scores`` added (null where a step could not be scored); print a summary.

    The input is read once before the PRM is loaded, so that a bad row is reported at once. The output appears when
    it is complete; until then it is called ``….partial``.
    """
    from rlhf_prm.prm import load_prm

    if is_judge(args.prm):
        refuse_settings_of_prms(args.prm, args, PRM_SETTINGS)
    splitter = StepSplitter(args.separator)
    output = args.output or args.input.with_suffix(".scored.jsonl")
    if output.resolve() == args.input.resolve():
        raise ValueError(f"--output {output} is the input, expected another file")
    total = sum(1 for _ in read_rollouts(args.input, splitter, args.problem_column))
    if not total:
        raise ValueError(f"{args.input} has no rows, expected at least one rollout")
    check_can_write(output, "--output")
    if args.runner == "ray":
        _run_on_ray(args, splitter, output, total, {name: getattr(args, name) for name in PRM_SETTINGS})
        return
    if is_judge(args.prm):
        scorer = judge_from(args.prm, args.prm_kwargs)
    else:
        with loading(f"--prm {args.prm}"):
            scorer = load_prm(args.prm, **{name: getattr(args, name) for name in PRM_SETTINGS} | args.prm_kwargs)
    rows = read_rollouts(args.input, splitter, args.problem_column)
    with whole(output) as unfinished, unfinished.open("w", encoding="utf-8") as file, Bar(total, "score") as bar:
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


def _run_on_ray(args: argparse.Namespace, splitter: StepSplitter, output: Path, total: int, keywords: dict) -> None:
    """Score the rows in workers; the same command continues a stopped run."""
    from rlhf_prm.prm import load_prm

    if is_judge(args.prm):
        raise ValueError(f"--runner ray: got the judge {args.prm}, which is behind endpoints; expected runner local")
    read = {"separator": args.separator, "problem_column": args.problem_column}
    shards = ScoreShards(
        output.resolve(),
        partial(read_rollouts, args.input.resolve(), splitter, args.problem_column),
        partial(load_prm, args.prm, **keywords | args.prm_kwargs),
        {**read, "prm": args.prm, "input": _content(args.input), **keywords, **args.prm_kwargs},
        args.shard_size,
        args.chunk,
    )
    with Bar(total, "score") as bar:
        shards.run(total, workers=args.workers, gpus_per_worker=args.gpus_per_worker, done=bar.add)
    print(f"{output}: {total} rollouts, by {args.workers} workers in shards of {args.shard_size}")


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
