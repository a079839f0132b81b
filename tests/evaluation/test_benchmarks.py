"""MR-Ben, PRMBench and RMB by hand and on the real files."""

import json
import math

import pytest

from rlhf_prm.evaluation.mr_ben import MRBenItem, load_mr_ben, matthews_correlation, mr_ben, mr_score_parts
from rlhf_prm.evaluation.prmbench import PRMBenchItem, load_prmbench, prmbench, step_report
from rlhf_prm.evaluation.rmb import BestOfNItem, load_rmb, rmb
from tests.evaluation.fakes import RuleScorer

good_steps = RuleScorer(lambda problem, before, step: "bad" not in step)


def test_matthews_correlation_by_hand():
    # TP 2, TN 1, FP 1, FN 1: (2·1 − 1·1)/√(3·3·2·2) = 1/6
    assert matthews_correlation([True, True, False, True, False], [True, True, False, False, True]) == pytest.approx(
        1 / 6
    )
    assert matthews_correlation([True, True], [True, False]) == 0.0


def test_mr_score_leaves_the_reason_out():
    perfect = mr_score_parts([-1, 2, 0], [-1, 2, 0])
    assert perfect == {"mcc": 1.0, "acc_step": 1.0, "mr_score_without_reason": 0.5}
    inverted = mr_score_parts([0, -1], [-1, 0])
    assert inverted["mcc"] == -1.0 and inverted["mr_score_without_reason"] == 0.0  # max(0, MCC)
    # wrong solution recognised, wrong step named: MCC 1, ACC_step 0
    assert mr_score_parts([-1, 1], [-1, 0])["mr_score_without_reason"] == pytest.approx(0.2)


def test_mr_ben_by_subject_and_on_the_real_file(shared_data, tmp_path):
    items = [MRBenItem("p", ["good", "bad"], 1, "algebra"), MRBenItem("p", ["good"], -1, "logic")]
    results = mr_ben(good_steps, items)
    assert results["all"]["mr_score_without_reason"] == 0.5 and results["algebra"]["samples"] == 1
    real = load_mr_ben(shared_data / "mrben_math.jsonl")
    assert len(real) == 918 and sum(item.label == -1 for item in real) == 149
    assert all(item.label < len(item.steps) for item in real)
    assert real[0].label == 0 and real[0].problem.endswith("D: 2sqrt(2) ")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"Question": "p"}')
    with pytest.raises(ValueError, match=r"broken.jsonl:1: Model_Solution_Steps: got nothing"):
        load_mr_ben(broken)


def good_unless_mute(problem, before, step):
    return math.nan if problem == "mute" else "bad" not in step


def test_mr_ben_a_silent_judge_misses_and_an_unscored_prm_finds_nothing_wrong():
    items = [
        MRBenItem("mute", ["good", "bad"], 1, "algebra"),
        MRBenItem("mute", ["good"], -1, "algebra"),
        MRBenItem("p", ["good"], -1, "logic"),
        MRBenItem("p", ["bad"], 0, "logic"),
    ]
    # of a judge: called correct +, −, +, −, and they are −, +, +, −: TP = TN = FP = FN = 1
    judged = mr_ben(RuleScorer(good_unless_mute), items, silence_is_missed=True)
    assert (judged["all"]["mcc"], judged["all"]["acc_step"]) == (0.0, 0.5)
    assert judged["algebra"]["mcc"] == -1.0
    assert [judged[name]["unscorable"] for name in ("algebra", "logic", "all")] == [2, 0, 2]
    # of a PRM: called correct +, +, +, −: TP 2, TN 1, FP 1, FN 0: 2/√(3·2·2·1)
    scored = mr_ben(RuleScorer(good_unless_mute), items)
    assert scored["all"]["mcc"] == pytest.approx(3**-0.5) and scored["all"]["unscorable"] == 2


def test_prmbench_a_silent_judge_misses_and_an_unscored_prm_finds_nothing_wrong():
    items = [
        PRMBenchItem("mute", ["good", "bad"], [True, False], "circular"),
        PRMBenchItem("p", ["good", "bad"], [True, False], "deception"),
    ]
    # of a judge: said FT TF, truth TF TF: each class has one hit, one miss, one false alarm
    judged = prmbench(RuleScorer(good_unless_mute), items, silence_is_missed=True)
    assert judged["circular"]["accuracy"] == judged["circular"]["prm_score"] == 0.0
    assert [judged["all"][key] for key in ("f1_right", "f1_wrong", "accuracy", "samples")] == [0.5, 0.5, 0.5, 2]
    assert [judged[name]["unscorable"] for name in ("circular", "deception", "all")] == [1, 0, 1]
    # of a PRM: said TT TF: right 4/5, wrong 2/3
    scored = prmbench(RuleScorer(good_unless_mute), items)["all"]
    assert (scored["f1_right"], scored["f1_wrong"]) == (pytest.approx(4 / 5), pytest.approx(2 / 3))
    assert scored["unscorable"] == 1


def test_prmbench_by_hand():
    # right: predicted TTF F, truth TFF T → TP 1, FP 1, FN 1: ½; wrong class: TP 1, FP 1, FN 1: ½
    report = step_report([True, True, False, False], [True, False, False, True])
    assert report == {"f1_right": 0.5, "f1_wrong": 0.5, "accuracy": 0.5, "prm_score": 0.5}
    assert step_report([True, False], [True, True])["prm_score"] == pytest.approx(2 / 3)  # nothing wrong to find


def test_prmbench_categories_and_the_real_file(shared_data):
    items = [
        PRMBenchItem("p", ["good", "bad"], [True, False], "deception"),
        PRMBenchItem("p", ["good", "good"], [True, False], "circular"),
    ]
    results = prmbench(good_steps, items)
    assert list(results) == ["circular", "deception", "all"]
    assert results["deception"]["prm_score"] == 1.0
    assert results["circular"]["f1_wrong"] == 0.0 and results["circular"]["f1_right"] == pytest.approx(2 / 3)
    assert results["all"]["samples"] == 2 and results["all"]["accuracy"] == 0.75
    real = load_prmbench(shared_data / "prmbench_subset_394.jsonl")
    assert len(real) == 394
    always_right = prmbench(RuleScorer(lambda *_: 1.0), real)
    assert len(always_right) == 10 and always_right["multi_solutions"]["prm_score"] == 1.0
    wrong_share = sum(not label for item in real for label in item.labels) / sum(len(item.labels) for item in real)
    assert always_right["all"]["accuracy"] == pytest.approx(1 - wrong_share)


def test_rmb_counts_an_item_iff_the_winner_outscores_every_loser(tmp_path):
    scorer = RuleScorer(lambda problem, before, step: float(step))
    items = [
        BestOfNItem("p", "0.9\n\n0.9", ["0.8", "0.7"], "math"),  # .81 beats .8 and .7
        BestOfNItem("p", "0.5", ["0.4", "0.5"], "math"),  # a tie does not outscore
        BestOfNItem("p", "0.3", ["0.2"], "code"),
    ]
    assert rmb(scorer, items) == {
        "math": {"accuracy": 0.5, "items": 2, "unscorable": 0}, "code": {"accuracy": 1.0, "items": 1, "unscorable": 0},
        "all": {"accuracy": pytest.approx(2 / 3), "items": 3, "unscorable": 0},
    }  # fmt: skip
    assert rmb(scorer, items, how="last")["math"]["accuracy"] == 0.5
    path = tmp_path / "rmb.json"
    published = {
        "conversation_input": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}],
        "bon_best": {"answer": "a"}, "loser_list": [{"answer": "b"}, {"answer": "c"}], "category_path": "Chat/Small",
    }  # fmt: skip
    path.write_text(json.dumps([published, {"prompt": "p", "winner": "w", "losers": ["l"]}]))
    assert load_rmb(path) == [
        BestOfNItem("hi\n\nyes?", "a", ["b", "c"], "Chat/Small"),
        BestOfNItem("p", "w", ["l"], "all"),
    ]
    assert set(rmb(RuleScorer(lambda *_: 0.5), load_rmb(path))) == {"all", "Chat", "Chat/Small"}
    path.write_text('{"prompt": "p"}')
    with pytest.raises(ValueError, match=r"rmb.json:1: winner: got nothing \(the columns are prompt\)"):
        load_rmb(path)


def test_rmb_an_item_with_an_unscored_answer_is_not_won():
    scorer = RuleScorer(lambda problem, before, step: float(step))
    items = [
        BestOfNItem("p", "0.9", ["nan"], "math"),
        BestOfNItem("p", "0.9", ["0.1\n\nnan", "0.2"], "math"),
        BestOfNItem("p", "nan", ["0.1"], "math"),
        BestOfNItem("p", "0.5", ["0.4"], "code"),
    ]
    assert rmb(scorer, items) == {
        "math": {"accuracy": 0.0, "items": 3, "unscorable": 3}, "code": {"accuracy": 1.0, "items": 1, "unscorable": 0},
        "all": {"accuracy": 0.25, "items": 4, "unscorable": 3},
    }  # fmt: skip


def test_rmb_pairs_and_folders(tmp_path):
    """The published layout: a folder of categories for each set, and rows in the shape of the published ones."""

    def published(chosen, rejected, category):
        turn = {"content": "predict the next number", "language": "English", "role": "user"}
        answers = {"chosen": {"llm_name": "a", "answer": chosen, "score": 5.0}}
        answers["reject"] = {"llm_name": "b", "answer": rejected, "score": 4.0}
        return {"pair_uid": "6068", "conversation_input": [turn], **answers, **category}

    pairs, lists = tmp_path / "Pairwise_set" / "Reasoning", tmp_path / "BoN_set"
    pairs.mkdir(parents=True), lists.mkdir()
    path = {"category_path": "Pairwise_set/Reasoning/Patterns"}
    rows = [published("0.9", "0.8", path), published("0.5", "0.5", path), published("0.9", "0.1", {})]
    (pairs / "Patterns.json").write_text(json.dumps(rows))
    (lists / "S1.json").write_text(json.dumps([{"prompt": "p", "winner": "0.3", "losers": ["0.2", "0.4"]}]))
    (lists / "S2.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "0.3", "rejected": "0.2"}))
    items = load_rmb(tmp_path)
    assert [item.category for item in items] == ["BoN_set/S1", "BoN_set/S2", *["Pairwise_set/Reasoning/Patterns"] * 3]
    scorer = RuleScorer(lambda problem, before, step: float(step))
    found = {name: (row["accuracy"], row["items"]) for name, row in rmb(scorer, items).items()}
    two_thirds = pytest.approx(2 / 3)
    assert found == {
        "BoN_set": (0.5, 2), "BoN_set/S1": (0.0, 1), "BoN_set/S2": (1.0, 1), "Pairwise_set": (two_thirds, 3),
        "Pairwise_set/Reasoning": (two_thirds, 3), "Pairwise_set/Reasoning/Patterns": (two_thirds, 3),
        "all best-of-n": (0.0, 1), "all pairwise": (0.75, 4),
    }  # fmt: skip
    (lists / "S2.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "0.3"}))
    with pytest.raises(ValueError, match=r"S2.jsonl:1: rejected: got nothing"):
        load_rmb(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="file in the folder"):
        load_rmb(tmp_path / "empty")
