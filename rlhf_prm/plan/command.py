"""``rlhf-prm plan``: memory per GPU by part, seconds per update by part, and what to change when it does not fit."""

import argparse
import json

from rlhf_prm.plan.fixes import largest_part, smallest_fix
from rlhf_prm.plan.memory import GB, PHASES, PLACEMENTS, RunPlan, fits, kv_cache_room, memory_by_part, peak_bytes
from rlhf_prm.plan.shapes import model_shape
from rlhf_prm.plan.timing import GPUS, Efficiency, seconds_by_part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options carry the names that TRL and the configs use, where there is one."""
    default = {name: field.default for name, field in RunPlan.__dataclass_fields__.items()}
    parser.add_argument("--policy", default="7B", help='"1.5B", "7B", … (Qwen2.5) or a folder or Hub name')
    parser.add_argument("--prm", default="7B", help='the same, or "none"')
    parser.add_argument("--gpu", default="h100", choices=sorted(GPUS), help="kind of GPU")
    parser.add_argument("--gpu-memory", type=float, help="GB per GPU, where it differs from the kind's")
    parser.add_argument("--zero", type=int, default=3, choices=(0, 1, 2, 3), help="ZeRO stage; 0 = DDP")
    parser.add_argument("--critic", default="none", choices=("none", "own", "shared"), help="PPO's critic; none = GRPO")
    parser.add_argument("--prm-placement", default="replicate", choices=PLACEMENTS)
    parser.add_argument("--vllm", default="colocate", choices=("colocate", "server", "none"))
    for name in ("gpus", "nodes", "prm_tokens", "rollouts", "prompt_tokens", "completion_tokens"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default[name])
    for name in ("per_device_train_batch_size", "num_iterations"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default[name])
    parser.add_argument("--vllm-gpu-memory-utilization", type=float, default=default["vllm_gpu_memory_utilization"])
    for name in ("offload_optimizer", "reference", "vllm_enable_sleep_mode", "gradient_checkpointing"):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default[name])
    parser.add_argument("--training-share", type=float, default=Efficiency.training, help="of peak FLOP/s in training")
    parser.add_argument("--decoding-share", type=float, default=Efficiency.decoding, help="of memory bandwidth")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")


def plan_of(args: argparse.Namespace) -> RunPlan:
    """The plan that the command line describes."""
    named = {name: getattr(args, name) for name in RunPlan.__dataclass_fields__ if hasattr(args, name)}
    named["policy"] = model_shape(args.policy)
    named["prm"] = None if args.prm == "none" else model_shape(args.prm)
    named["gpu_bytes"] = int(args.gpu_memory * GB) if args.gpu_memory else GPUS[args.gpu].memory_bytes
    return RunPlan(**named)


def summary(plan: RunPlan, args: argparse.Namespace) -> dict:
    """Everything the command says, as plain numbers."""
    share = Efficiency(training=args.training_share, decoding=args.decoding_share)
    fix = smallest_fix(plan)
    return {
        "fits": fits(plan),
        "gpu_bytes": plan.gpu_bytes,
        "memory": {
            name: {"bytes": size, "phases": list(phases)} for name, (size, phases) in memory_by_part(plan).items()
        },
        "peak": peak_bytes(plan),
        "rollouts_in_cache": kv_cache_room(plan),
        "seconds": seconds_by_part(fix[1] if fix else plan, GPUS[args.gpu], share),
        "fix": None if fix is None else fix[0],
        "peak_when_fixed": None if fix is None else peak_bytes(fix[1]),
    }


def _table(plan: RunPlan, said: dict) -> list[str]:
    lines = [f"{'memory per GPU, GB':32}" + "".join(f"{phase:>10}" for phase in PHASES)]
    for name, part in said["memory"].items():
        cells = (f"{part['bytes'] / GB:10.1f}" if phase in part["phases"] else f"{'–':>10}" for phase in PHASES)
        lines.append(f"  {name:30}" + "".join(cells))
    lines.append(f"  {'total':30}" + "".join(f"{said['peak'][phase] / GB:10.1f}" for phase in PHASES))
    return lines


def _verdict(plan: RunPlan, said: dict) -> list[str]:
    size = f"{plan.gpu_bytes / GB:.0f} GB"
    if said["fits"]:
        return [f"fits in {size}."]
    if not said["rollouts_in_cache"]:
        reason = "vLLM's share holds the weights but not one rollout"
    else:
        reason = f"{max(said['peak'].values()) / GB:.1f} GB wanted, most of it {largest_part(plan)}"
    if said["fix"] is None:
        return [f"does not fit in {size} ({reason}); no setting here makes it fit: more GPUs or a smaller model."]
    peak = max(said["peak_when_fixed"].values()) / GB
    return [f"does not fit in {size} ({reason}). It does ({peak:.1f} GB) with:"] + [f"  {name}" for name in said["fix"]]


def run(args: argparse.Namespace) -> None:
    """Print the plan."""
    plan = plan_of(args)
    said = summary(plan, args)
    if args.json:
        print(json.dumps(said, indent=1))
        return
    total = sum(said["seconds"].values())
    changed = "" if said["fits"] or said["fix"] is None else ", with these changes"
    size = f"({plan.rollouts} rollouts × {plan.tokens} tokens{changed})"
    lines = [*_table(plan, said), *_verdict(plan, said), "", f"{'seconds per update':32}{total:10.1f}   {size}"]
    lines += [f"  {name:30}{seconds:10.1f}" for name, seconds in said["seconds"].items()]
    lines.append(
        f"assumed: {args.training_share:.0%} of peak FLOP/s in training, {Efficiency.scoring:.0%} in scoring, "
        f"{args.decoding_share:.0%} of memory bandwidth in decoding, communication not overlapped."
    )
    print("\n".join(lines))
