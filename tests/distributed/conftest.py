"""Two ranks are launched once per config and test session; the tests look at what they left behind."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import trl
import yaml
from safetensors.torch import load_file, save_file

from tests.distributed.implicit_run import models_in
from tests.distributed.launch import Finished, free_port, launch, rank_results
from tests.prm import prm_checkpoints
from tests.prm_training.conftest import language_model, untrained_prm
from tests.tiny import tiny_policy

SCRIPT, FSDP2_SCRIPT = "tests/distributed/ranks.py", "tests/distributed/fsdp2_run.py"
TRAINED = "grpo,ppo,grpo-resume,ppo-resume,ppo-sampled,grpo-live,grpo-tokens,ppo-tokens,grpo-turns,ppo-turns"
TRAINED += ",grpo-tools,ppo-tools,grpo-implicit"
ROLLED_BACK = "grpo-0,grpo-2,ppo-2,lora-2,memory-2,reuse-1,guard"
DEADLINE = 1200  # seconds; a launch takes about one minute on an idle machine
WORLD = {"train_problems": 40, "eval_problems": 200, "labelled_solutions": 20, "mc_completions": 2}
WORLD |= {"sft_updates": 3, "sft_batch": 32, "prm_updates": 2, "prm_batch": 16, "label_source": "gold"}


@dataclass(frozen=True)
class Checkpoints:
    """What the ranks load.

    Args:
        prms: a folder of PRMs; ``small`` is one that learns along.
        language_model: what a PRM is trained from.
        implicit: a folder of the two models of an implicit PRM.
        world: the settings of a world.
    """

    prms: Path
    language_model: Path
    implicit: Path
    world: Path


@dataclass(frozen=True)
class Launched:
    """What two ranks left: the folder of each job, and how the launch ended."""

    folder: Path
    finished: Finished

    def results(self, job: str) -> list[dict]:
        """What each rank wrote about the job."""
        return rank_results(self.folder / job, self.finished)


def fsdp2_config(folder: Path) -> Path:
    """TRL's own launch config for FSDP2, for two processes on a CPU."""
    settings = yaml.safe_load((Path(trl.__path__[0]) / "accelerate_configs" / "fsdp2.yaml").read_text())
    path = folder / "fsdp2.yaml"
    path.write_text(yaml.safe_dump(settings | {"num_processes": 2, "use_cpu": True, "mixed_precision": "no"}))
    return path


def jobs_of(config: str, checkpoints: Checkpoints) -> list[str]:
    """What two ranks do under a config: a short training first, which imports the rest; the job that fails last."""
    if config == "fsdp2":
        return [f"scripted:{TRAINED}"]
    zero, training = "zero" in config, f"prm_training:{checkpoints.language_model}"
    more = ",grpo-prm,ppo-prm" * zero + ",grpo-beside" * (config != "cpu_zero3")
    jobs = [training, f"scripted:{TRAINED}{more}", f"rollback:{ROLLED_BACK}"]
    if config == "cpu_ddp":
        refresh, implicit = f"refresh:{checkpoints.prms / 'small'}", f"implicit:{checkpoints.implicit}"
        jobs += [refresh, implicit, f"world:{checkpoints.world}"]
    if config == "cpu_zero3":
        jobs += [f"sharded_prm:{checkpoints.prms}", "failing"]
    return jobs


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Checkpoints:
    root = tmp_path_factory.mktemp("checkpoints")
    prms = {
        "qwen": prm_checkpoints.qwen_prm,
        "shepherd": prm_checkpoints.math_shepherd,
        "policy": prm_checkpoints.implicit,
        "headless": prm_checkpoints.qwen_prm,
    }
    for name, build in prms.items():
        build(root / name)
    prm_checkpoints.implicit(root / "reference", seed=1)
    weights = load_file(root / "headless" / "model.safetensors")
    del weights["score.2.bias"]
    save_file(weights, root / "headless" / "model.safetensors", {"format": "pt"})
    untrained_prm(root / "small")
    for seed, model in enumerate(models_in(root / "two-models")):
        tiny_policy(seed=seed).save_pretrained(model)
    world = root / "world.json"
    world.write_text(json.dumps(WORLD))
    return Checkpoints(root, language_model(root / "language-model"), root / "two-models", world)


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory, checkpoints):
    """``two_ranks(config)``: everything the tests want of two ranks under that config."""
    launched: dict[str, Launched] = {}

    def only_here(config: str) -> None:
        """Fails where another process of the same session has launched it, for nothing but time tells of that."""
        if "PYTEST_XDIST_WORKER" in os.environ:
            (tmp_path_factory.getbasetemp().parent / f"launched-{config}").touch(exist_ok=False)

    def ranks(config: str) -> Launched:
        if config not in launched:
            only_here(config)
            folder = tmp_path_factory.mktemp(config)
            file, script = (fsdp2_config(folder), FSDP2_SCRIPT) if config == "fsdp2" else (config, SCRIPT)
            jobs, port = jobs_of(config, checkpoints), free_port()
            environment = {"TEST_PRM": str(checkpoints.prms / "qwen"), "TEST_IMPLICIT": str(checkpoints.implicit)}
            environment["TORCHDYNAMO_DISABLE"] = "1"  # else DeepSpeed imports the compiler for an optimizer of its own
            finished = launch(file, script, str(folder), *jobs, port=port, deadline=DEADLINE, **environment)
            launched[config] = Launched(folder, finished)
        return launched[config]

    return ranks
