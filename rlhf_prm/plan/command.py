"""``rlhf-prm plan``: memory per GPU by part, seconds per update by part, and what to change when it does not fit."""

import argparse
import json
from dataclasses import fields
from pathlib import Path

from rlhf_prm.plan.fixes import largest_part, smallest_fix
from rlhf_prm.plan.memory import (
    GB,
    PLACEMENTS,
    SCORERS,
    RunPlan,
    fits,
    host_memory,
    kv_cache_room,
    memory_by_part,
    peak_bytes,
)
from rlhf_prm.plan.recipe import in_place_of_weights, launch_settings, prm_shape, recipe_settings
from rlhf_prm.plan.shapes import model_shape
from rlhf_prm.plan.timing import (
    BESIDE_TRAINING,
    GPUS,
    Efficiency,
    judge_tokens,
    seconds_by_part,
    update_seconds,
)
from rlhf_prm.thinking import PARTS

DEFAULTS = {field.name: field.default for field in fields(RunPlan)}
ONE_PROCESS = {"gpus": 1, "nodes": 1, "zero": 0}  # how a recipe is launched by default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, named as in TRL and the configs where possible. Each overrides the recipe."""
    parser.add_argument("--config", type=Path, help="plan this recipe (recipes/configs/….yaml), on one GPU or --launch")
    parser.add_argument("--launch", help="the accelerate config it is launched with: a file, or one of TRL's: zero3")
    parser.add_argument("--policy", help='"1.5B", "7B", … (Qwen2.5), a published name, or a folder (7B)')
    parser.add_argument("--prm", help='the same, "none", "vine" or "judge:MODEL" (7B)')
    parser.add_argument("--gpu", default="h100", choices=sorted(GPUS), help="kind of GPU")
    parser.add_argument("--gpu-memory", type=float, help="GB per GPU, if it differs from the kind's")
    for name, choices in (
        ("critic", ("none", "own", "shared")),
        ("prm_placement", PLACEMENTS),
        ("vllm", ("colocate", "server", "none")),
        ("scorer", SCORERS),
        ("prm_reads", PARTS),
    ):
        parser.add_argument(_flag(name), choices=choices, help=f"({DEFAULTS[name]})")
    parser.add_argument("--zero", type=int, choices=(0, 1, 2, 3), help="ZeRO stage; 0 = DDP (3, on one GPU 0)")
    for name in (
        "gpus",
        "nodes",
        "prm_tokens",
        "rollouts",
        "prompt_tokens",
        "completion_tokens",
        "prm_context",
        "judge_tokens",
    ):
        parser.add_argument(_flag(name), type=int, help=f"({DEFAULTS[name]})")
    for name in ("per_device_train_batch_size", "num_iterations"):
        parser.add_argument(_flag(name), type=int, help=f"({DEFAULTS[name]})")
    for name in ("vllm_gpu_memory_utilization", "thinking_share"):
        parser.add_argument(_flag(name), type=float, help=f"({DEFAULTS[name]})")
    parser.add_argument("--judge-price", type=float, nargs=2, metavar=("READ", "WRITTEN"), help="per million tokens")
    for name in (
        "asynchronous",
        "offload_optimizer",
        "reference",
        "prm_refresh",
        "vllm_enable_sleep_mode",
        "gradient_checkpointing",
    ):
        parser.add_argument(_flag(name), action=argparse.BooleanOptionalAction, help=f"({DEFAULTS[name]})")
    parser.add_argument("--training-share", type=float, default=Efficiency.training, help="of peak FLOP/s in training")
    parser.add_argument("--decoding-share", type=float, default=Efficiency.decoding, help="of memory bandwidth")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def plan_of(args: argparse.Namespace) -> tuple[RunPlan, dict[str, str]]:
    """The plan from recipe, launch config and command line, of which later ones win; and the names of its models.

    Raises:
        ValueError: see ``recipe_settings``, ``launch_settings``, ``model_shape`` and ``RunPlan``.
    """
    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name, None) is not None}
    launch = launch_settings(args.launch) if args.launch else ONE_PROCESS if args.config else {}
    names = {"policy": "7B", "prm": "7B"}
    settings = launch | {name: given[name] for name in ONE_PROCESS if name in given}
    if args.config:
        recipe, names = recipe_settings(args.config, settings["gpus"])
        settings = recipe | settings
    names |= {name: given.pop(name) for name in ("policy", "prm") if name in given}
    if names.get("prm") == "none":
        del names["prm"]
    settings |= given
    settings.setdefault("zero", 0 if settings.get("gpus") == 1 else DEFAULTS["zero"])
    settings |= {"policy": model_shape(names["policy"]), "prm": prm_shape(names.get("prm"))}
    settings["gpu_bytes"] = int(args.gpu_memory * GB) if args.gpu_memory else GPUS[args.gpu].memory_bytes
    return RunPlan(**settings), names


def planned(plan: RunPlan, names: dict[str, str], gpu: str) -> dict:
    """The configuration that is planned."""
    settings = {
        name: getattr(plan, name)
        for name in DEFAULTS
        if name not in ("policy", "prm", "gpu_bytes", "frozen_bytes", "rollouts")
    }
    return {
        "gpu": gpu,
        "gpu_bytes": plan.gpu_bytes,
        **names,
        "policy_parameters": plan.policy.parameters,
        **settings,
        "rollouts_per_update": plan.rollouts,
        "gradient_accumulation_steps": plan.micro_batches,
    }


def summary(plan: RunPlan, names: dict[str, str], args: argparse.Namespace) -> dict:
    """All results of the command, as plain numbers."""
    share = Efficiency(training=args.training_share, decoding=args.decoding_share)
    fix = smallest_fix(plan)
    seconds = seconds_by_part(fix[1] if fix else plan, GPUS[args.gpu], share)
    read, written = judge_tokens(plan)
    price = args.judge_price or (0.0, 0.0)
    return {
        "planned": planned(plan, names, args.gpu),
        "fits": fits(plan),
        "gpu_bytes": plan.gpu_bytes,
        "memory": {
            name: {"bytes": size, "phases": [phase for phase in phases if phase in plan.phases]}
            for name, (size, phases) in memory_by_part(plan).items()
        },
        "peak": peak_bytes(plan),
        "host_memory_per_node": host_memory(plan),
        "rollouts_in_cache": kv_cache_room(plan),
        "seconds": seconds,
        "update_seconds": update_seconds(fix[1] if fix else plan, seconds),
        "judge": {"read": read, "written": written, "price": (read * price[0] + written * price[1]) / 1e6},
        "fix": None if fix is None else fix[0],
        "peak_when_fixed": None if fix is None else peak_bytes(fix[1]),
        "host_memory_when_fixed": None if fix is None else host_memory(fix[1]),
    }


def _head(plan: RunPlan, names: dict[str, str], gpu: str) -> list[str]:
    """The configuration in words."""
    size = f"{plan.base_parameters / 1e9:.2f} B parameters"
    trained = f"LoRA, {plan.adapter_parameters / 1e6:.0f} M trained" if plan.adapter_parameters else "all trained"
    models = f"{names['policy']} ({size}, {trained})"
    if plan.task == "prm":
        models = f"PRM training of {models}"
    else:
        other = in_place_of_weights(names.get("prm"))
        without = "none" if other is None else f"none ({other[0]})"
        prm = f"{names['prm']} ({plan.prm_placement})" if plan.prm else without
        models = f"policy {models}, PRM {prm}, critic {plan.critic}" + ", reference policy" * plan.reference
    zero = f"ZeRO-{plan.zero}" if plan.zero else "no ZeRO (DDP)" if plan.gpus > 1 else "no ZeRO"
    offloaded = ", optimizer in host memory" * plan.offload_optimizer
    nodes = f" on {plan.nodes} nodes" if plan.nodes > 1 else ""
    rows = "solutions" if plan.task == "prm" else "rollouts"
    texts = f"{plan.tokens} tokens" if plan.task == "prm" else f"{plan.prompt_tokens} + {plan.completion_tokens} tokens"
    asleep = ", asleep in training" * plan.vllm_enable_sleep_mode
    colocated = f"vLLM with {plan.vllm_gpu_memory_utilization:.0%} of each GPU{asleep}"
    sampled = {"none": "transformers' generate", "server": "vLLM on other GPUs", "colocate": colocated}[plan.vllm]
    checkpointing = f"gradient checkpointing {'on' if plan.gradient_checkpointing else 'off'}"
    gpus = f" × {plan.gpus} GPUs" if plan.gpus > 1 else ""
    return [
        models,
        f"{plan.gpus} × {gpu} of {plan.gpu_bytes / GB:.0f} GB{nodes}, {zero}{offloaded}",
        f"micro-batch {plan.per_device_train_batch_size} × {plan.micro_batches} accumulated{gpus} = "
        f"{plan.rollouts} {rows} of {texts} per update, {checkpointing}",
        *([f"sampling by {sampled}"] if plan.task == "rl" else []),
        "",
    ]


def _table(plan: RunPlan, said: dict) -> list[str]:
    lines = [f"{'memory per GPU, GB':32}" + "".join(f"{phase:>10}" for phase in plan.phases)]
    for name, part in said["memory"].items():
        if not part["phases"]:
            continue
        cells = (f"{part['bytes'] / GB:10.1f}" if phase in part["phases"] else f"{'–':>10}" for phase in plan.phases)
        lines.append(f"  {name:30}" + "".join(cells))
    lines.append(f"  {'total':30}" + "".join(f"{said['peak'][phase] / GB:10.1f}" for phase in plan.phases))
    return lines


def _host(parts: dict[str, int]) -> list[str]:
    if not parts:
        return []
    listed = ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items())
    return [f"host memory per node, GB: {sum(parts.values()) / GB:.1f} ({listed})"]


def _verdict(plan: RunPlan, said: dict) -> list[str]:
    size = f"{plan.gpu_bytes / GB:.0f} GB"
    if said["fits"]:
        return [*_host(said["host_memory_per_node"]), f"fits in {size}."]
    if not said["rollouts_in_cache"]:
        reason = "vLLM's share holds the weights but not one rollout"
    else:
        reason = f"{max(said['peak'].values()) / GB:.1f} GB wanted, most of it {largest_part(plan)}"
    if said["fix"] is None:
        return [f"does not fit in {size} ({reason}); no setting here makes it fit: more GPUs or a smaller model."]
    peak = max(said["peak_when_fixed"].values()) / GB
    changes = [f"  {name}" for name in said["fix"]]
    return [
        f"does not fit in {size} ({reason}). It does ({peak:.1f} GB) with:",
        *changes,
        *_host(said["host_memory_when_fixed"]),
    ]


def run(args: argparse.Namespace) -> None:
    """Print the plan."""
    plan, names = plan_of(args)
    said = summary(plan, names, args)
    if args.json:
        print(json.dumps(said, indent=1))
        return
    total = said["update_seconds"]
    changed = ", with these changes" if not said["fits"] and said["fix"] is not None else ""
    lines = [*_head(plan, names, args.gpu), *_table(plan, said), *_verdict(plan, said)]
    lines += ["", f"{'seconds per update' + changed:32}{total:10.1f}"]
    lines += [f"  {name:30}{seconds:10.1f}" for name, seconds in said["seconds"].items()]
    if plan.asynchronous:
        lines.append(f"the longer of {' + '.join(BESIDE_TRAINING)} and all others: they overlap, on other GPUs.")
    if said["judge"]["read"]:
        cost = f", {said['judge']['price']:.2f} by the prices given" if args.judge_price else ""
        lines.append(f"judge: {said['judge']['read']:,} tokens read, {said['judge']['written']:,} written{cost}.")
    shares = f"{args.training_share:.0%} of peak FLOP/s in training"
    if plan.task == "rl":
        shares += f", {Efficiency.scoring:.0%} in scoring, {args.decoding_share:.0%} of memory bandwidth in decoding"
    longest = "; texts at the longest the recipe allows" if args.config else ""
    lines.append(f"assumed: {shares}, communication not overlapped{longest}.")
    if other := in_place_of_weights(names.get("prm")):
        lines.append(f"not planned: {other[1]}.")
    if plan.task == "rl" and plan.vllm == "none":
        lines.append(
            "transformers' generate launches each layer from Python and takes several times as long as this bound."
        )
    print("\n".join(lines))
