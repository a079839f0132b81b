"""``rlhf-prm annotate STAGE`` turns problems into labelled solutions; ``relabel`` changes the threshold afterwards."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reward import resolve
from rlhf_prm.annotate.config import AnnotateConfig, read_config
from rlhf_prm.annotate.estimate import Estimate, assumed, estimate, table
from rlhf_prm.annotate.pipeline import Pipeline
from rlhf_prm.annotate.relabel import MonteCarloFolder, relabel
from rlhf_prm.annotate.stages import JudgeStage, Stage
from rlhf_prm.command_line import positive, reason, separator
from rlhf_prm.step_data import read_rows, to_dataset

STAGES = {
    "sample": ["sample"],
    "monte-carlo": ["monte_carlo"],
    "judge": ["judge"],
    "consensus": ["consensus"],
    "all": ["sample", "monte_carlo", "judge", "consensus"],
    "outcome": ["outcome"],
}
RELABEL = "relabel"  # not a stage: it needs neither a model nor a configuration
USED_BY_RELABEL = {"command", "run", "stage", "out", "solutions", "threshold", "limit", "kind", "output"}
IN_THE_FILE = "for a model that --config names, write it beside the name"
MADE_OF_OTHERS = ("consensus", "outcome")  # stages without a model
# flag → (key of AnnotateConfig, keywords of add_argument)
FLAGS: dict[str, tuple[str, dict[str, Any]]] = {
    "--out": ("out", {"help": "folder for all output; with the same folder a stopped run continues"}),
    "--problems": ("problems", {"help": ".jsonl or .parquet file with a problem and its gold answer per row"}),
    "--solutions": (
        "solutions",
        {"help": "label these solutions (columns steps or response) in place of sampled ones"},
    ),
    "--problem-column": ("problem_column", {"help": "default: problem, prompt or question"}),
    "--solution-column": ("solution_column", {"help": "the gold answer's; default: solution or answer"}),
    "--num-responses": ("num_responses", {"type": int, "help": "responses per problem and policy (8)"}),
    "--separator": (
        "separator",
        {"type": separator, "help": "what ends a step in a text; \\n is a line break (default: a blank line)"},
    ),
    "--num-completions": ("num_completions", {"type": int, "help": "completions per step prefix (8)"}),
    "--threshold": (
        "threshold",
        {"type": float, "nargs": "+", "help": "a step is correct above this hit rate (0); relabel takes several"},
    ),
    "--judge-form": ("judge_form", {"help": "paper, processbench, or a dotted path to a JudgeForm"}),
    "--votes": ("votes", {"type": int, "help": "judge answers per solution (1)"}),
    "--attempts": ("attempts", {"type": int, "help": "tries per judge answer (3)"}),
    "--verifier": ("verifier", {"help": "math, or a dotted path to a class or function that makes a Verifier"}),
    "--concurrency": ("concurrency", {"type": int, "help": "requests in flight, or prompts per in-process call (128)"}),
    "--shard-size": ("shard_size", {"type": int, "help": "problems per shard, held in memory together (2000)"}),
    "--runner": ("runner", {"choices": ("local", "ray"), "help": "ray: shards go to the workers of a Ray cluster"}),
    "--workers": ("workers", {"type": positive, "help": "of runner ray, each with its own model (2)"}),
    "--gpus-per-worker": ("gpus_per_worker", {"type": float, "help": "of runner ray (0)"}),
    "--limit": ("limit", {"type": positive, "help": "use only this many problems, the first ones"}),
    "--seed": ("seed", {"type": int}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags. Each one overrides its key in ``--config``."""
    parser.add_argument(
        "stage",
        choices=[*STAGES, RELABEL],
        help="the stage; all = sample to consensus in order; outcome: the verifier's verdicts, for an outcome reward "
        "model; relabel: labels at other thresholds from the hits in --out, and their consensus with the judge's",
    )
    parser.add_argument("--config", help="YAML file with the keys of AnnotateConfig")
    for flag, (key, keywords) in FLAGS.items():
        parser.add_argument(flag, dest=key, default=None, **keywords)
    parser.add_argument("--go-on", action="store_true", help="estimate all steps, also after the first miss")
    parser.add_argument(
        "--retry-rejected", action="store_const", const=True, help="try the rows that were set aside again"
    )
    parser.add_argument("--model", nargs="+", help="policies: Hub names, folders, or the names they are served under")
    parser.add_argument("--endpoint", nargs="+", default=[], help="base URLs that serve them: http://host:8000/v1 …")
    parser.add_argument(
        "--own-completers", action="store_true", help="each policy continues its own samples (default: the first does)"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--soft",
        dest="kind",
        action="store_const",
        const="soft",
        help="relabel: keep hit rates as soft labels (default)",
    )
    kind.add_argument(
        "--hard",
        dest="kind",
        action="store_const",
        const="hard",
        help="relabel: write the hard labels as soft labels 0 and 1",
    )
    parser.add_argument("--output", type=Path, help="relabel: folder of the new labels (default: relabelled in --out)")
    parser.add_argument("--judge-model", help="the model that judges")
    parser.add_argument("--judge-endpoint", nargs="+", default=[], help="base URLs that serve the judge")
    parser.add_argument("--backend", help="of the models named here: auto, hf, vllm, endpoint, or a dotted path (auto)")
    parser.add_argument("--max-tokens", type=positive, help="longest answer of the models named here, in tokens (2048)")
    parser.add_argument("--template", help="of --model: chat, chatml, plain, or text with {problem} (chat)")
    parser.add_argument("--temperature", type=float, help="of --model (1); the judge's is in the config")
    parser.add_argument("--dry-run", action="store_true", help="print the estimate of calls and tokens, then stop")
    parser.add_argument("--push-to-hub", metavar="NAME", help="publish the labels of this stage as a data set")


def config_of(args: argparse.Namespace) -> AnnotateConfig:
    """The settings of the YAML file, overridden by the flags."""
    keys = [key for key, _ in FLAGS.values()] + ["retry_rejected"]
    overrides = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    if args.go_on:
        overrides["stop_at_first_miss"] = False
    if "threshold" in overrides:
        if len(overrides["threshold"]) > 1:
            raise ValueError(f"--threshold {overrides['threshold']}: expected one; relabel takes several")
        (overrides["threshold"],) = overrides["threshold"]
    shared, sampling = _given(args, ("backend", "max_tokens")), _given(args, ("template", "temperature"))
    if args.model:
        overrides["policies"] = [
            {"model": model, "endpoints": args.endpoint, **shared, **sampling} for model in args.model
        ]
        if args.own_completers:
            overrides["completers"] = overrides["policies"]
    elif args.own_completers:
        raise ValueError("--own-completers needs --model; in a YAML file, name them under completers")
    elif args.endpoint:
        raise ValueError("--endpoint needs --model: the names of the models served there")
    elif sampling:
        raise ValueError(f"got {_flags(sampling)} without --model, expected both; {IN_THE_FILE}")
    if args.judge_model:
        overrides["judge"] = {"model": args.judge_model, "endpoints": args.judge_endpoint, **shared}
    elif args.judge_endpoint:
        raise ValueError("--judge-endpoint needs --judge-model: the name of the model served there")
    elif shared and not args.model:
        raise ValueError(f"got {_flags(shared)} without --model or --judge-model, expected one of them; {IN_THE_FILE}")
    return read_config(args.config, overrides)


def _given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The arguments among these that the command line has."""
    values = {name: getattr(args, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and value is not False and value != []}


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def run(args: argparse.Namespace) -> None:
    """Print the estimate, then run the stage."""
    if args.stage == RELABEL:
        return relabel_folder(args)
    if args.kind is not None or args.output is not None:
        raise ValueError("--soft, --hard and --output go with relabel only")
    config = config_of(args)
    names = STAGES[args.stage]
    if args.push_to_hub and names[-1] == "sample":
        raise ValueError("--push-to-hub: sample writes no labels, use it with monte-carlo, judge, consensus or all")
    resolve(config.verifier, {"math": None}, "verifier")
    pipeline = Pipeline(config)
    pipeline.check_input()
    estimates = estimates_of(pipeline, [name for name in names if name not in MADE_OF_OTHERS])
    if estimates:
        print(table(estimates), flush=True)
    if args.dry_run:
        return
    check_models(pipeline, estimates)
    try:
        for name in names:
            if name in MADE_OF_OTHERS:
                {"consensus": pipeline.consensus, "outcome": pipeline.outcome}[name]()
            else:
                pipeline.run(name)
    except OSError as error:
        raise OSError(f"{reason(error)}; finished work is kept, the same command continues it") from error
    except KeyboardInterrupt:
        print("\nstopped; finished work is kept, the same command continues it", file=sys.stderr)
        raise SystemExit(130) from None
    if args.push_to_hub:
        push(pipeline.out / f"{names[-1]}.jsonl", args.push_to_hub)


def relabel_folder(args: argparse.Namespace) -> None:
    """``relabel``: one line for each threshold."""
    if args.out is None:
        raise ValueError("relabel needs --out: the folder of a finished monte-carlo")
    if unused := _given(args, [name for name in vars(args) if name not in USED_BY_RELABEL]):
        raise ValueError(
            f"relabel samples nothing: got {_flags(unused)}, expected --out, --solutions, --threshold, --limit, "
            "--output, and --soft or --hard only; leave the others out"
        )
    source = MonteCarloFolder(Path(args.out), args.solutions, args.limit)
    for threshold in args.threshold or [0.0]:
        done = relabel(source, threshold, args.kind or "soft", args.output)
        print(f"{done.path}: {done.rows} labelled solutions, {done.right_steps:.1%} of their steps right")
        if done.consensus is not None:
            print(f"{done.consensus}: {done.kept} solutions that the judge agrees on")


def check_models(pipeline: Pipeline, estimates: list[Estimate]) -> None:
    """Check that every model is available before the first one is used: the judge's turn may be hours away.

    Raises:
        ValueError: a model is not available; the message says which and why.
    """
    left = {estimate.stage for estimate in estimates if estimate.calls}
    for name in ("sample", "monte_carlo", "judge"):  # one after the other: a stage reads its own model's tokenizer
        for stage in _configured(pipeline, name):
            if stage.name in left:
                try:
                    stage.model.check(needs_template=not isinstance(stage, JudgeStage))
                except ValueError as error:
                    raise ValueError(f"{stage.name}: {error}") from error


def _configured(pipeline: Pipeline, name: str) -> list[Stage]:
    """The stages of this name; none if the configuration lacks what they need."""
    try:
        return pipeline.stages(name)
    except ValueError:
        return []


def estimates_of(pipeline: Pipeline, names: list[str]) -> list[Estimate]:
    """The remaining cost of each stage; assumed if the solutions to label are not sampled yet."""
    estimates: list[Estimate] = []
    unsampled = 0
    for name in names:
        for stage in pipeline.stages(name):
            if unsampled and name != "sample":
                shares = len(pipeline.stages(name))  # of completers, if each continues its own policy's samples
                estimates.append(assumed(stage, unsampled // shares, pipeline.config))
                continue
            estimates.append(estimate(stage, pipeline.rows(stage), pipeline.shards(stage), pipeline.config))
            if name == "sample" and estimates[-1].calls:
                unsampled += estimates[-1].rows * pipeline.config.num_responses
    return estimates


def push(path: Path, name: str) -> None:
    """Publish a file of labels as a Hub data set."""
    if not path.is_file():
        raise ValueError(
            f"--push-to-hub: {path.stem} writes no labels, use it with monte-carlo, judge, consensus or all"
        )
    to_dataset(read_rows(path)).push_to_hub(name)
