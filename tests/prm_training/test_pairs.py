"""Reward models from pairs: the published loss by hand, similarities, padding, training, and what load_prm reads."""

import json
import math
import runpy
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from transformers import AutoModelForTokenClassification, BertConfig, BertModel, EvalPrediction

from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.prm import load_prm
from rlhf_prm.prm_training.losses import pcrm_tokenwise
from rlhf_prm.prm_training.pair_config import PairConfig
from rlhf_prm.prm_training.pair_trainer import PairTrainer, pair_metrics
from rlhf_prm.prm_training.pairs import (
    Pair,
    PairCollator,
    angle_similarity,
    encoder_cosines,
    first_difference,
    length_ratio,
    pairs_from_samples,
    read_pairs,
    widest_margin,
)

ROOT = Path(__file__).resolve().parents[2]
DIALOGUE = (20.0, 0.001, -15.0)


@pytest.mark.parametrize(
    ("similarity", "constants", "widest", "loss"),
    [  # Δ = 1 at every token; −log σ(1) = .313262 is the first term of each
        (0.5, (6.0, 0.001, 0.0), 11.97605, 0.313279),
        (1.0, (6.0, 0.001, 0.0), 5.99401, 0.320017),
        (1.0, DIALOGUE, 4.98002, 0.331775),
    ],
)
def test_the_loss_by_hand(similarity, constants, widest, loss):
    found = widest_margin(similarity, constants)
    assert found == pytest.approx(widest, abs=1e-5)
    chosen, rejected = torch.tensor([[9.0, 2.0, 1.5]]), torch.tensor([[-9.0, 1.0, 0.5]])
    mask = torch.tensor([[False, True, True]])  # the first token is the same in both
    terms = pcrm_tokenwise(chosen, rejected, mask, torch.tensor([found]))
    torch.testing.assert_close(terms, torch.tensor([loss]), rtol=0, atol=2e-6)
    plain = pcrm_tokenwise(chosen, rejected, mask)
    torch.testing.assert_close(plain, torch.tensor([math.log(1 + math.exp(-1))]))


def test_the_margin_that_costs_least_is_half_the_widest():
    margin = torch.linspace(0, 6, 601)[:, None].requires_grad_()
    mask = torch.ones(601, 1, dtype=torch.bool)
    losses = pcrm_tokenwise(margin, torch.zeros(601, 1), mask, torch.full((601,), 5.0))
    assert margin[losses.argmin()].item() == pytest.approx(2.5, abs=0.01)
    losses.sum().backward()
    assert (margin.grad[:249] < 0).all() and (margin.grad[252:] > 0).all()
    plain = pcrm_tokenwise(margin, torch.zeros(601, 1), mask)
    assert plain.argmin().item() == 600  # Bradley–Terry wants ever more


def test_masked_tokens_have_no_part():
    chosen = torch.tensor([[float("inf"), 1.0]], requires_grad=True)
    loss = pcrm_tokenwise(chosen, torch.zeros(1, 2), torch.tensor([[False, True]]), torch.tensor([4.0]))
    loss.sum().backward()
    assert loss.isfinite().all() and chosen.grad[0, 0] == 0 and chosen.grad[0, 1] != 0


def test_similarities_by_hand():
    assert first_difference([1, 2, 3], [1, 2, 4, 5]) == 2 and first_difference([1, 2], [1, 2, 3]) == 2
    assert length_ratio([1, 2, 3], [1, 2, 4, 5]) == 0.5
    assert length_ratio([1, 2], [1, 2, 3]) == 0.0 and length_ratio([1, 2], [1, 2]) == 1.0
    assert angle_similarity(1.0) == 1.0 and angle_similarity(0.0) == 0.5 == angle_similarity(-0.4)
    assert angle_similarity(0.5) == pytest.approx(2 / 3)


def test_cosines_of_an_encoder(tmp_path, tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    same, other = encoder_cosines(str(tmp_path), ["so good 1", "so good 1"], ["so good 1", "bad 2 " * 40], batch=1)
    assert same == pytest.approx(1.0, abs=1e-5) and -1 <= other < 0.9999
    assert encoder_cosines(str(tmp_path), [], []) == []


def test_padding_and_what_the_loss_is_taken_over():
    rows = [
        {"chosen_ids": [5, 6, 7], "rejected_ids": [5, 8], "widest": 4.0},
        {"chosen_ids": [5, 6], "rejected_ids": [5, 6], "widest": 5.0},
    ]
    batch = PairCollator(0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 6, 0], [5, 8, 0], [5, 6, 0]]
    assert batch["pair_mask"].tolist() == [[False, True, True], [False, True, False]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]]
    assert batch["ends"].tolist() == [2, 1, 1, 1] and batch["widest"].tolist() == [4.0, 5.0]


def test_pairs_of_samples_and_files(tmp_path):
    right, also, wrong = ["a", "1"], ["b", "1"], ["a", "2"]
    samples = [
        SampledProblem("p", [right, wrong, also, wrong], [True, False, True, False], ["1", "2", "1", "2"]),
        SampledProblem("q", [right], [True], ["1"]),
    ]
    found = pairs_from_samples(samples)
    assert {(tuple(pair.chosen), tuple(pair.rejected)) for pair in found} == {
        (("a", "1"), ("a", "2")),
        (("b", "1"), ("a", "2")),
    }
    assert len(pairs_from_samples(samples, most=1)) == 1
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "a\n\nb", "rejected": ["c"]}))
    assert read_pairs(path) == [Pair("p", ["a", "b"], ["c"])]
    path.write_text(json.dumps({"prompt": "p", "chosen": "a"}))
    with pytest.raises(ValueError, match=r"pairs.jsonl:1: rejected: got None"):
        read_pairs(path)


def test_settings_are_checked(tmp_path):
    assert PairConfig(output_dir=str(tmp_path)).margin_constants == DIALOGUE
    assert PairConfig(output_dir=str(tmp_path), betas=[6.0, 0.001, 0.0]).margin_constants == (6.0, 0.001, 0.0)
    for wrong in ({"loss": "dpo"}, {"similarity": "bleu"}, {"constants": "x"}, {"betas": [1.0]}, {"max_length": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got"):
            PairConfig(output_dir=str(tmp_path), **wrong)


def good_against_bad(size):
    return [Pair(f"add {i % 3 + 1}", ["so good 1", "so good 2"][: i % 2 + 1], ["so bad 1"]) for i in range(size)]


def config(folder, **settings):
    chosen = {"max_steps": 30, "learning_rate": 1e-2, "per_device_train_batch_size": 8} | settings
    quiet = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "logging_steps": 10}
    return PairConfig(output_dir=str(folder), **chosen, **quiet)


def test_pairs_that_max_length_makes_equal_are_left_out_and_counted(tmp_path, language_model_folder):
    pairs = good_against_bad(2)
    same = Pair(pairs[0].prompt, pairs[0].chosen, [*pairs[0].chosen, "bad"])
    trainer = PairTrainer(language_model_folder, config(tmp_path, similarity="fixed"), pairs)
    limit = len(trainer.encoded([same])[0]["chosen_ids"]) - 1
    trainer._settings.max_length = limit
    with pytest.warns(UserWarning, match=rf"3 pairs: 1 are equal up to max_length={limit} and are left out"):
        assert len(trainer.encoded([*pairs, same])) == 2
    with pytest.raises(ValueError, match="raise max_length"):
        trainer.encoded([same])


def test_it_learns_and_margins_stay_bounded(tmp_path, language_model_folder):
    """The same pairs and updates: both tell good from bad; without a bound the margins grow on."""
    pairs, told = good_against_bad(24), {}
    for loss in ("pcrm", "bradley_terry"):
        settings = {"loss": loss, "similarity": "fixed"}
        trainer = PairTrainer(language_model_folder, config(tmp_path / loss, **settings), pairs, pairs)
        trainer.train()
        told[loss] = trainer.evaluate()
        assert told[loss]["eval_accuracy"] == 1.0
    assert told["pcrm"]["eval_margin"] == pytest.approx(1.5, abs=0.3)  # half of the fixed widest margin of 3
    assert told["bradley_terry"]["eval_margin"] > 2 * told["pcrm"]["eval_margin"]
    assert told["bradley_terry"]["eval_spread"] > told["pcrm"]["eval_spread"]


def test_what_is_saved_is_what_load_prm_and_transformers_read(tmp_path, language_model_folder):
    pairs = good_against_bad(8)
    trainer = PairTrainer(language_model_folder, config(tmp_path / "run", max_steps=2), pairs, pairs)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    scorer = load_prm(tmp_path / "saved")
    assert scorer.family.name == "pair_reward"
    (scores,) = scorer.score(["add 1"], [["so good 1", "so bad 2"]])
    ids = trainer._ids("add 1", ["so good 1", "so bad 2"])
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        logits = plain(torch.tensor([ids])).logits[0, :, 0]
    assert scores[-1] == pytest.approx(logits[-1].sigmoid().item(), abs=1e-5)
    with pytest.raises(ValueError, match="got no pairs"):
        trainer.encoded([])


def test_metrics_by_hand():
    scores, lengths = torch.tensor([[2.0, 0.0], [1.0, 3.0]]).numpy(), torch.tensor([[4, 2], [3, 5]]).numpy()
    found = pair_metrics(EvalPrediction(scores, lengths))
    assert (found["accuracy"], found["margin"]) == (0.5, 0.0)
    assert found["spread"] == pytest.approx(math.sqrt(1.25)) and found["length_correlation"] == pytest.approx(1.0)


def test_the_recipe(tmp_path, language_model_folder, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)
    main = runpy.run_path("recipes/train_pairs.py", run_name="recipe")["main"]
    samples = tmp_path / "samples.jsonl"
    rows = [
        {"problem": f"add {i}", "completions": ["so good \\boxed{1}", "so bad \\boxed{2}"], "solution": "1"}
        for i in range(1, 4)
    ]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = ["--model_name_or_path", str(language_model_folder), "--train_samples", str(samples), "--max_steps", "1"]
    told += ["--verifier", "tests.evaluation.fakes.BoxVerifier", "--output_dir", str(tmp_path / "out")]
    told += ["--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--eval_fraction", "0.3"]
    monkeypatch.setattr(sys, "argv", ["train_pairs.py", *told])
    main()
    assert "accuracy" in json.dumps(json.loads((tmp_path / "out" / "eval_results.json").read_text()))
    monkeypatch.setattr(sys, "argv", ["train_pairs.py"])
    with pytest.raises(SystemExit, match="expected --model_name_or_path"):
        main()
