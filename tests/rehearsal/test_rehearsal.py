"""Every GPU config from its own command line: three updates, evaluated and saved, the third again after resuming."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

from rlhf_prm.prm import load_prm
from tests.rehearsal.calls import EVERY
from tests.rehearsal.published import SYSTEM_TURN
from tests.rehearsal.runner import Done, masters, metrics_of, rehearse, saved_weights
from tests.rehearsal.table import PPO_TWO_NODES, REINFORCEMENT, REWARD_MODELS, UPDATES, Rehearsal

DEADLINE = 1200  # seconds for each of the two launches; all of it takes one to two minutes on an idle machine
ELSEWHERE = ("max_steps", "output_dir", "report_to")  # what the runner sets, and what transformers makes a list of


def rows_of(rehearsals: list[Rehearsal]) -> list:
    return [pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row.slow else []) for row in rehearsals]


@pytest.mark.timeout(2 * DEADLINE + 60)
@pytest.mark.parametrize("rehearsal", rows_of(REINFORCEMENT))
def test_reinforcement_learning(rehearsal, made, tmp_path):
    done = rehearse(rehearsal, made, tmp_path, deadline=DEADLINE)
    summary = json.loads((done.folder / "summary.json").read_text())
    settings_are_the_shipped_ones(done, summary["settings"] | summary["settings"]["recipe"])
    logs_of_three_updates(done)
    learning_rates(done, [row["learning_rate"] for row in metrics_of(done.folder) if "loss" in row])
    rollouts_of_an_update(done)
    ran_on_its_processes(done)
    the_policy_moved_and_loads(done)
    if rehearsal.calls:
        the_sandbox_was_called(done)
    assert all(isinstance(value, float) for value in summary["accuracy"].values())
    assert summary["eval_problems"] == 16 and summary["baseline"] is None
    assert "<html" in (done.folder / "report.html").read_text()[:500].lower()
    assert kept_checkpoints(done.folder) == list(range(1, UPDATES + 1))[-done.yaml.get("save_total_limit", UPDATES) :]


@pytest.mark.timeout(2 * DEADLINE + 60)
@pytest.mark.parametrize("rehearsal", rows_of(REWARD_MODELS))
def test_reward_model(rehearsal, made, tmp_path):
    done = rehearse(rehearsal, made, tmp_path, deadline=DEADLINE)
    settings_are_the_shipped_ones(done, vars(done.training_arguments(UPDATES)))
    state = json.loads((done.folder / f"checkpoint-{UPDATES}" / "trainer_state.json").read_text())
    logs = [row for row in state["log_history"] if "loss" in row]
    assert [row["step"] for row in logs] == [1, 2, 3] and all(math.isfinite(row["loss"]) for row in logs)
    if done.yaml.get("eval_strategy") == "steps":
        assert [row["step"] for row in state["log_history"] if "eval_f1" in row] == [1, 2, 3]
    evaluated = json.loads((done.folder / "eval_results.json").read_text())
    assert {"eval_loss", "eval_f1", "eval_chance_f1", "eval_ece"} <= evaluated.keys()
    solutions_of_an_update(done, state)
    ran_on_its_processes(done)
    the_prm_moved_and_scores(done)


@pytest.mark.slow
def test_a_launch_in_another_precision_is_refused_in_one_line(made, tmp_path):
    """The CPU config has bf16: false, the launch file for GPUs has bf16: said before a model is loaded."""
    overrides = {name: value for name, value in PPO_TWO_NODES.overrides.items() if name != "bf16"}
    with pytest.raises(AssertionError) as refused:
        rehearse(replace(PPO_TWO_NODES, overrides=overrides), made, tmp_path, deadline=DEADLINE)
    output = str(refused.value)
    assert "error: bf16: got false in the settings and mixed_precision: bf16 in the launch file" in output
    assert "ValueError" not in output and "Loading weights" not in output


def settings_are_the_shipped_ones(done: Done, used: dict[str, Any]) -> None:
    """Every value of the YAML that the table does not override is what the run had."""
    assert f"settings: recipes/configs/{done.rehearsal.path.name} and the command line" in done.output
    compared = 0
    for name, value in done.yaml.items():
        if name in done.rehearsal.overrides or name in ELSEWHERE or name not in used:
            continue
        got = getattr(used[name], "value", used[name])
        assert got == value, f"{name}: got {got!r}, the config says {value!r}"
        compared += 1
    assert compared >= 5


def logs_of_three_updates(done: Done) -> None:
    """Training logs and accuracy of every update, each once; the PRM scored and the gradients are finite."""
    metrics = metrics_of(done.folder)
    updates = [row for row in metrics if "loss" in row]
    assert [row["step"] for row in updates] == [1, 2, 3]
    for row in updates:
        assert all(math.isfinite(row[name]) for name in ("loss", "grad_norm", "reward", "process/num_steps/mean"))
        assert 0.0 < row["process/step_score/mean"] < 1.0
    assert [row["step"] for row in metrics if "eval/accuracy" in row] == [1, 2, 3]
    assert any(row["grad_norm"] > 0 for row in updates)


def learning_rates(done: Done, logged: list[float]) -> None:
    """The schedule of the YAML at the updates 1, 2 and 3, which a resumed run goes on with."""
    args = done.training_arguments(UPDATES)
    assert args.learning_rate == done.yaml["learning_rate"]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate)
    warmup = args.get_warmup_steps(UPDATES)
    scheduler = get_scheduler(args.lr_scheduler_type, optimizer, warmup, num_training_steps=UPDATES)
    wanted = []
    for _ in range(UPDATES):
        wanted.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert logged == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def rollouts_of_an_update(done: Done) -> None:
    """As many completions as the config says, in whole groups, after the config's system message."""
    for update in range(1, UPDATES + 1):
        [file] = (done.folder / "completions").glob(f"*_{update:05d}.parquet")
        table = pd.read_parquet(file)
        assert len(table) == done.rows_per_update
        group = done.yaml["num_generations"]
        assert all(count % group == 0 for count in table["prompt"].map(str).value_counts())
        assert all(len(scores) > 0 for scores in table["step_scores"])
        for prompt in table["prompt"]:
            assert (prompt[0]["role"], prompt[0]["content"]) == ("system", done.yaml["system_prompt"])


def the_sandbox_was_called(done: Done) -> None:
    """Every fourth rollout ran its program, saw the output, and went on; the output is a result and no step."""
    updates = [row for row in metrics_of(done.folder) if "loss" in row]
    assert [row["tools/call_frequency"] for row in updates] == [pytest.approx(1 / EVERY)] * UPDATES
    assert [row["tools/failure_frequency"] for row in updates] == [0.0] * UPDATES
    for file in (done.folder / "completions").glob("*.parquet"):
        table = pd.read_parquet(file)
        results = [[result["text"] for result in row] for row in table["tool_results"]]
        assert [row for row in results if row] == [["42\n"]] * (done.rows_per_update // EVERY)
        for steps, turns, row in zip(table["steps"], table["turn_of_step"], results, strict=True):
            assert not any("tool_response" in step and "42" in step for step in steps)
            assert len(steps) == len(turns) and max(turns) <= len(row)


def solutions_of_an_update(done: Done, state: dict[str, Any]) -> None:
    """The share of an epoch that three updates are is that of the solutions they hold."""
    arguments = done.training_arguments(UPDATES)
    per_update = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert per_update * done.rehearsal.processes == done.rows_per_update
    rows = 4 * 63  # four solutions of 64 problems, one of which is held out
    assert state["epoch"] == pytest.approx(UPDATES * done.rows_per_update / rows, rel=0.05)
    assert arguments.learning_rate == done.yaml["learning_rate"]


def ran_on_its_processes(done: Done) -> None:
    """Each process leaves the state of its random numbers in a checkpoint; under DeepSpeed its shard too."""
    checkpoint = done.folder / f"checkpoint-{UPDATES}"
    ranks = sorted(path.name for path in checkpoint.glob("rng_state*.pth"))
    wanted = [f"rng_state_{rank}.pth" for rank in range(done.rehearsal.processes)]
    assert ranks == (wanted if done.rehearsal.processes > 1 else ["rng_state.pth"])
    shards = list(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt"))
    assert len(shards) == (done.rehearsal.processes if done.rehearsal.zero3 else 0)


def the_policy_moved_and_loads(done: Done) -> None:
    """The weights have moved, in float32; what is saved are those weights, and it loads."""
    ended = masters(done.folder, UPDATES)
    moved(saved_weights(done.start), done.cut)
    went_on_as_if_not_cut(done, ended)
    policy, report = AutoModelForCausalLM.from_pretrained(
        done.folder / "policy", dtype="float32", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    for name, weight in policy.state_dict().items():
        if name in ended:
            torch.testing.assert_close(weight, ended[name].float(), atol=0, rtol=2**-8)  # at most rounded to bfloat16
    tokenizer = AutoTokenizer.from_pretrained(done.folder / "policy")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "1 + 1?"}], tokenize=False)
    own_turn = "<|im_start|>user\n1 + 1?<|im_end|>" if done.rehearsal.calls else SYSTEM_TURN  # Qwen3 has none
    assert text.startswith(own_turn)


def the_prm_moved_and_scores(done: Done) -> None:
    """``load_prm`` reads what was saved; body and head learnt; the merged adapters too."""
    scores = load_prm(done.folder).score(["1 + 1?"], [["It is 2.", "It is 2. That is 3 too many."]])
    assert len(scores[0]) == 2 and all(0.0 < score < 1.0 for score in scores[0])
    went_on_as_if_not_cut(done, masters(done.folder, UPDATES))
    moved(saved_weights(done.start), {k: v for k, v in saved_weights(done.folder).items() if ".layers." in k})


def went_on_as_if_not_cut(done: Done, resumed: dict[str, torch.Tensor]) -> None:
    """The third update moved the weights, and after resuming it was the same update."""
    update = moved(done.cut, done.whole)
    assert largest_change(done.whole, resumed) < 0.05 * update


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """By how much; more than nothing."""
    largest = largest_change(before, after)
    assert 0.0 < largest < math.inf
    return largest


def largest_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """The largest |Δw| over the weights that both have, in float32."""
    common = before.keys() & after.keys()
    assert common, f"no name in common: {sorted(before)[:3]}, {sorted(after)[:3]}"
    return max((after[name].float() - before[name].float()).abs().max().item() for name in common)


def kept_checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
