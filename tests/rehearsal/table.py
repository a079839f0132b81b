"""Which configs are rehearsed, and all that is overridden in them: names, device, sizes. The rest is as shipped."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "recipes" / "configs"
UPDATES = 3
CUT = 2  # the run is resumed from the checkpoint after this update, as if it had been killed then

ON_A_CPU = {"use_cpu": True}
EVERY_UPDATE = {"save_steps": 1, "logging_steps": 1}
# `{…}` are folders and files that published.py makes.
RL = {
    **ON_A_CPU,
    **EVERY_UPDATE,
    "prm": "{prm}",
    "dataset": "{math}/train",
    "eval_dataset": "{math}/test",
    "max_completion_length": 16,
    "eval_every": 1,
    "eval_every_limit": 8,
    "use_vllm": False,
    "method": "immediate",  # a random policy is never right, so the default method would trust no PRM and learn nothing
}
SMOKE = {"save_strategy": "steps", "eval_every": 1, "eval_every_limit": 8, "max_completion_length": 16}
# What a launch file for GPUs is changed in.
TWO_ON_A_CPU = {"num_processes": 2, "num_machines": 1, "use_cpu": True}


@dataclass(frozen=True)
class Rehearsal:
    """One config on one kind of launch.

    Args:
        config: stem of the file in recipes/configs. Its first line is the command that is run.
        overrides: argument → value, appended to that command.
        launch: what replaces keys of the launch file that the command names.
        launch_file: a stem of recipes/accelerate in place of what the command names.
        script: a script that runs the command's recipe, in place of the recipe.
        calls: whether some rollouts begin with a call of a tool (``calls.py``), as a tiny policy makes none.
        launches: how many of the two runs are started as the command says; the others run in the test's process, which
            has imported everything. The launcher adds nothing to one process but its environment.
        processes: that it must run on.
        zero3: whether it must run under DeepSpeed's stage 3.
        slow: longer than a minute on an idle core.
    """

    config: str
    overrides: dict[str, Any]
    launch: dict[str, Any] = field(default_factory=dict)
    launch_file: str | None = None
    script: str | None = None
    calls: bool = False
    launches: int = 2
    processes: int = 1
    zero3: bool = False
    slow: bool = False

    @property
    def path(self) -> Path:
        return CONFIGS / f"{self.config}.yaml"

    @property
    def name(self) -> str:
        return f"{self.config}-{self.launch_file}" if self.launch_file else self.config


ONE_GPU_GRPO = Rehearsal("qwen2.5-math-1.5b_prm-7b", RL | {"model_name_or_path": "{tied_policy}"}, launches=0)
GSM8K = Rehearsal(
    "qwen2.5-1.5b_gsm8k",
    RL
    | {"model_name_or_path": "{tied_policy}", "baseline": "none", "dataset_config": "none"}
    | {"dataset": "{gsm8k}/train", "eval_dataset": "{gsm8k}/test"},
    launches=1,
    slow=True,  # but for its data, which tests/runs/test_load_prompts.py reads, and the launch it is the one before
)
PYTHON = Rehearsal(
    "qwen3-1.7b_python",
    RL | {"model_name_or_path": "{qwen3}", "max_completion_length": 128},  # room for a call and its result
    calls=True,
    launches=0,
    slow=True,  # two minutes: 128 prompts with a tool's description; tests/runs/test_tools_recipe.py is the fast one
)
GRPO_7B = Rehearsal(
    "qwen2.5-math-7b_prm-7b_zero3",
    RL | {"model_name_or_path": "{policy}"},
    launch=TWO_ON_A_CPU,
    processes=2,
    zero3=True,
    slow=True,
)
PRM_7B = Rehearsal(
    "train_prm_qwen2.5-math-7b",
    ON_A_CPU
    | EVERY_UPDATE
    | {"model_name_or_path": "{policy}", "train_data": "{labels}", "eval_steps": 1, "warmup_steps": 1}
    | {"dataset_num_proc": 1},
    launch=TWO_ON_A_CPU,
    processes=2,
    zero3=True,
    slow=True,
)
PRM_LORA = Rehearsal(
    "train_prm_qwen2.5-math-7b_lora",
    ON_A_CPU | EVERY_UPDATE | {"model_name_or_path": "{policy}", "train_data": "{soft_labels}", "head_updates": 1},
    launches=0,
)
PPO_MODELS = {"model_name_or_path": "{tied_policy}", "prm": "{prm}", "baseline": "none"}
PPO = Rehearsal("ppo_gsm8k_smoke", SMOKE | EVERY_UPDATE | PPO_MODELS, launches=0)
PPO_DDP = Rehearsal(PPO.config, PPO.overrides, launch_file="cpu_ddp", processes=2, slow=True)
PPO_TWO_NODES = Rehearsal(
    PPO.config,
    # The launch file computes in bfloat16, the config is for a CPU.
    PPO.overrides | {"prm_placement": "zero3", "model_name_or_path": "{policy}", "bf16": True},
    launch_file="zero3_2x8",
    launch=TWO_ON_A_CPU,
    processes=2,
    zero3=True,
    slow=True,
)

COLOCATE = Rehearsal(  # with `make test-vllm` only; vLLM on a CPU has no sleep mode
    ONE_GPU_GRPO.config,
    {name: value for name, value in ONE_GPU_GRPO.overrides.items() if name != "use_vllm"}
    | {"vllm_enable_sleep_mode": False, "vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 1024},
    script="tests/rehearsal/vllm_on_a_cpu.py",
)

REINFORCEMENT = [ONE_GPU_GRPO, GSM8K, PYTHON, PPO, GRPO_7B, PPO_DDP, PPO_TWO_NODES]
REWARD_MODELS = [PRM_LORA, PRM_7B]
