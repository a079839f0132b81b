"""Bad input: one error that names the fix, before anything long starts."""

import pytest

from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def build(folder, *, dataset=None, scorer=HashScorer, verifier=DigitVerifier, **settings):
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, **settings),
        train_dataset=dataset or tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        step_scorer=scorer and scorer(),
        verifier=verifier and verifier(),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "pured"}, "unknown method 'pured'.*outcome"),
        ({"method": "no.such.module.f"}, "cannot be imported"),
        ({"method_kwargs": {"proces_weight": 0.1}}, "no keyword 'proces_weight'.*process_weight"),
        ({"method": "pure", "method_kwargs": {"baseline": "tokens"}}, "baseline"),
        ({"method_kwargs": {"process_weight": {"start": 1, "end": 0}}}, "schedule"),
        ({"method_kwargs": "gamma=0.9"}, "method_kwargs.*mapping"),
        ({"loss_type": "drgrpo"}, "loss_type.*dr_grpo"),
        ({"importance_sampling_level": "tokens"}, "importance_sampling_level"),
        ({"scale_rewards": "batch"}, "scale_rewards.*method"),
        ({"step_separator": ""}, "separator"),
        ({"step_pattern": "("}, "pattern"),
        ({"num_generations": 3}, "divisible by num_generations"),
        ({"scorer": None}, "needs step scores"),
        ({"scorer": None, "method": "outcome", "verifier": None}, "no outcome"),
    ],
)
def test_refused_with_the_fix(tmp_path, settings, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build(tmp_path, **settings)


def test_missing_solution_column(tmp_path):
    with pytest.raises(ValueError, match=r"\['prompt', 'answer'\], expected `solution`"):
        build(tmp_path, dataset=tiny_dataset(8).rename_column("solution", "answer"))


def test_separator_that_never_occurs_is_a_warning(tmp_path):
    trainer = build(tmp_path, step_separator="Step ", max_steps=1)
    with pytest.warns(UserWarning, match="separator 'Step ' occurs in none of the first 8 completions"):
        trainer.train()


def test_a_method_of_ones_own_is_tried_before_training(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(
        "def good(rollouts, *, w=1.0):\n    return rollouts.step_scores.nan_to_num() * rollouts.step_mask * w\n"
        "def bad(rollouts):\n    return rollouts.outcome_rewards\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    build(tmp_path, method="my_methods.good", method_kwargs={"w": 2.0})
    with pytest.raises(ValueError, match=r"my_methods.bad.*expected finite \(4, 2\)"):
        build(tmp_path, method="my_methods.bad")


def test_separator_typed_on_a_command_line(tmp_path):
    assert tiny_config(tmp_path, step_separator=r"\n").splitter().split("a\nb") == ["a", "b"]
    assert isinstance(tiny_config(tmp_path), ProcessGRPOConfig)
