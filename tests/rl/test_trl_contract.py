"""The seam with TRL: fails loudly when TRL moves what the trainer stands on."""

import ast
import importlib
import inspect
import textwrap
from functools import cache
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from packaging.requirements import Requirement
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

from rlhf_prm.prm_training.trainer import PRMTrainer
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.rl.trl_names import SEAM
from rlhf_prm.rl.trl_seam import loss_setting
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

ROOMS = ("rl", "guard", "runs", "prm_training")
PACKAGE = Path(inspect.getfile(ProcessGRPOTrainer)).parents[1]
LIBRARIES = (GRPOTrainer, GRPOConfig, VLLMGeneration, LambdaLR, Accelerator, TrainerCallback)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def private_names(owner: type) -> frozenset[str]:
    """Private methods and attributes of a class and of its bases, by their source."""
    names = {name for name in dir(owner) if private(name)}
    for base in owner.__mro__:
        if base is object or base.__module__ in ("abc", "typing"):
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                names.add(node.attr)
    return frozenset(name for name in names if private(name))


@cache
def librarys_private_names() -> frozenset[str]:
    return frozenset().union(*(private_names(owner) for owner in LIBRARIES))


def test_trl_is_the_pinned_minor_version():
    wanted = next(Requirement(line) for line in requires("rlhf-prm") if Requirement(line).name == "trl")
    assert version("trl") in wanted.specifier and "1.17" not in wanted.specifier


@pytest.mark.parametrize("entry", SEAM, ids=lambda entry: entry.name)
def test_every_name_of_the_seam_is_where_it_is_said_to_be(entry):
    module, _, owner = entry.owner.rpartition(".")
    owner = getattr(importlib.import_module(module), owner)
    assert entry.name in (private_names(owner) if isinstance(owner, type) else vars(owner)), entry.owner
    assert entry.kind in ("overridden", "used") and entry.reason and entry.breaks


def test_each_name_is_there_once():
    assert len({entry.name for entry in SEAM}) == len(SEAM)


def test_exactly_the_private_methods_of_the_seam_are_overridden():
    """A name of ours that a library has too would replace the library's without a word."""
    ours = (ProcessGRPOTrainer, ProcessPPOTrainer, PRMTrainer, ProcessGRPOConfig, ProcessPPOConfig)
    overridden = {name for one in ours for name in vars(one) if private(name) and name in librarys_private_names()}
    assert overridden == {entry.name for entry in SEAM if entry.kind == "overridden"}


def test_the_public_methods_that_grpo_overrides():
    inherited = set(dir(GRPOTrainer))
    assert {n for n in vars(ProcessGRPOTrainer) if n in inherited and not n.startswith("_")} == {"get_off_policy_mask"}


def test_no_other_file_touches_a_private_name_of_a_library():
    """As an attribute of anything, or as a text that getattr or setattr could be given."""
    overridden = {entry.name for entry in SEAM if entry.kind == "overridden"}
    found = []
    for path in (path for room in ROOMS for path in sorted((PACKAGE / room).rglob("*.py"))):
        if path.name in ("trl_seam.py", "trl_names.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in librarys_private_names():
                through_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
                of_the_config = node.attr == "_VALID_DICT_FIELDS"
                if not (node.attr in overridden and (through_super or of_the_config)):
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.attr}")
            elif isinstance(node, ast.Constant) and node.value in librarys_private_names():
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.value!r}")
    assert found == []


def test_the_seam_touches_no_name_that_it_does_not_list():
    source = (PACKAGE / "rl" / "trl_seam.py").read_text()
    touched = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert {name for name in touched if private(name)} <= {entry.name for entry in SEAM}
    used = {entry.name for entry in SEAM if entry.kind == "used"}
    code = source[source.index("# --- logging") :]
    assert {name for name in used if name not in code} == set()  # a name that nothing uses is no seam


def test_a_setting_of_the_loss_comes_back_after_an_error():
    class Trainer:
        beta = 0.04

    trainer = Trainer()
    with pytest.raises(RuntimeError), loss_setting(trainer, "beta", 0.0):
        assert trainer.beta == 0.0
        raise RuntimeError
    assert trainer.beta == 0.04


def test_signatures_of_the_overridden_methods():
    parameters = list(inspect.signature(GRPOTrainer._calculate_rewards).parameters)
    assert parameters == ["self", "inputs", "prompts", "completions", "completion_ids_list"]
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    assert list(inspect.signature(GRPOTrainer._save_checkpoint).parameters) == ["self", "model", "trial"]
    assert list(inspect.signature(GRPOTrainer._load_optimizer_and_scheduler).parameters) == ["self", "checkpoint"]


class Recorder(GRPOTrainer):
    """Plain TRL; remembers what its two methods give."""

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.seen_rewards, self.seen_ids = rewards, completion_ids_list
        return rewards

    def _generate_and_score_completions(self, inputs):
        self.seen_output = super()._generate_and_score_completions(inputs)
        self.logged = len(self._logs["advantages"])
        return self.seen_output


def one_update(trainer_class, folder, **arguments):
    config = tiny_config(folder, max_steps=1)
    arguments.setdefault("reward_funcs", lambda completions, **_: [float(len(c)) for c in completions])
    trainer = trainer_class(
        model=tiny_policy(), args=config, train_dataset=tiny_dataset(8), processing_class=tiny_tokenizer(), **arguments
    )
    trainer.train()
    return trainer


def test_what_trl_hands_over(tmp_path):
    """One row per completion on this rank, gathered rewards (B, functions), unpadded ids, tensors in the output."""
    trainer = one_update(Recorder, tmp_path)
    output = trainer.seen_output
    assert trainer.seen_rewards.shape == (8, 1) and len(trainer.seen_ids) == 8
    assert output["advantages"].shape == (8,) and trainer.logged == 8
    lengths = output["completion_mask"].sum(1).tolist()
    assert lengths == [len(ids) for ids in trainer.seen_ids]
    for row, ids in enumerate(trainer.seen_ids):
        assert output["completion_ids"][row, : len(ids)].tolist() == ids
    for name in ("reward_weights", "num_generations", "num_generations_eval"):
        assert hasattr(trainer, name), name
    for name in ("_pending_extra_logs", "_pending_metrics"):
        assert isinstance(getattr(trainer, name), dict), name
    assert {"advantages", "extra", "prompt", "completion"} <= set(trainer._logs)


def test_what_a_rollback_makes_trl_forget():
    """It samples where the buffer is None, and sends vLLM the weights where they are not of this update."""
    prepare = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "or self._buffered_inputs is None" in prepare
    for method in (GRPOTrainer._generate, GRPOTrainer._generate_single_turn):
        assert "self.state.global_step != self._last_loaded_step" in inspect.getsource(method)


def test_the_loss_takes_token_advantages(tmp_path):
    """Other advantages on the tokens of one step must change the gradient, those on padding must not."""

    def gradients(scale_first: float, on_padding: float) -> torch.Tensor:
        class Scaled(ProcessGRPOTrainer):
            def _generate_and_score_completions(self, inputs):
                output = super()._generate_and_score_completions(inputs)
                advantages = output["advantages"]
                assert advantages.shape == output["completion_mask"].shape
                scale = torch.ones_like(advantages)
                scale[:, 0] = scale_first
                output["advantages"] = advantages * scale + on_padding * (1 - output["completion_mask"])
                return output

        policy = tiny_policy()
        config = tiny_config(tmp_path, max_steps=1, learning_rate=0.0, max_grad_norm=1e9)
        trainer = Scaled(
            model=policy,
            args=config,
            train_dataset=tiny_dataset(8),
            processing_class=tiny_tokenizer(),
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
        )
        trainer.train()
        return torch.tensor([log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log])

    plain = gradients(1.0, 0.0)
    assert torch.equal(plain, gradients(1.0, 5.0))
    assert not torch.allclose(plain, gradients(-3.0, 0.0))
