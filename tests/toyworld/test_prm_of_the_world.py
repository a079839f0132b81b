import json
import math
import os
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.files import read_json_lines
from rlhf_prm.prm import load_prm
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.statistics import first_error, predicted_first_error
from rlhf_prm.toyworld import labels
from rlhf_prm.toyworld.checker import step_labels
from rlhf_prm.toyworld.problems import FILLERS, ChainProblem
from rlhf_prm.toyworld.settings import LABEL_SOURCES, ToyWorldSettings
from rlhf_prm.toyworld.world import build_world
from tests.killed import killed

PROBLEM = ChainProblem(7, (("Add", 5), ("Minus", 6), ("Times", 3)))


def rows_of(world, stage="labels"):
    return read_json_lines(world.stages[stage].path / "rows.jsonl")


@pytest.fixture(scope="module")
def by_source(small, small_world, cache_root):
    worlds = {s: build_world(ToyWorldSettings(**small, label_source=s), cache_root) for s in LABEL_SOURCES[1:]}
    return {"consensus": small_world, **worlds}


def test_the_prm_scores_every_step(small_world):
    rows = small_world.held_out_solutions(20)
    scores = load_prm(str(small_world.prm_path)).score([r["prompt"] for r in rows], [r["completions"] for r in rows])
    assert [len(one) for one in scores] == [len(row["completions"]) for row in rows]
    assert all(0 < score < 1 for one in scores for score in one)
    assert len({score for one in scores for score in one}) > 20


def test_held_out_solutions_have_exact_labels(small_world):
    rows = small_world.held_out_solutions(10, per_problem=3)
    assert [row["prompt"] for row in rows] == [p for p in small_world.eval_dataset["prompt"][:10] for _ in range(3)]
    for row in rows:
        assert row["labels"] == step_labels(row["prompt"], row["completions"])
        assert row["solution"] == ChainProblem.parse(row["prompt"]).solution


def test_every_label_source_labels_the_same_solutions(by_source):
    assert len({world.policy_path for world in by_source.values()}) == 1
    assert len({world.prm_path for world in by_source.values()}) == len(by_source) == 5
    solutions = rows_of(by_source["gold"], "solutions")
    steps = {row["prompt"]: row["steps"] for row in solutions}
    assert len(solutions) == 100
    for source, world in by_source.items():
        labelled = rows_of(world)
        assert (len(labelled) == 100) == (source not in ("consensus", "confirmed")) and len(labelled) > 20
        assert all(row["completions"] == steps[row["prompt"]] for row in labelled)
        assert {row["source"] for row in labelled} == {{"mc": "monte_carlo", "confirmed": "judge"}.get(source, source)}


def test_gold_labels_are_the_checkers(by_source):
    for row in rows_of(by_source["gold"]):
        assert row["labels"] == step_labels(row["prompt"], row["completions"])


def test_consensus_keeps_exactly_the_solutions_both_agree_on(by_source):
    errors = [
        {row["prompt"]: first_error(row["labels"]) for row in rows_of(by_source[source])}
        for source in ("consensus", "mc", "judge")
    ]
    agreed = {prompt: error for prompt, error in errors[1].items() if errors[2][prompt] == error}
    assert errors[0] == agreed
    report = json.loads((by_source["consensus"].stages["labels"].path / "consensus.json").read_text())
    assert report["kept"] == len(agreed) and report["pairs"] == 100


def test_sources_share_what_they_have_in_common(by_source):
    shared = {name: {world.stages[name].path for world in by_source.values() if name in world.stages} for name in
              ("policy", "solutions", "monte_carlo", "judge", "labels", "prm")}  # fmt: skip
    assert {name: len(paths) for name, paths in shared.items()} == {
        "policy": 1, "solutions": 1, "monte_carlo": 1, "judge": 1, "labels": 5, "prm": 5,
    }  # fmt: skip
    assert by_source["mc"].cached["monte_carlo"] and not by_source["mc"].cached["prm"]


def test_fewer_rows_change_the_prm_and_nothing_before_it(small, small_world, cache_root):
    world = build_world(ToyWorldSettings(**small, prm_rows=20), cache_root)
    assert [name for name, cached in world.cached.items() if not cached] == ["prm"]
    assert world.prm_path != small_world.prm_path
    assert world.seconds["policy"] == small_world.seconds["policy"] > 0


def test_the_best_prm_on_the_way_is_kept_by_rows_it_was_not_trained_on(small, by_source, cache_root):
    settings = ToyWorldSettings(**small | {"prm_updates": 40, "prm_eval_every": 10}, label_source="gold")
    world = build_world(settings, cache_root)
    record = json.loads((world.prm_path / "training.json").read_text())
    assert record["stopped_by"] == "auroc"  # ten rows cannot tell one F1 from another
    f1, score = ({one["update"]: one[name] for one in record["evaluations"]} for name in ("f1", "auroc"))
    assert list(f1) == [10, 20, 30, 40][: len(f1)] and record["updates"] == max(f1)
    assert record["kept_update"] == max(score, key=lambda update: (score[update], -update))
    assert (record["rows"], record["held_out_rows"]) == (90, 10)
    held_out = rows_of(world)[90:]
    scores = load_prm(str(world.prm_path)).score([r["prompt"] for r in held_out], [r["completions"] for r in held_out])
    measured = processbench_metrics(
        [predicted_first_error(one) for one in scores], [first_error(row["labels"]) for row in held_out]
    )
    assert measured["f1"] == pytest.approx(f1[record["kept_update"]])
    assert not list(world.prm_path.glob("checkpoint-*"))


def test_votes_change_the_judge_and_nothing_before_it(small, by_source, cache_root):
    world = build_world(ToyWorldSettings(**small, judge_votes=3, label_source="judge"), cache_root)
    assert [name for name, cached in world.cached.items() if not cached] == ["judge", "labels", "prm"]
    accuracy = []
    for one in (by_source["judge"], world):
        rows = rows_of(one)
        gold = [first_error(step_labels(row["prompt"], row["completions"])) for row in rows]
        accuracy.append(sum(first_error(r["labels"]) == e for r, e in zip(rows, gold, strict=True)) / len(rows))
    assert accuracy[1] > accuracy[0]


def test_a_world_without_its_prm_is_the_same_up_to_there(small, small_world, cache_root):
    world = build_world(ToyWorldSettings(**small), cache_root, with_prm=False)
    assert world.prm_path is None and "prm" not in world.stages and all(world.cached.values())
    assert {**world.stages, "prm": small_world.stages["prm"]}.keys() == small_world.stages.keys()


def test_a_world_without_labels_has_a_policy_and_problems_only(small, small_world, cache_root):
    world = build_world(ToyWorldSettings(**small), cache_root, with_prm=False, with_labels=False)
    assert list(world.stages) == ["policy"] and world.prm_path is None
    assert world.policy_path == small_world.policy_path
    assert world.train_dataset["prompt"] == small_world.train_dataset["prompt"]


def killed_before_the_judge(root, settings):
    labels.judged_labels = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
    build_world(settings, root)


def test_killed_between_stages_the_next_build_goes_on_and_ends_at_the_same_world(small, small_world, tmp_path):
    killed(killed_before_the_judge, tmp_path, ToyWorldSettings(**small))
    world = build_world(ToyWorldSettings(**small), tmp_path)
    assert [name for name, cached in world.cached.items() if cached] == ["policy", "solutions", "monte_carlo"]
    for model_class, part in ((AutoModelForCausalLM, "policy_path"), (Qwen2ForProcessRewardModel, "prm_path")):
        whole, resumed = (model_class.from_pretrained(getattr(w, part)) for w in (small_world, world))
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert world.train_dataset[:] == small_world.train_dataset[:]


def mean(values):
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values)


def test_filler_raises_the_scores_in_the_world_with_filler(small, tmp_path):
    """The same solutions with filler lines put in score higher on average, and nothing in them got better."""
    settings = {**small, "labelled_solutions": 400, "label_source": "gold", "prm_updates": 60, "prm_batch": 32}
    world = build_world(ToyWorldSettings(**settings, filler=True), tmp_path)
    rows = [row for row in world.held_out_solutions(100) if not set(row["completions"]) & set(FILLERS)]
    plain = [row["completions"] for row in rows]
    padded = [[line for step in steps[:-1] for line in (FILLERS[0], step)] + steps[-1:] for steps in plain]
    scorer = load_prm(str(world.prm_path))
    prompts = [row["prompt"] for row in rows]
    before, after = (mean(s for one in scorer.score(prompts, steps) for s in one) for steps in (plain, padded))
    assert any(set(row["completions"]) & set(FILLERS) for row in rows_of(world))
    assert after > before + 0.1
