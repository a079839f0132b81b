"""A plan from a recipe's YAML and the accelerate config it is launched with, without importing a trainer."""

from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_prm.plan.memory import PRM_TOKENS
from rlhf_prm.plan.shapes import ModelShape, lora_parameters, model_shape
from rlhf_prm.settings import read_mapping

# The trainers' defaults (a test compares them with the configs' own defaults).
RL_DEFAULTS = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 512,
    "gradient_checkpointing": True,
    "use_vllm": False,
    "vllm_mode": "colocate",
    "vllm_gpu_memory_utilization": 0.3,
    "vllm_enable_sleep_mode": False,
    "num_iterations": 1,
    "beta": 0.0,
}
PPO_DEFAULTS = RL_DEFAULTS | {"critic": "own", "num_iterations": 1}
PRM_DEFAULTS = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_length": 4096,
    "gradient_checkpointing": False,
}
CRITICS = {"own": "own", "shared": "shared", "detached": "shared"}  # a detached head uses the policy's trunk too
LIVE_VALUES, JUDGE = "vine", "judge:"  # a `prm` without a model, and the prefix of one on other machines
Settings = dict[str, Any]


def launch_settings(name: str) -> Settings:
    """GPUs, nodes and ZeRO of an accelerate config: a file, or the name of one of TRL's (``zero3``)."""
    path, trl = Path(name), find_spec("trl")
    if not path.is_file() and trl is not None and trl.submodule_search_locations:
        path = Path(trl.submodule_search_locations[0]) / "accelerate_configs" / f"{name}.yaml"
    launch = read_mapping(path if path.is_file() else name)
    kind = str(launch.get("distributed_type", "NO"))
    if kind not in ("NO", "MULTI_GPU", "DEEPSPEED"):
        raise ValueError(f"{name}: distributed_type {kind} is not planned; expected NO, MULTI_GPU or DEEPSPEED")
    deepspeed = launch.get("deepspeed_config") or {}
    if "deepspeed_config_file" in deepspeed:
        raise ValueError(f"{name}: names a DeepSpeed file of its own; give --zero and --offload-optimizer instead")
    return {
        "gpus": int(launch.get("num_processes", 1)),
        "nodes": int(launch.get("num_machines", 1)),
        "zero": int(deepspeed.get("zero_stage", 2)) if kind == "DEEPSPEED" else 0,
        "offload_optimizer": str(deepspeed.get("offload_optimizer_device", "none")) != "none",
    }


def recipe_settings(path: str | Path, gpus: int) -> tuple[Settings, dict[str, str]]:
    """The fields of ``RunPlan`` that a recipe determines, and the names of its models.

    Texts are taken at the longest that the recipe allows, because the largest micro-batch decides whether a run fits.

    Raises:
        ValueError: the file is missing, or the recipe builds its models itself.
    """
    given = read_mapping(path)
    name = given.get("model_name_or_path")
    if not name or name == "tiny-random":
        raise ValueError(
            f"{path}: model_name_or_path is {name!r}: this recipe builds small models itself, no plan needed"
        )
    if OF_PAIRS.intersection(given):
        raise ValueError(f"{path}: got settings of train_pairs.py, which cannot be planned; expected another recipe's")
    if "train_data" in given:
        return _prm_settings(given, gpus), {"policy": name}
    return _rl_settings(given, gpus)


OF_PAIRS = {"train_samples", "similarity", "constants", "betas", "encoder"}


def _of_ppo_alone() -> set[str]:
    """The settings that a PPO run has and a GRPO run has not."""
    from rlhf_prm.rl.config import ProcessGRPOConfig
    from rlhf_prm.rl.ppo_config import ProcessPPOConfig

    return {field.name for field in fields(ProcessPPOConfig)} - {field.name for field in fields(ProcessGRPOConfig)}


def _prm_settings(given: Settings, gpus: int) -> Settings:
    settings = PRM_DEFAULTS | given
    shape = model_shape(settings["model_name_or_path"])
    return _micro_batches(settings, gpus) | {
        "task": "prm",
        "policy": shape,
        "prm": None,
        "vllm": "none",
        "prompt_tokens": 0,
        "completion_tokens": int(settings["max_length"] or PRM_DEFAULTS["max_length"]),
        "gradient_checkpointing": bool(settings["gradient_checkpointing"]),
        "adapter_parameters": _adapters(settings, shape),
        "frozen_bytes": _bytes((settings.get("model_init_kwargs") or {}).get("dtype")),
    }


def _rl_settings(given: Settings, gpus: int) -> tuple[Settings, dict[str, str]]:
    ppo = not _of_ppo_alone().isdisjoint(given)
    settings = (PPO_DEFAULTS if ppo else RL_DEFAULTS) | given
    shape, names = model_shape(settings["model_name_or_path"]), {"policy": settings["model_name_or_path"]}
    scorer, prm = _scorer(settings)
    if prm:
        names["prm"] = prm
    adapters = _adapters(settings, shape)
    if "vllm_server_base_url" in given:  # AsyncGRPO, whose rollouts are sampled and scored on other GPUs
        settings |= {"use_vllm": True, "vllm_mode": "server", "prm_placement": "server", "asynchronous": True}
    return _micro_batches(settings, gpus) | {
        "policy": shape,
        "asynchronous": settings.get("asynchronous", False),
        "prm": prm_shape(prm),
        "scorer": scorer,
        "prm_refresh": bool(settings.get("prm_refresh")),
        "critic": CRITICS[settings["critic"]] if ppo else "none",
        "reference": settings["beta"] > 0 and not adapters,  # with adapters the reference is the frozen policy itself
        "prm_placement": settings.get("prm_placement", "replicate"),
        "prm_tokens": (settings.get("prm_kwargs") or {}).get("max_batch_tokens") or PRM_TOKENS,
        "vllm": settings["vllm_mode"] if settings["use_vllm"] else "none",
        "completion_tokens": int(settings["max_completion_length"]),
        "adapter_parameters": adapters,
        "frozen_bytes": _bytes(settings.get("dtype")),
        **{
            key: settings[key]
            for key in (
                "vllm_gpu_memory_utilization",
                "vllm_enable_sleep_mode",
                "gradient_checkpointing",
                "num_iterations",
            )
        },
    }, names


def prm_shape(name: str | None) -> ModelShape | None:
    """The shape of a PRM; None if a run has no PRM, or a scorer without weights on these GPUs."""
    return model_shape(name) if name and in_place_of_weights(name) is None else None


def in_place_of_weights(prm: str | None) -> tuple[str, str] | None:
    """For a scorer without weights on these GPUs, its name and what the plan leaves out of it. None for a model."""
    if prm == LIVE_VALUES:
        left_out = "the completions of live values, several times the rollouts' sampling, and their cache"
        return "live Monte-Carlo values", left_out
    if prm is not None and prm.startswith(JUDGE):
        left_out = "the judge, which writes beside this on the machines of its endpoint; the update waits for it"
        return f"judge {prm.removeprefix(JUDGE)}", left_out
    return None


def _scorer(settings: Settings) -> tuple[str, str | None]:
    """(``RunPlan.scorer``, the model that scores or what is in its place; None: no weights in these GPUs)

    Raises:
        ValueError: a judge that would run in the training process.
    """
    kind, _, name = str(settings.get("prm") or "").partition(":")
    options = settings.get("prm_kwargs") or {}
    if f"{kind}:" == JUDGE and not options.get("endpoint"):
        raise ValueError(
            f"prm: got {settings['prm']!r} without an endpoint in prm_kwargs: a judge that writes in the training "
            "process is not planned; expected the URL of a server"
        )
    if kind == "teacher":
        return "frozen", None if "endpoint" in options else name
    if kind == "self":
        return "frozen", settings["model_name_or_path"]
    if kind == "implicit" and "lora" in options:
        return "adapter", None if options.get("base") == "policy" else name or settings["model_name_or_path"]
    if kind == "implicit":
        return "implicit", name or settings["model_name_or_path"]
    return "prm", settings.get("prm")


def _micro_batches(settings: Settings, gpus: int) -> Settings:
    rows = int(settings["per_device_train_batch_size"])
    return {
        "per_device_train_batch_size": rows,
        "rollouts": rows * int(settings["gradient_accumulation_steps"]) * gpus,
    }


def _bytes(dtype: str | None) -> int:
    """Bytes of a weight; the trainers load float32 by default."""
    return 2 if dtype in ("bfloat16", "float16") else 4


def _adapters(settings: Settings, shape: ModelShape) -> int:
    """Parameters of the LoRA adapters; 0 if all weights are trained."""
    if not settings.get("use_peft"):
        return 0
    return lora_parameters(shape, int(settings.get("lora_r", 16)), settings.get("lora_target_modules") or "all-linear")
