"""The output of a run: metrics.jsonl, summary.json, a table on the terminal and report.html."""

import importlib.metadata
import json
import platform
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rlhf_prm.files import read_json_lines, write_json, write_json_lines

_PACKAGES = ("rlhf-prm", "torch", "trl", "transformers", "accelerate", "datasets", "deepspeed", "vllm", "sympy")
BESIDE = ("baseline", "ceiling")  # the runs to compare with; these are their folders and keys
UNFINISHED = "unfinished"  # the key of a summary that lists the parts of the run still to come


def versions() -> dict[str, str]:
    """Versions of all libraries that a result depends on, and the hardware."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return found | {"hardware": f"{hardware} × {torch.cuda.device_count() or torch.get_num_threads()}"}


class MetricsFile(TrainerCallback):
    """Appends every log of a trainer to ``metrics.jsonl`` as {"step", …}; resuming drops rows to be logged again."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "metrics.jsonl"

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_json_lines(self.path, may_be_cut=True) if state.global_step else ()
        write_json_lines(self.path, [row for row in rows if row["step"] <= state.global_step])

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if state.is_world_process_zero and logs:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def write_summary(folder: str | Path, summary: dict[str, Any]) -> Path:
    """Write ``summary.json`` atomically."""
    path = Path(folder) / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, summary, default=_plain)
    return path


def result_table(summary: dict[str, Any]) -> str:
    """The before → after table of a run with its baseline and ceiling, under a line on the PRM."""
    rows = {summary["method"]: summary}
    rows |= {f"{summary[name]['method']} ({name})": summary[name] for name in BESIDE if summary.get(name)}
    lines = []
    if "prm" in summary:
        best = summary["prm"]["best_of_n"]
        verdicts = list(summary["prm"]["audit"].values())
        lines.append(
            f"PRM: first-error F1 {summary['prm']['first_error']['f1']:.3f}; "
            + ", ".join(f"{rule} {best[rule]:.3f}" for rule in ("mean@1", "maj@8", "min@8", "pass@8") if rule in best)
            + f"; audit: {verdicts.count('unsafe')} unsafe, {verdicts.count('with care')} with care "
            + f"of {len(verdicts)} lines"
        )
    lines.append(f"{'method':<24}{'accuracy':>18}{'all steps right':>22}")
    for label, row in rows.items():
        cells = [_arrow(row[key]) for key in ("accuracy", "process_accuracy")]
        lines.append(f"{label:<24}{cells[0]:>18}{cells[1]:>22}")
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in summary["seconds"].items())
    return "\n".join([*lines, f"time: {seconds}"])


def _arrow(values: dict[str, float | None]) -> str:
    before, after = values.get("before"), values.get("after")
    return "–" if before is None or after is None else f"{before:.3f} → {after:.3f}"


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) else str(value)
