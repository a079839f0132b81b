"""report_to: trackers get the names that metrics.jsonl has."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
from transformers.integrations import TensorBoardCallback

from rlhf_prm.guard.guard import HackGuard
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.runs.folder import MetricsFile
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

SETTINGS = {"max_steps": 2, "method": "immediate", "log_completions": True, "num_completions_to_print": 0}


def trained(folder: Path, tracker: str) -> tuple[ProcessGRPOTrainer, list[dict]]:
    """Two updates under a tracker, and the rows of metrics.jsonl."""
    guard = HackGuard(held_out=lambda: 0.5)
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, report_to=tracker, **SETTINGS),
        train_dataset=tiny_dataset(16),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        callbacks=[MetricsFile(folder), guard],
    )
    guard.trainer = trainer
    trainer.train()
    return trainer, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_has_the_names_and_numbers_of_metrics_jsonl(tmp_path, monkeypatch):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer, rows = trained(tmp_path, "tensorboard")
    assert any(isinstance(callback, TensorBoardCallback) for callback in trainer.callback_handler.callbacks)
    events = reader.EventAccumulator(str(next((tmp_path / "events").rglob("*tfevents*")).parent))
    events.Reload()
    tags = {tag.removeprefix("train/") for tag in events.Tags()["scalars"]}
    for name in WANTED:
        assert name in tags and name in rows[0]
        logged = [scalar.value for scalar in events.Scalars(f"train/{name}")]
        assert logged == pytest.approx([row[name] for row in rows if name in row], rel=1e-5)


def test_wandb_has_the_names_and_numbers_of_metrics_jsonl_and_the_step_scores(tmp_path, monkeypatch):
    """Read from the file of an offline run: what `wandb sync` would send."""
    wandb = pytest.importorskip("wandb", reason="needs wandb: pip install 'rlhf-prm[wandb]'")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    try:
        _, rows = trained(tmp_path, "wandb")
    finally:
        wandb.finish()
    logged = [row for row in wandb_history(tmp_path) if "train/loss" in row]
    assert len(logged) == 2
    for got, wanted in zip(logged, rows, strict=False):  # the last row of metrics.jsonl is the run's own
        missing = {name for name in wanted if name != "step"} - {name.removeprefix("train/") for name in got}
        assert not missing and set(WANTED) <= set(wanted) and got["train/global_step"] == wanted["step"]
        for name in WANTED:
            assert got[f"train/{name}"] == pytest.approx(wanted[name], rel=1e-6)
    tables = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("completions_*.table.json"))]
    for update in (1, 2):
        table = pandas.read_parquet(tmp_path / "completions" / f"completions_{update:05d}.parquet")
        sent = next(t for t in tables if t["data"][0][0] == update)
        sent = pandas.DataFrame(sent["data"], columns=sent["columns"])
        assert list(sent.columns) == list(table.columns)
        assert [list(row) for row in table["step_scores"]] == sent["step_scores"].tolist()
        assert max(map(len, sent["step_scores"])) > 1


def wandb_history(folder: Path) -> Iterator[dict]:
    """The rows of an offline run: LevelDB's log format (blocks of 32 kB, records in parts) of protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = next(folder.rglob("run-*.wandb")).read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768  # a header does not go over the end of a block
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record, parts = Record.FromString(parts), b""
            if record.HasField("history"):
                items = record.history.item
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
