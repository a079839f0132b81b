"""PRMTrainer on a tiny model: what it learns, what it leaves alone, what it saves."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, EvalPrediction

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.losses import pqm_ranking, step_values
from rlhf_prm.prm_training.trainer import PRMTrainer, merge_adapter, step_metrics
from tests.prm_training.conftest import stepwise_rows


def config(folder, **settings) -> PRMConfig:
    defaults = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 1e-2,
        "report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "seed": 0,
        "lr_scheduler_type": "constant", "weight_decay": 0.1,
    }  # fmt: skip
    return PRMConfig(**defaults | settings)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("loss", ["ce", "mse", "pqm"])
def test_every_loss_learns_the_rule_and_the_metrics_see_it(loss, model, tokenizer, tmp_path):
    args = config(tmp_path, loss=loss, max_steps=60, per_device_train_batch_size=16, zeta=2.0)
    trainer = PRMTrainer(model, args, stepwise_rows(256), stepwise_rows(64, seed=1), tokenizer)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_f1"] > 0.9 > before["eval_f1"]
    assert after["eval_auroc"] > 0.95 and after["eval_loss"] < before["eval_loss"]
    assert 0 <= after["eval_ece"] <= 1
    if loss == "mse":  # soft labels .75/.25 are fitted, so hard labels look miscalibrated by .25
        assert after["eval_ece"] == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("loss", ["ce", "mse", "pqm"])
def test_micro_batches_give_the_same_update_as_one_batch(loss, qwen2_config, tokenizer, tmp_path):
    ends = []
    for batch, accumulation in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        args = config(
            tmp_path, loss=loss, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            max_steps=1, train_sampling_strategy="sequential", optim="sgd", steps_after_error="keep",
        )  # fmt: skip
        trainer = PRMTrainer(
            Qwen2ForProcessRewardModel(qwen2_config), args, stepwise_rows(8), processing_class=tokenizer
        )
        trainer.train()
        ends.append(weights(trainer.model))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-5, atol=1e-7)


def test_only_step_ends_count(model, tokenizer, tmp_path):
    """The loss on one batch, by hand from the logits at the separators, whatever the padding."""
    args = config(tmp_path, loss="pqm", zeta=1.0)
    trainer = PRMTrainer(model, args, stepwise_rows(6), processing_class=tokenizer)
    rows = [trainer.train_dataset[index] for index in range(6)]
    loss = trainer.compute_loss(model, trainer.data_collator(rows))
    by_hand = []
    for row in rows:
        assert [tokenizer.convert_ids_to_tokens(row["input_ids"])[end] for end in row["step_ends"]] == [
            "<extra_0>"
        ] * len(row["step_labels"])
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[:, row["step_ends"]]
        labels = torch.tensor([row["step_labels"]]) == 1
        by_hand.append(pqm_ranking(step_values(logits), labels, torch.ones_like(labels), zeta=1.0))
    torch.testing.assert_close(loss, torch.cat(by_hand).mean(), rtol=1e-5, atol=1e-6)


def test_first_stage_moves_the_head_only(model, tokenizer, tmp_path):
    before = weights(model)
    trainer = PRMTrainer(model, config(tmp_path, head_updates=3, max_steps=3), stepwise_rows(32), None, tokenizer)
    trainer.train()
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]) == (not name.startswith("score.")), name


def test_second_stage_moves_everything_and_the_head_has_its_own_rate(model, tokenizer, tmp_path):
    before = weights(model)
    args = config(tmp_path, head_updates=2, head_learning_rate=0.03, max_steps=3)
    trainer = PRMTrainer(model, args, stepwise_rows(32), None, tokenizer)
    trainer.train()
    assert not any(torch.equal(value, before[name]) for name, value in weights(model).items() if "norm" not in name)
    rates = {group["is_head"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {True: 0.03, False: 1e-2}


def test_saved_model_scores_as_the_trained_one(language_model_folder, tokenizer, tmp_path):
    trainer = PRMTrainer(str(language_model_folder), config(tmp_path / "prm"), stepwise_rows(32))
    body = Qwen2ForProcessRewardModel.with_new_head(language_model_folder).model
    torch.testing.assert_close(trainer.model.model.embed_tokens.weight, body.embed_tokens.weight)
    trainer.train()
    trainer.save_model()
    loaded = Qwen2ForProcessRewardModel.from_pretrained(tmp_path / "prm")
    ids = torch.tensor([trainer.train_dataset[0]["input_ids"]])
    trainer.model.eval()
    torch.testing.assert_close(loaded(ids).logits, trainer.model(ids).logits)
    rows = stepwise_rows(16, seed=3)
    scores = load_prm(tmp_path / "prm").score(list(rows["prompt"]), list(rows["completions"]))
    predicted = PRMTrainer(trainer.model, config(tmp_path, steps_after_error="keep"), None, rows, tokenizer)
    evaluated = predicted.predict(predicted.eval_dataset.select(range(len(rows))))
    order = sorted(tuple(round(float(p), 4) for p in row if p != -100) for row in evaluated.predictions)
    assert order == sorted(tuple(round(score, 4) for score in row) for row in scores)
    written = json.loads((tmp_path / "prm" / "config.json").read_text())
    assert written["architectures"] == ["Qwen2ForProcessRewardModel"] and written["model_type"] == "qwen2"
    assert AutoTokenizer.from_pretrained(tmp_path / "prm").convert_tokens_to_ids("<extra_0>") == 3
    again = PRMTrainer(str(tmp_path / "prm"), config(tmp_path / "more"), stepwise_rows(8))  # a PRM keeps its head
    torch.testing.assert_close(again.model.score[2].weight, loaded.score[2].weight)


def test_resuming_continues_the_two_stages(qwen2_config, tokenizer, tmp_path):
    ends = []
    for resume in (False, True):
        torch.manual_seed(0)
        model = Qwen2ForProcessRewardModel(qwen2_config)
        args = config(tmp_path, head_updates=3, max_steps=4, save_strategy="steps", save_steps=2.0)
        trainer = PRMTrainer(model, args, stepwise_rows(32), None, tokenizer)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2") if resume else None)
        ends.append(weights(model))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name])


@pytest.mark.parametrize("target_modules", [["q_proj", "v_proj"], "all-linear"])
def test_lora_trains_adapters_and_head_and_saves_a_whole_model(
    target_modules, language_model_folder, tokenizer, tmp_path
):
    lora = LoraConfig(r=4, target_modules=target_modules, init_lora_weights=False)
    out = tmp_path / "prm"
    trainer = PRMTrainer(str(language_model_folder), config(out), stepwise_rows(32), peft_config=lora)
    before = weights(trainer.model)
    trainer.train()
    moved = {name for name, value in weights(trainer.model).items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)
    assert any("score.modules_to_save" in name for name in moved)
    trainer.save_model()
    ids = torch.tensor([trainer.train_dataset[0]["input_ids"]])
    trainer.model.eval()
    expected = trainer.model(ids).logits
    torch.testing.assert_close(Qwen2ForProcessRewardModel.from_pretrained(out)(ids).logits, expected)
    merge_adapter(language_model_folder, out / "adapter", tmp_path / "merged")
    merged = Qwen2ForProcessRewardModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(ids).logits, expected)


def test_a_tokenizer_without_the_separator_gets_it(language_model_folder, tokenizer, tmp_path):
    text = (language_model_folder / "tokenizer.json").read_text().replace("<extra_0>", "<other>")
    (language_model_folder / "tokenizer.json").write_text(text)
    settings = language_model_folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("<extra_0>", "<other>"))
    trainer = PRMTrainer(str(language_model_folder), config(tmp_path / "prm"), stepwise_rows(8))
    assert trainer.processing_class.convert_tokens_to_ids("<extra_0>") == 11
    assert trainer.model.get_input_embeddings().num_embeddings == 12
    trainer.train()


def test_metrics_by_hand():
    scores = np.array([[0.9, 0.2, -100], [0.4, -100, -100], [0.8, 0.6, 0.7]])
    labels = np.array([[1, 0, -100], [1, -100, -100], [1, 1, 0]])
    got = step_metrics(EvalPrediction(predictions=scores, label_ids=(labels, np.array([1, -1, 2]))))
    # first errors: predicted 1, 0, −1; true 1, −1, 2 → a = 1/2, b = 0 → F1 0
    assert (got["error_accuracy"], got["correct_accuracy"], got["f1"]) == (0.5, 0.0, 0.0)
    assert got["auroc"] == pytest.approx(6 / 8)  # rights .9 .4 .8 .6 over wrongs .2 .7: 4 + 2 of 8
    # bins of one score each: |.9−1|, |.2−0|, |.4−1|, |.8−1|, |.6−1|, |.7−0|
    assert got["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.2 + 0.4 + 0.7) / 6)


def test_an_error_past_max_length_is_missed_and_its_solution_is_not_correct(model, tokenizer, tmp_path):
    steps = ["so good 1", "so good 2", "so bad 3"]
    rows = [
        {"prompt": "add 1", "completions": steps[:2], "labels": [True, True]},
        {"prompt": "add 1", "completions": steps, "labels": [True, True, False]},
    ]
    args = config(tmp_path, max_length=10, per_device_eval_batch_size=1)
    with pytest.warns(UserWarning, match="the eval dataset has 2 rows: 1 lose their last steps to max_length=10, 1 of"):
        trainer = PRMTrainer(model, args, None, Dataset.from_list(rows), tokenizer)
    assert [row["step_labels"] for row in trainer.eval_dataset] == [[1, 1], [1, 1]]
    with torch.no_grad():  # every score is 1
        trainer.model.score[2].weight.zero_()
        trainer.model.score[2].bias.copy_(torch.tensor([-9.0, 9.0]))
    found = trainer.evaluate()
    # one wrong solution, its error missed; one right one: a = 0, b = 1; all errors at one step: 2·1/(1 + 1)² = 1/2
    assert (found["eval_error_accuracy"], found["eval_correct_accuracy"], found["eval_f1"]) == (0.0, 1.0, 0.0)
    assert found["eval_chance_f1"] == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "bce"}, "loss: got 'bce', expected one of ce, mse, pqm"),
        ({"steps_after_error": "maybe"}, "expected one of drop, keep"),
        ({"head_updates": -1}, "head_updates: got -1"),
        ({"head_learning_rate": 0.0}, "head_learning_rate: got 0.0"),
        ({"max_length": 1}, "max_length: got 1"),
        ({"remove_unused_columns": True}, "remove_unused_columns: got True"),
    ],
)
def test_config_says_what_is_wrong(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_errors_of_the_trainer(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="expected its tokenizer"):
        PRMTrainer(model, config(tmp_path), stepwise_rows(4))
    plateau = config(
        tmp_path, head_updates=1, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="steps", eval_steps=1.0
    )
    trainer = PRMTrainer(model, plateau, stepwise_rows(8), stepwise_rows(4), tokenizer)
    with pytest.raises(ValueError, match="head_updates needs a schedule"):
        trainer.train()


def test_low_precision_weights_without_float32_copies_are_refused(model, tokenizer, tmp_path):
    """To train; to evaluate they are taken."""
    half = model.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"learning_rate: got 1e-05 for bfloat16 weights.*dtype: float32"):
        PRMTrainer(half, config(tmp_path, learning_rate=1e-5), stepwise_rows(8), None, tokenizer)
    PRMTrainer(half, config(tmp_path, learning_rate=1e-5), None, stepwise_rows(8), tokenizer)
