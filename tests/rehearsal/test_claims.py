"""What the GPU configs say of themselves in their first lines, and the Slurm script's command line."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import trl
import yaml
from accelerate.commands.launch import launch_command_parser

from rlhf_prm.cli import main
from tests.rehearsal.runner import command_of
from tests.rehearsal.table import CONFIGS, REINFORCEMENT, REWARD_MODELS, ROOT

GPU_CONFIGS = [
    path for path in sorted(CONFIGS.glob("*.yaml")) if re.search(r"^# Hardware: .*GPU", path.read_text(), re.M)
]
ASYNC = CONFIGS / "async_qwen2.5-math-1.5b_prm-7b.yaml"  # rehearsed in tests/runs/test_async_recipe.py
UPDATE = r"# One update: (\d+) per device × (\d+) accumulated × (\d+) GPUs? = (\d+) (rollouts|solutions)"
SLURM = ROOT / "recipes" / "slurm" / "train_2x8.sh"
PLAN = "# Memory: rlhf-prm "


def test_every_gpu_config_is_rehearsed():
    rehearsed = {rehearsal.config for rehearsal in (*REINFORCEMENT, *REWARD_MODELS)}
    assert len(GPU_CONFIGS) == 7 and {path.stem for path in GPU_CONFIGS} - {ASYNC.stem} <= rehearsed
    big = {path.stem for path in CONFIGS.glob("*.yaml") if "qwen" in path.stem}  # none forgets to name its hardware
    assert big == {path.stem for path in GPU_CONFIGS}


@pytest.mark.parametrize("path", GPU_CONFIGS, ids=lambda path: path.stem)
def test_batch_arithmetic(path):
    """The rollouts or solutions of an update, as the config says them, follow from its values and its launch file's."""
    settings, command = yaml.safe_load(path.read_text()), command_of(path)
    said = re.search(UPDATE, path.read_text())
    per_device, accumulated, gpus, rows = map(int, said.groups()[:4])
    launched = yaml.safe_load(command.launch_file.read_text())["num_processes"] if command.launch_file else 1
    assert (per_device, accumulated, gpus) == (
        settings["per_device_train_batch_size"],
        settings["gradient_accumulation_steps"],
        launched,
    )
    assert rows == per_device * accumulated * gpus
    if said[5] == "rollouts":
        group = settings["num_generations"]
        assert f"{rows} rollouts, {group} each of {rows // group} problems" in path.read_text()
        assert rows % group == 0


@pytest.mark.parametrize("path", [p for p in GPU_CONFIGS if PLAN in p.read_text()], ids=lambda path: path.stem)
def test_the_plan_is_of_this_config_and_fits(path, capsys):
    settings = yaml.safe_load(path.read_text())
    line = next(line for line in path.read_text().splitlines() if line.startswith(PLAN))
    arguments = shlex.split(line.removeprefix(PLAN))
    given = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    rows = int(re.search(UPDATE, path.read_text())[4])
    launched = command_of(path).launch_file
    stage = yaml.safe_load(launched.read_text())["deepspeed_config"]["zero_stage"] if launched else 0
    assert f"-{given['--policy'].lower()}-" in settings["model_name_or_path"].lower()
    assert settings["prm"].endswith(f"-{given['--prm']}")
    assert (int(given["--rollouts"]), int(given["--zero"])) == (rows, stage)
    assert given.get("--prm-placement", "replicate") == settings["prm_placement"]
    assert int(given["--per-device-train-batch-size"]) == settings["per_device_train_batch_size"]
    assert int(given["--completion-tokens"]) == settings["max_completion_length"]  # the most there can be
    assert float(given["--vllm-gpu-memory-utilization"]) == settings["vllm_gpu_memory_utilization"]
    assert settings["use_vllm"] and settings["vllm_mode"] == "colocate"
    assert ("--vllm-enable-sleep-mode" in arguments) == settings["vllm_enable_sleep_mode"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] and plan["gpu_bytes"] == 80e9
    if settings["dtype"] == "float32":
        assert stage == 0 and plan["rollouts_in_cache"] == rows  # float32 is for where no engine keeps copies


def test_slurm_starts_the_launcher_with_arguments_it_takes(tmp_path):
    """The script runs with stand-ins for scontrol, srun and accelerate; what reaches accelerate is parsed by it."""
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    for name, body in (
        ("scontrol", "echo node-a; echo node-b"),
        ("srun", 'shift; export SLURM_NODEID=1; exec "$@"'),
        ("accelerate", f"printf '%s\\n' \"$@\" > {tmp_path / 'told'}"),
    ):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    config = "recipes/configs/train_prm_qwen2.5-math-7b.yaml"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2"}
    wanted = ["recipes/train_prm.py", "--config", config, "--output_dir", "runs/with a blank"]
    subprocess.run(["bash", str(SLURM), *wanted], cwd=ROOT, env=environment, check=True)
    launch, *told = (tmp_path / "told").read_text().splitlines()
    assert launch == "launch"
    parsed = launch_command_parser().parse_args(told)
    assert (ROOT / parsed.config_file).is_file()
    assert (parsed.num_machines, parsed.num_processes, parsed.machine_rank) == (2, 16, 1)
    assert (parsed.main_process_ip, parsed.main_process_port) == ("node-a", 29500)
    assert [parsed.training_script, *parsed.training_script_args] == wanted


def test_launch_files_that_configs_name_are_there():
    for path in GPU_CONFIGS:
        command = command_of(path)
        assert (ROOT / command.recipe).is_file() and (ROOT / command.config) == path
        if command.launch_file:
            assert command.launch_file.is_file()
            assert Path(trl.__path__[0]) in command.launch_file.parents or ROOT in command.launch_file.parents
