"""Reading run folders and sampling them."""

import json
import math
import statistics
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_prm.report import write_report
from rlhf_prm.report.charts import evaluated
from rlhf_prm.report.gallery import _rollout_view
from rlhf_prm.report.runs import read_run
from rlhf_prm.report.sampling import SHOWN_BATCHES, SHOWN_GROUPS, evenly_spaced, gather
from rlhf_prm.statistics import share_interval
from tests.report.made_up import write_run


def test_reads_what_was_written(tmp_path):
    run = read_run(write_run(tmp_path / "run", updates=3, groups=2, size=4))
    batches = list(run.rollouts())
    assert [len(batch) for batch in batches] == [8, 8, 8]
    assert [rollout.group for rollout in batches[0]] == [0] * 4 + [1] * 4
    first = pq.read_table(run.files[0]).to_pylist()[0]
    assert batches[0][0].steps == first["steps"]
    assert batches[0][0].scores == first["step_scores"]
    assert batches[0][0].mean_score == pytest.approx(sum(first["step_scores"]) / len(first["step_scores"]))
    outcomes = [rollout.outcome for rollout in batches[0][:4]]
    mean, spread = sum(outcomes) / 4, statistics.stdev(outcomes)
    wanted = first["step_advantages"][0] - (outcomes[0] - mean) / (spread + 1e-4)
    assert batches[0][0].process_rewards[0] == pytest.approx(wanted, abs=1e-5)
    assert run.method == "immediate" and run.eval_problems == 2048


def test_baseline_without_scores_is_split_and_takes_its_numbers_from_the_parent(tmp_path):
    baseline = read_run(write_run(tmp_path / "run", updates=2)).baseline
    rollout = next(iter(baseline.rollouts()))[0]
    assert len(rollout.steps) >= 3 and all(math.isnan(score) for score in rollout.scores)
    assert baseline.summary["accuracy"]["after"] == 0.55 and baseline.eval_problems == 2048


def test_a_batch_logged_twice_counts_once(tmp_path):
    run = read_run(write_run(tmp_path / "run", updates=2, baseline=False))
    again = pq.read_table(run.files[0]).to_pylist()
    for row in again:
        row["step"] = 99
    between = run.files[0].with_name("completions_00001b.parquet")
    pq.write_table(pa.Table.from_pylist(again), between)
    assert [batch[0].update for batch in read_run(run.path).rollouts()] == [1, 2]


def test_chat_messages_unscorable_outcomes_and_missing_scores(tmp_path):
    folder = tmp_path / "run" / "completions"
    folder.mkdir(parents=True)
    row = {
        "step": 1,
        "prompt": [{"role": "user", "content": "2+2?"}],
        "completion": [{"role": "assistant", "content": "one\n\ntwo"}],
        "steps": ["one", "two"],
        "step_scores": [0.5, None],
        "outcome_reward": None,
        "advantage": 0.0,
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "completions_00001.parquet")
    rollout = next(iter(read_run(tmp_path / "run").rollouts()))[0]
    assert rollout.prompt == "2+2?" and rollout.verdict == "unscorable"
    assert rollout.scores[0] == 0.5 and math.isnan(rollout.scores[1]) and rollout.mean_score == 0.5
    gathered = gather(read_run(tmp_path / "run"))
    assert gathered.rollouts == 1 and gathered.mean_scores == {True: [], False: []}


def test_right_is_the_verdict_and_not_what_is_paid(tmp_path):
    """With a format reward of 1 for everybody every outcome is above 0.5; without a verifier the outcome decides."""
    folder = tmp_path / "run" / "completions"
    folder.mkdir(parents=True)
    verdicts = ["correct", "incorrect", "unlabelled", None, None]
    outcomes = [2.0, 1.0, 1.0, 1.0, 0.25]
    rows = [
        {"step": 1, "prompt": "2+2?", "completion": "4", "steps": ["4"], "step_scores": [0.5], "advantage": 0.0}
        | {"verifier_status": verdict, "outcome_reward": outcome}
        for verdict, outcome in zip(verdicts, outcomes, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "completions_00001.parquet")
    rollouts = next(iter(read_run(tmp_path / "run").rollouts()))
    assert [rollout.right for rollout in rollouts] == [True, False, None, True, False]
    gathered = gather(read_run(tmp_path / "run"))
    assert {right: len(scores) for right, scores in gathered.mean_scores.items()} == {True: 2, False: 2}
    assert gathered.groups[0].correct == 2


def test_a_line_cut_off_by_a_kill_is_left_out_and_a_broken_one_is_not(tmp_path):
    run = write_run(tmp_path / "run", updates=3, baseline=False)
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(lines + '{"step": 4, "rew')
    assert len(read_run(run).metrics) == len(lines.splitlines())
    (run / "metrics.jsonl").write_text('{"step": 4, "rew\n' + lines)
    with pytest.raises(ValueError, match=r"metrics.jsonl:1: not JSON"):
        read_run(run).metrics  # noqa: B018


def test_rollouts_of_the_evaluation_before_training_are_left_out(tmp_path):
    run = read_run(write_run(tmp_path / "run", updates=2, baseline=False))
    rows = pq.read_table(run.files[0]).to_pylist()
    evaluated = [{**row, "step": 0, "completion": "other"} for row in rows]
    pq.write_table(pa.Table.from_pylist(evaluated), run.files[0].with_name("completions_00000.parquet"))
    assert [batch[0].update for batch in read_run(run.path).rollouts()] == [1, 2]


def test_intervals_of_held_out_accuracy_know_their_number_of_problems(tmp_path):
    curve = evaluated(read_run(write_run(tmp_path / "run", updates=20)), "accuracy")
    assert sorted(curve) == [0, 5, 10, 15, 20]
    assert curve[0] == pytest.approx(share_interval(0.3 * 2048, 2048))
    assert curve[10] == pytest.approx(share_interval(0.5 * 256, 256))


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_no_run_is_refused(tmp_path, made):
    if made:
        (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="expected runs/<name>"):
        read_run(tmp_path / "x")


def test_evenly_spaced_holds_the_ends():
    assert evenly_spaced(3, 12) == [0, 1, 2]
    assert evenly_spaced(100, 4) == [0, 33, 66, 99]
    assert evenly_spaced(0, 4) == []


def test_sample_is_the_same_every_time_and_best_are_better_than_worst(tmp_path):
    run = read_run(write_run(tmp_path / "run", updates=30, baseline=False))
    first, second = gather(run), gather(read_run(run.path))
    assert first.groups == second.groups and len(first.groups) == SHOWN_BATCHES * SHOWN_GROUPS
    assert {group.update for group in first.groups} >= {1, 30}
    for group in first.groups:
        assert min(sum(r.advantages) / len(r.advantages) for r in group.best) >= max(
            sum(r.advantages) / len(r.advantages) for r in group.worst
        )
    assert len({(r.update, r.group) for g in first.groups for r in g.best + g.worst}) == len(first.groups)


def test_numbers_over_all_rollouts_match_a_plain_loop(tmp_path):
    run = read_run(write_run(tmp_path / "run", updates=5, baseline=False))
    rows = [row for path in run.files for row in pq.read_table(path).to_pylist()]
    wrong = [row for row in rows if row["outcome_reward"] == 0]
    gathered = gather(run)
    assert gathered.rollouts == len(rows) and len(gathered.mean_scores[False]) == len(wrong)
    first_tenth = [row["step_scores"][0] for row in wrong]
    assert gathered.by_position[False][0] == pytest.approx(first_tenth)
    means = [sum(row["step_scores"]) / len(row["step_scores"]) for row in wrong]
    assert [r.mean_score for r in gathered.overrated] == pytest.approx(sorted(means, reverse=True)[:6])
    assert json.dumps(sum(gathered.verdicts.values())) == str(len(rows))


def test_tool_results_stand_between_the_steps_and_are_none(tmp_path):
    folder = tmp_path / "run" / "completions"
    folder.mkdir(parents=True)
    row = {
        "step": 1,
        "prompt": [{"role": "user", "content": "2+2?"}],
        "steps": ["I ask", "it is 4"],
        "step_scores": [0.5, 0.9],
        "outcome_reward": 1.0,
        "step_advantages": [0.1, 0.2],
        "advantage": 0.1,
        "tool_results": [{"after": 1, "text": "four <b>"}],
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "completions_00001.parquet")
    rollout = next(iter(read_run(folder.parent).rollouts()))[0]
    assert rollout.steps == ["I ask", "it is 4"] and rollout.tool_results == [(1, "four <b>")]
    view = _rollout_view(rollout)
    assert [one["text"] for one in view["steps"]] == ["I ask", "four <b>", "it is 4"] and view["count"] == 2
    assert [one.get("k") for one in view["steps"]] == [1, None, 2] and "score" not in view["steps"][1]
    page = write_report(folder.parent).read_text()
    assert '<li class="gap tool"><span class="sc">tool</span><span class="tx">four &lt;b&gt;</span></li>' in page


def test_tokens_have_the_colours_of_their_own_scores(tmp_path):
    folder = tmp_path / "run" / "completions"
    folder.mkdir(parents=True)
    row = {
        "step": 1,
        "prompt": "2+2?",
        "steps": ["I <b>", "4"],
        "step_scores": [0.5, 0.9],
        "outcome_reward": 1.0,
        "step_advantages": [0.1, 0.2],
        "advantage": 0.1,
        "tokens": ["I ", "<b>", "\n\n", "4", ""],
        "token_scores": [0.0, -0.2, 0.2, 0.1, None],
        "step_lengths": [3, 2],
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "completions_00001.parquet")
    rollout = next(iter(read_run(folder.parent).rollouts()))[0]
    assert rollout.tokens[0] == [("I ", 0.0), ("<b>", -0.2), ("\n\n", 0.2)]
    assert [text for text, _ in rollout.tokens[1]] == ["4", ""]
    page = write_report(folder.parent).read_text()
    assert (
        '<span class="tx"><i class="q5" data-t="0">I </i><i class="q0" data-t="-0.2">&lt;b&gt;</i>'
        '<i class="q10" data-t="0.2">↵↵</i></span>' in page
    )
    assert '<i class="q8" data-t="0.1">4</i><i class="q5" data-t="–">◦</i></span>' in page
    assert "from orange (−0.2) over grey (0) to blue" in page
    long = replace(rollout, steps=["x"], tokens=[[("ab", 0.1)] * 5000])
    assert len(_rollout_view(long, 0.1)["steps"][0]["tokens"]) == 600  # as many characters as are shown of a step
