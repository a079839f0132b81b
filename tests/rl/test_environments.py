"""Tools and environments of TRL in our trainers: as they come, with scripted turns of a tiny policy."""

import math
from dataclasses import dataclass

import pandas as pd
import pytest
from datasets import Dataset

from reward import outcome_reward
from rlhf_prm.rl.environments import Reported, reported_by_rollout_func
from rlhf_prm.rl.live_values import LiveMonteCarloScorer
from tests.tiny import DigitVerifier, tiny_config
from tests.tiny_tools import Counter, add, call, counted, messages, tool_trainer


def two_calls(conversation: str, turns: int) -> str:
    """Counts by 1 in the first turn, by 2 in the second, and ends."""
    return ("so\n\n" + call("increment", by=1), call("increment", by=2), "done\n\nit is 3")[turns]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_an_environment_of_trls_runs_unchanged(tmp_path, monkeypatch, algorithm):
    arguments = {"environment_factory": Counter, "reward_funcs": counted}
    trainer = tool_trainer(algorithm, tmp_path, monkeypatch, two_calls, **arguments)
    trainer.train()
    batch = trainer.last_rollouts
    assert trainer.state.global_step == 2 and batch.rollouts.outcome_rewards.tolist() == [3.0] * 8
    row = batch.rows[0]
    assert [text for _, text in row.tool_results] == ["1", "3"]
    assert row.turn_of_step == [0, 0, 1, 2, 2] and row.steps[-2:] == ["done", "it is 3"]
    assert row.given[0]["content"].endswith(" from 0") and row.status == "unverified"
    written = "so\n\n" + call("increment", by=1), call("increment", by=2), "done\n\nit is 3"
    assert sum(row.lengths) == sum(len(trainer.processing_class(text)["input_ids"]) + 1 for text in written)


class Tasked:
    """An environment that brings its own problems, as TRL's documentation has one: no dataset, its own reward."""

    def reset(self, **kwargs) -> str:
        self.count, self.target = 0, 3
        return f"count to {self.target}"

    def get_reward(self) -> float:
        return float(self.count == self.target)

    increment = Counter.increment


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_an_environment_brings_its_own_problems(tmp_path, monkeypatch, algorithm):
    arguments = {"environment_factory": Tasked, "train_dataset": None}
    trainer = tool_trainer(algorithm, tmp_path, monkeypatch, two_calls, **arguments)
    trainer.train()
    batch = trainer.last_rollouts
    assert trainer.state.global_step == 2 and batch.rollouts.outcome_rewards.tolist() == [1.0] * 8
    assert batch.rows[0].given[-1]["content"] == "count to 3"
    with pytest.raises(ValueError, match="train_dataset: got None beside a verifier"):
        tool_trainer(algorithm, tmp_path, monkeypatch, None, verifier=DigitVerifier(), **arguments)


class Paying(Counter):
    """Pays by itself, and tells of its turns."""

    def reset(self, **kwargs):
        super().reset(**kwargs)
        self.paid, self.seen = [], ["count 0"]

    def increment(self, by: int) -> int:
        """Adds to the count.

        Args:
            by: How much to add.
        """
        super().increment(by)
        self.paid.append(by / 4)
        self.seen.append(f"count {self.count}")
        return self.count

    def get_reward(self) -> float:
        return float(self.count == 3)

    def turn_rewards(self) -> list[float]:
        return list(self.paid)

    def state_keys(self) -> list[str]:
        return list(self.seen)


def test_turn_rewards_and_states_come_from_the_environment(tmp_path, monkeypatch):
    settings = {"turn_scores": "environment", "step_unit": "turn", "method": "immediate"}
    arguments = {"environment_factory": Paying, "settings": settings, "step_scorer": None}
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, two_calls, **arguments)
    trainer.train()
    rollouts = trainer.last_rollouts.rollouts
    assert rollouts.step_scores.tolist() == [[0.25, 0.5, 0.5]] * 8  # the last turn called nothing: it carries on
    assert rollouts.scored.tolist() == [[True, True, False]] * 8
    assert rollouts.state_keys.tolist() == [[0, 1, 2]] * 8
    assert rollouts.outcome_rewards.tolist() == [1.0] * 8
    logged = trainer.state.log_history[0]
    assert logged["process/turn_score/mean"] == pytest.approx(0.375) and logged["process/tool_results/mean"] == 2.0


def test_our_methods_are_no_tools(tmp_path, monkeypatch):
    def peeks(conversation, turns):
        return (call("turn_rewards"), call("state_keys"), "done")[turns]

    trainer = tool_trainer("grpo", tmp_path, monkeypatch, peeks, environment_factory=Paying)
    assert [tool.__name__ for tool in trainer.tools] == ["increment"]
    trainer.train()
    row = trainer.last_rollouts.rows[0]
    assert "turn_rewards not found" in row.tool_results[0][1] and "state_keys not found" in row.tool_results[1][1]


def test_kinds_of_environments_and_rows_without_a_prompt(tmp_path, monkeypatch):
    """As TRL's multi-environment runs: the data say which, `reset` says what to do."""
    rows = Dataset.from_dict({"environment": ["plain", "paying"] * 4})
    factories = {"plain": Counter, "paying": Paying}
    trainer = tool_trainer(
        *("grpo", tmp_path, monkeypatch, two_calls),
        **{"environment_factory": factories, "reward_funcs": counted, "train_dataset": rows},
    )
    trainer.train()
    batch = trainer.last_rollouts
    assert sorted(set(batch.rollouts.outcome_rewards.tolist())) == [3.0, 4.0]  # Paying pays 1 on its own
    keys = batch.rollouts.state_keys
    assert {tuple(keys[i].tolist()) for i in range(8)} == {(-1,) * 5, (0, -1, 1, 2, -1)}


def adds(conversation, turns):
    return (call("add", a=3, b=4), "7")[turns]


def test_tools_pay_by_the_policys_own_answer(tmp_path, monkeypatch):
    dataset = messages(solution=["7"] * 8)
    arguments = {"tools": [add], "verifier": DigitVerifier(), "train_dataset": dataset}
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, adds, **arguments)
    trainer.train()
    assert trainer.last_rollouts.rollouts.verdicts.tolist() == [1.0] * 8


SILENT = {
    "ends without the answer": lambda conversation, turns: (call("add", a=3, b=4), "done")[turns],
    "never ends": lambda conversation, turns: call("add", a=3, b=4),  # its last result is the newest message
    "writes it into a call": lambda conversation, turns: (call("add", a=3, b=4), call("none", x="7"))[min(turns, 1)],
}


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("name", list(SILENT))
def test_a_tool_that_writes_the_answer_earns_nothing(tmp_path, monkeypatch, algorithm, name):
    dataset = messages(solution=["7"] * 8)
    settings = {"max_tool_calling_iterations": 2, "max_steps": 1}
    arguments = {"tools": [add], "verifier": DigitVerifier(), "train_dataset": dataset, "settings": settings}
    trainer = tool_trainer(algorithm, tmp_path, monkeypatch, SILENT[name], **arguments)
    trainer.train()
    batch = trainer.last_rollouts
    assert "7" in batch.rows[0].tool_results[0][1]
    assert batch.rollouts.outcome_rewards.tolist() == [0.0] * 8 and batch.rollouts.verdicts.tolist() == [0.0] * 8


@pytest.mark.parametrize("name", list(SILENT))
def test_nor_does_it_by_a_reward_function(tmp_path, monkeypatch, name):
    """No answer is found, or a wrong one; the gold one stands in the tool's message only."""
    settings = {"max_tool_calling_iterations": 2, "max_steps": 1}
    arguments = {"tools": [add], "reward_funcs": outcome_reward, "settings": settings}
    arguments["train_dataset"] = messages(solution=["7"] * 8)
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, SILENT[name], **arguments)
    trainer.train()
    assert trainer.last_rollouts.rollouts.outcome_rewards.tolist() == [0.0] * 8


def test_a_method_that_reads_no_scores_needs_no_scorer(tmp_path, monkeypatch):
    settings = {"method": "tests.rl.test_environments.compares_states", "max_steps": 1}
    arguments = {"environment_factory": Paying, "settings": settings, "step_scorer": None}
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, two_calls, **arguments)
    trainer.train()
    settings = settings | {"method_kwargs": {"process_weight": 1.0}}
    with pytest.raises(ValueError, match="needs step scores"):
        tool_trainer("grpo", tmp_path, monkeypatch, None, **(arguments | {"settings": settings}))


def compares_states(rollouts, *, process_weight: float = 0.0):
    """The number of the state as an advantage."""
    return rollouts.required_state_keys.float() * rollouts.step_mask


def rollouts_of(mask: list[int], text: str):
    """A ``rollout_func`` whose completions are ``text``, with an ``env_mask``."""

    def rollouts(prompts, trainer):
        tokenizer = trainer.processing_class
        own = [tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"] for prompt in prompts]
        ids = tokenizer(text)["input_ids"]
        many = len(prompts)
        return {
            "prompt_ids": own,
            "completion_ids": [ids] * many,
            "logprobs": None,
            "env_mask": [mask] * many,
        }

    return rollouts


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("judged_by", ["verifier", "outcome_reward"])
def test_an_env_mask_of_a_rollout_func(tmp_path, monkeypatch, algorithm, judged_by):
    r"""a = b 7 c: the \boxed{7} is the environment's."""
    text = "ab\\boxed{7}c"
    mask = [1, 1, *[0] * 9, 1]
    judge = {"verifier": DigitVerifier()} if judged_by == "verifier" else {"reward_funcs": outcome_reward}
    arguments = {"rollout_func": rollouts_of(mask, text), "train_dataset": messages(solution=["7"] * 8), **judge}
    trainer = tool_trainer(algorithm, tmp_path, monkeypatch, None, **arguments)
    trainer.train()
    batch = trainer.last_rollouts
    assert batch.rollouts.outcome_rewards.tolist() == [0.0] * 8
    assert batch.rows[0].steps == ["ab", "c"] and batch.rows[0].lengths == [2, 1]
    assert batch.rows[0].tool_results == [(1, "\\boxed{7}")]


def test_a_rollout_func_tells_of_its_turns(tmp_path, monkeypatch):
    def telling(prompts, trainer):
        output = rollouts_of([1, 1, 0, 1], "ab7c")(prompts, trainer)
        many = len(prompts)
        return output | {"turn_rewards": [[0.25, math.nan]] * many, "state_keys": [["start", "seven"]] * many}

    settings = {"turn_scores": "environment", "max_steps": 1}
    arguments = {"verifier": DigitVerifier(), "train_dataset": messages(solution=["7"] * 8), "settings": settings}
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, None, rollout_func=telling, step_scorer=None, **arguments)
    trainer.train()
    rollouts = trainer.last_rollouts.rollouts
    assert rollouts.step_scores.tolist() == [[0.25, 0.25]] * 8 and rollouts.scored.tolist() == [[True, False]] * 8
    assert rollouts.state_keys.tolist() == [[0, 1]] * 8
    silent = rollouts_of([1, 1, 0, 1], "ab7c")
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, None, rollout_func=silent, step_scorer=None, **arguments)
    with pytest.raises(ValueError, match="turn_scores: got a rollout without turn_rewards"):
        trainer.train()


def test_a_rollout_func_tells_of_every_turn():
    with pytest.raises(ValueError, match=r"rollout_func: got state_keys for \[1\] turns, .*one entry per turn: \[2\]"):
        reported_by_rollout_func({"state_keys": [["start"]]}, [2])
    assert reported_by_rollout_func({}, [2]) == [Reported(None, None)]


def test_a_broken_env_mask_is_refused(tmp_path, monkeypatch):
    arguments = {"rollout_func": rollouts_of([1, 0], "abc"), "verifier": DigitVerifier()}
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, None, train_dataset=messages(solution=["7"] * 8), **arguments)
    with pytest.raises(ValueError, match=r"env_mask: got 2 values .* for 3 tokens"):
        trainer.train()


# Sampling outside training, tables, refusals


def test_a_held_out_evaluation_uses_the_tools(tmp_path, monkeypatch):
    from rlhf_prm.rl.undisturbed import training_undisturbed
    from rlhf_prm.runs.evaluation import verified_accuracy

    dataset = messages(solution=["7", "8"] * 4)
    arguments = {"tools": [add], "verifier": DigitVerifier(), "train_dataset": dataset}
    trainer = tool_trainer("grpo", tmp_path, monkeypatch, adds, **arguments)
    with training_undisturbed(trainer):
        assert verified_accuracy(trainer, dataset) == 0.5
    assert trainer.last_rollouts is None and not trainer.samples_only


def test_the_table_shows_results_as_such(tmp_path, monkeypatch):
    settings = {"log_completions": True, "num_completions_to_print": 0, "turn_scores": "environment"}
    arguments = {"environment_factory": Paying, "settings": settings}
    tool_trainer("grpo", tmp_path, monkeypatch, two_calls, **arguments).train()
    row = pd.read_parquet(next((tmp_path / "completions").glob("*_00002.parquet"))).iloc[0]
    assert list(row["tool_results"]) == [{"after": 2, "text": "1"}, {"after": 3, "text": "3"}]
    assert not any("<t>" in step for step in row["steps"]) and list(row["turn_of_step"]) == [0, 0, 1, 2, 2]
    assert list(row["turn_scores"])[:2] == [0.25, 0.5] and math.isnan(row["turn_scores"][2])


THINKS = {"think_tags": ["<think>", "</think>"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": {"turn_scores": "environment"}, "tools": [add]}, "turn_scores: .*without environment_factory"),
        (
            {"settings": {"turn_scores": "environment"}, "environment_factory": Counter},
            r"Counter has no turn_rewards\(\)",
        ),
        (
            {"settings": {"turn_scores": "environment", "turn_rule": "min"}, "step_scorer": None}
            | {"environment_factory": Paying},
            "turn_rule: got 'min' without step_scorer",
        ),
        ({"settings": {"turn_rule": "min"}, "tools": [add]}, "turn_rule: got 'min' without turn_scores"),
        ({"settings": {"turn_scores": "environment"}, "turn_scorer": add}, "beside turn_scorer="),
        ({"settings": {"turn_scores": "nowhere"}, "tools": [add]}, "unknown turn_scores 'nowhere'"),
        ({"settings": THINKS | {"prm_reads": "answer"}, "tools": [add]}, "prm_reads: got 'answer' for a policy with"),
        (
            {"settings": THINKS | {"credit_reads": "answer"}, "rollout_func": lambda prompts, trainer: {}},
            "credit_reads: got 'answer' for a policy with",
        ),
        ({"step_scorer": LiveMonteCarloScorer(), "tools": [add]}, "live Monte-Carlo values: got tools"),
        ({"train_dataset": Dataset.from_dict({"prompt": ["a"] * 8}), "tools": [add]}, "got texts as `prompt` beside"),
    ],
)
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_what_cannot_apply_is_refused_at_once(tmp_path, monkeypatch, algorithm, arguments, message):
    defaults = {"train_dataset": messages(solution=["7"] * 8), "verifier": DigitVerifier()}
    if "solution" not in arguments.get("train_dataset", defaults["train_dataset"]).column_names:
        defaults = {"reward_funcs": counted}
    with pytest.raises(ValueError, match=message):
        tool_trainer(algorithm, tmp_path, monkeypatch, None, **(defaults | arguments))


def test_a_scorer_of_turns_is_attached_once(tmp_path, monkeypatch):
    """A judge then has its budget, and is not asked in held-out evaluations."""

    @dataclass  # two of them may be equal, and none can be hashed
    class Attached:
        trainers: int = 0

        def score(self, problems, steps):
            return [[0.5] * len(row) for row in steps]

        def attach(self, trainer):
            self.trainers += 1

    arguments = {"train_dataset": messages(solution=["7"] * 8), "verifier": DigitVerifier(), "tools": [add]}
    scorer = Attached()
    tool_trainer("grpo", tmp_path, monkeypatch, None, turn_scorer=scorer, **arguments)
    assert scorer.trainers == 1
    tool_trainer("grpo", tmp_path, monkeypatch, None, turn_scorer=scorer, step_scorer=scorer, **arguments)
    assert scorer.trainers == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_unit": "word"}, "step_unit: got 'word'"),
        ({"step_unit": "turn", "step_pattern": "x"}, "step_unit: got 'turn' beside step_pattern 'x', expected one of"),
        ({"step_unit": "turn", "step_separator": "x"}, "step_unit: got 'turn' beside step_separator 'x'"),
        ({"step_unit": "turn", "think_tags": ["<a>", "</a>"]}, "step_unit: got 'turn' beside think_tags"),
        ({"step_unit": "turn", **THINKS, "verifier_reads": "answer", "prm_reads": "answer"}, "turn' beside think_tags"),
        ({"step_unit": "turn", "step_limit": 4}, "step_unit: got 'turn' beside step_limit 4"),
        ({"step_unit": "turn", "step_merge": "breaks"}, "step_unit: got 'turn' beside step_merge 'breaks'"),
        ({"turn_rule": "max"}, "turn_rule: got 'max', expected one of replace, last, mean, min"),
        ({"turn_range": [1.0, 0.0]}, r"turn_range: got \[1.0, 0.0\], expected \[lowest, highest\]"),
    ],
)
def test_settings_nobody_knows(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(tmp_path, **settings)


def test_tags_that_only_the_verifier_reads_may_stand_beside_whole_turns(tmp_path):
    assert tiny_config(tmp_path, step_unit="turn", **THINKS, verifier_reads="answer").step_unit == "turn"
