"""report_to: trackers get the names that metrics.jsonl has."""

import json

import pytest
from transformers.integrations import TensorBoardCallback

from rlhf_prm.experiment.run_folder import MetricsFile
from rlhf_prm.trainers.callbacks import HackGuard
from rlhf_prm.trainers.grpo import ProcessGRPOTrainer
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

WANTED = (
    "reward",
    "rewards/verifier/mean",
    "process/step_score/mean",
    "process/num_steps/mean",
    "advantage/frac_zero",
    "verifier/correct_frac",
    "prm/seconds",
    "hack/steps_per_rollout",
    "hack/process_scale",
)


def test_tensorboard_has_the_names_and_numbers_of_metrics_jsonl(tmp_path, monkeypatch):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    guard = HackGuard(held_out=lambda: 0.5)
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path, max_steps=2, method="immediate", report_to="tensorboard"),
        train_dataset=tiny_dataset(16),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        callbacks=[MetricsFile(tmp_path), guard],
    )
    guard.trainer = trainer
    trainer.train()
    assert any(isinstance(callback, TensorBoardCallback) for callback in trainer.callback_handler.callbacks)
    events = reader.EventAccumulator(str(next((tmp_path / "events").rglob("*tfevents*")).parent))
    events.Reload()
    tags = {tag.removeprefix("train/") for tag in events.Tags()["scalars"]}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in WANTED:
        assert name in tags and name in rows[0]
        logged = [scalar.value for scalar in events.Scalars(f"train/{name}")]
        assert logged == pytest.approx([row[name] for row in rows if name in row], rel=1e-5)
