"""Runs the command in a config's first line, with the table's overrides appended, as a user would; then resumes it."""

import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
import yaml
from trl import GRPOTrainer

from tests.distributed.launch import free_port, launch
from tests.rehearsal.calls import some_call
from tests.rehearsal.table import CUT, ROOT, UPDATES, Rehearsal

LAUNCHER = ("accelerate", "launch")


@dataclass(frozen=True)
class Command:
    """What the first line of a config says: a launch file or none, the recipe, the config."""

    launch_file: Path | None
    recipe: str
    config: str


def command_of(config: Path) -> Command:
    """The first line, its ``$(…)`` expanded by a shell.

    Raises:
        ValueError: it is not ``accelerate launch [--config_file FILE | --num_processes 1] RECIPE --config CONFIG``.
    """
    line = config.read_text().splitlines()[0].removeprefix("# ").split("   ")[0]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    told = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, env=environment, check=True)
    words = told.stdout.decode().splitlines()
    match words:
        case [*start, "--config_file", file, recipe, "--config", path] if tuple(start) == LAUNCHER:
            return Command(ROOT / file, recipe, path)
        case [*start, "--num_processes", "1", recipe, "--config", path] if tuple(start) == LAUNCHER:
            return Command(None, recipe, path)
        case [*start, recipe, "--config", path] if tuple(start) == LAUNCHER:
            return Command(None, recipe, path)
    raise ValueError(f"{config.name}: got {line!r}, expected `accelerate launch … recipes/X.py --config …`")


@dataclass(frozen=True)
class Done:
    """A run of ``UPDATES`` updates, and again from its checkpoint after ``CUT`` of them.

    ``start`` is the checkpoint that was trained; ``cut`` are the weights that were resumed from, ``whole`` those of the
    run that was not cut; ``output`` is what both printed.
    """

    rehearsal: Rehearsal
    folder: Path
    start: Path
    cut: dict[str, torch.Tensor]
    whole: dict[str, torch.Tensor]
    output: str

    @cached_property
    def yaml(self) -> dict[str, Any]:
        """The config as it is shipped."""
        return yaml.safe_load(self.rehearsal.path.read_text())

    @property
    def rows_per_update(self) -> int:
        """Per device × accumulation × processes, of the shipped values: no row overrides them."""
        per_device, accumulation = "per_device_train_batch_size", "gradient_accumulation_steps"
        assert not {per_device, accumulation} & self.rehearsal.overrides.keys()
        return self.yaml[per_device] * self.yaml.get(accumulation, 1) * self.rehearsal.processes

    def training_arguments(self, update: int) -> Any:
        """What the trainer was made with, from a checkpoint."""
        return torch.load(self.folder / f"checkpoint-{update}" / "training_args.bin", weights_only=False)


def rehearse(rehearsal: Rehearsal, made: dict[str, Path], folder: Path, deadline: float, **environment: str) -> Done:
    """Both runs, those that are launched within ``deadline`` seconds; fails with their output where one ends badly."""
    command = command_of(rehearsal.path)
    overrides = {name: str(value).format(**made) for name, value in rehearsal.overrides.items()}
    overrides |= {"output_dir": str(folder / "run")}
    overrides["max_steps"] = str(UPDATES)
    file, output, weights = _launch_file(rehearsal, command, folder), "", {}
    script = [*([rehearsal.script] if rehearsal.script else []), command.recipe, "--config", command.config]
    for number, more in enumerate(({}, {"resume_from_checkpoint": "true"})):
        arguments = [text for name, value in (overrides | more).items() for text in (f"--{name}", value)]
        if number < rehearsal.launches:
            finished = launch(file, *script, *arguments, port=free_port(), deadline=deadline, **environment)
            output += finished.output
            assert finished.code == 0, f"{rehearsal.name}, {more}: {finished.code}\n{finished.output[-6000:]}"
        else:
            words = ["--config", command.config, *arguments]
            output += in_this_process(command.recipe, words, page=bool(more), calls=rehearsal.calls)
        if not more:
            weights = {"cut": masters(folder / "run", CUT), "whole": masters(folder / "run", UPDATES)}
            shutil.rmtree(folder / "run" / f"checkpoint-{UPDATES}")
    return Done(rehearsal, folder / "run", Path(overrides["model_name_or_path"]), output=output, **weights)


def in_this_process(recipe: str, arguments: list[str], page: bool, calls: bool = False) -> str:
    """What a recipe prints that is run here as from the command line in the project's folder.

    Without ``page`` no page is drawn, where the resumed run draws it again.
    """
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [recipe, *arguments])
        if calls:
            patch.setattr(GRPOTrainer, "_generate_single_turn", some_call)
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the parser fills transformers' fields
        if not page:
            patch.setattr("rlhf_prm.runs.train.write_report", lambda folder: folder / "report.html")
        runpy.run_path(recipe, run_name="recipe")["main"]()
    return said.getvalue()


def _launch_file(rehearsal: Rehearsal, command: Command, folder: Path) -> Path | None:
    file = command.launch_file
    if rehearsal.launch_file:
        file = ROOT / "recipes" / "accelerate" / f"{rehearsal.launch_file}.yaml"
    if file is None or not rehearsal.launch:
        return file
    settings = yaml.safe_load(file.read_text())
    assert rehearsal.launch.keys() <= settings.keys(), f"{file.name} lacks what is overridden"
    folder.mkdir(parents=True, exist_ok=True)
    changed = folder / file.name
    changed.write_text(yaml.safe_dump(settings | rehearsal.launch))
    return changed


def masters(run: Path, update: int) -> dict[str, torch.Tensor]:
    """Name → what the optimizer steps: the float32 copies of DeepSpeed, or the weights of a checkpoint."""
    checkpoint = run / f"checkpoint-{update}"
    if (checkpoint / "zero_to_fp32.py").exists():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        return dict(get_fp32_state_dict_from_zero_checkpoint(str(checkpoint)))
    return saved_weights(checkpoint)


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files."""
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
