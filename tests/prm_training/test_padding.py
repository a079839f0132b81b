"""The fast way through the model gives the numbers of one row at a time and of one padded batch."""

import pytest
import torch

from rlhf_prm.prm_training import losses
from rlhf_prm.prm_training.trainer import PRMTrainer
from tests.prm_training.conftest import stepwise_rows
from tests.prm_training.test_trainer import config


def padded_loop(trainer, rows) -> torch.Tensor:
    """The plain way: the whole padded batch with its mask, the head on every token, then the step ends."""
    batch = trainer.data_collator(rows)
    logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits = torch.stack([one[ends] for one, ends in zip(logits, batch["step_ends"], strict=True)])
    labels, mask = batch["labels"] == 1, batch["labels"] != -100
    if trainer.args.loss == "pqm":
        return losses.pqm_ranking(losses.step_values(logits), labels, mask, zeta=trainer.args.zeta).mean()
    if trainer.args.loss == "mse":
        return losses.soft_mean_squared_error(logits, batch["soft_labels"], mask).sum() / mask.sum()
    return losses.hard_cross_entropy(logits, labels, mask).sum() / mask.sum()


@pytest.mark.parametrize("loss", ["ce", "mse", "pqm"])
def test_an_update_of_rebalanced_micro_batches_equals_the_padded_loop(loss, model, tokenizer, tmp_path):
    args = config(tmp_path, loss=loss, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    trainer = PRMTrainer(model, args, stepwise_rows(12), processing_class=tokenizer)
    micro_batches = list(trainer.get_train_dataloader())
    sizes = [len(batch["labels"]) for batch in micro_batches]
    assert len(sizes) == 3 and sum(sizes) == 12 and len(set(sizes)) > 1  # by tokens, not by rows
    expected = padded_loop(trainer, [trainer.train_dataset[index] for index in range(12)])
    expected.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    counted = trainer._get_num_items_in_batch(micro_batches, torch.device("cpu"))
    parts = [trainer.compute_loss(model, batch, num_items_in_batch=counted) for batch in micro_batches]
    sum(parts).backward()
    torch.testing.assert_close(sum(parts), expected, rtol=1e-5, atol=1e-5)
    assert all(value.grad is not None for value in model.parameters())
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name], rtol=1e-5, atol=1e-5, msg=name)


def test_rebalanced_micro_batches_pad_less_than_random_ones(model, tokenizer, tmp_path):
    rows, padding = stepwise_rows(96), {}
    for strategy in ("random", "batch_rebalance"):
        args = config(
            tmp_path, train_sampling_strategy=strategy, per_device_train_batch_size=8, gradient_accumulation_steps=4
        )
        trainer = PRMTrainer(model, args, rows, processing_class=tokenizer)
        masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
        assert sum(len(mask) for mask in masks) == 96
        padding[strategy] = sum(int((mask == 0).sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert padding["batch_rebalance"] < padding["random"] / 2


def test_every_update_is_a_random_sample_of_right_and_wrong_solutions(model, tokenizer, tmp_path):
    """Rows cut at their first error are short. Sorted by length over the data set, updates would see one kind only."""
    args = config(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=4)
    trainer = PRMTrainer(model, args, stepwise_rows(320), processing_class=tokenizer)
    batches = list(trainer.get_train_dataloader())
    updates = [batches[start : start + 4] for start in range(0, len(batches), 4)]
    wrong = [
        sum(int((batch["labels"] == 0).any(1).sum()) for batch in update) / sum(len(b["labels"]) for b in update)
        for update in updates
    ]
    share = sum(wrong) / len(wrong)
    assert len(wrong) == 10 and 0.3 < share < 0.8
    assert all(abs(one - share) < 0.3 for one in wrong)


def test_logits_at_step_ends_are_those_of_all_tokens(model):
    ids = torch.randint(4, 11, (3, 9))
    ends = torch.tensor([[2, 8], [1, 0], [5, 6]])
    whole = model(input_ids=ids).logits
    read = model(input_ids=ids, step_ends=ends).logits
    torch.testing.assert_close(read, torch.stack([row[at] for row, at in zip(whole, ends, strict=True)]))
