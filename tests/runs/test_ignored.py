"""Settings without effect are said; the configurations that come with the project have none."""

from pathlib import Path

import pytest
import yaml
from transformers import HfArgumentParser

from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.ignored import without_effect
from tests.tiny import tiny_config

CONFIGS = sorted((Path(__file__).parents[2] / "recipes" / "configs").glob("*.yaml"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"chat": True}, "chat: True has no effect; it needs a dataset"),
        ({"verifier_kwargs": {"deadline": 1}}, "verifier_kwargs: {'deadline': 1} has no effect; it needs a dataset"),
        ({"dataset": "a", "check_prm": True}, "check_prm: True has no effect; it needs the toy world"),
        ({"dataset": "a", "prm_kwargs": {"tag": "x"}}, "prm_kwargs: {'tag': 'x'} has no effect; it needs a prm"),
        ({"dataset": "a", "eval_limit": 8}, "eval_limit: 8 has no effect; it needs an eval_dataset"),
        ({"dataset": "a", "eval_every": 20}, "eval_every: 20 has no effect; it needs an eval_dataset"),
        ({"dataset": "a", "system_prompt": "Hi"}, "system_prompt: 'Hi' has no effect; it needs chat: true"),
        ({"guard_kwargs": {"every": 5}}, "guard_kwargs: {'every': 5} has no effect; it needs a guard that is not off"),
        ({"eval_every_limit": 9}, "eval_every_limit: 9 has no effect; it needs eval_every or a guard"),
    ],
)
def test_each_is_named_with_what_it_needs(given, sentence):
    [said] = without_effect(RecipeArguments(**given))
    assert said.startswith(sentence)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"eval_limit": 8, "prm_kwargs": {"max_length": 64}},  # the toy world's own evaluation and PRM
        {"dataset": "a", "prm": "b", "prm_kwargs": {"tag": "x"}, "chat": True, "system_prompt": "Hi"},
        {"guard_kwargs": {"actions": {"auroc": "warn"}}, "eval_every_limit": 9},
    ],
)
def test_what_has_an_effect_is_not_named(given):
    assert without_effect(RecipeArguments(**given)) == []


def test_nothing_is_named_where_a_command_line_gives_nothing():
    """The parser rewrites the types of the fields, so what was given is told by values."""
    (recipe,) = HfArgumentParser(RecipeArguments).parse_args_into_dataclasses([])
    assert without_effect(recipe) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_projects_own_configurations(path):
    known = RecipeArguments.__dataclass_fields__
    if "async_grpo_prm.py" in path.read_text().splitlines()[0]:
        pytest.skip("its arguments are AsyncArguments")
    given = {name: value for name, value in yaml.safe_load(path.read_text()).items() if name in known}
    if "cells" in given or "train_data" in yaml.safe_load(path.read_text()):
        pytest.skip("not a configuration of an RL recipe")
    assert without_effect(RecipeArguments(**given)) == []


def test_a_shaping_that_pays_nothing_is_said(tmp_path):
    with pytest.warns(UserWarning, match="shaping 'clip_shaping' .*has no effect: process_weight is 0"):
        tiny_config(tmp_path, ProcessPPOConfig, process_weight=0.0, shaping="clip_shaping")
