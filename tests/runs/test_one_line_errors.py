"""What a user can mend ends a recipe with one line that names the argument, and with a status above 0."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerState

from rlhf_prm.runs.errors import disk_errors, end_with, ready_folder
from rlhf_prm.runs.progress import one_line as progress_of
from tests.runs.test_run_loop import SMALL, problems, recipe, stage_cache  # noqa: F401  fixtures

pytestmark = pytest.mark.usefixtures("empty_pages")
ROOT = Path(__file__).resolve().parents[2]


def one_line(stop) -> str:
    assert len(str(stop.value).splitlines()) == 1 and str(stop.value).startswith("error: ")
    return str(stop.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": "1e-3"}, "unknown argument 'learning_rat'; did you mean 'learning_rate'?"),
        ({"datset": "x.jsonl"}, "unknown argument 'datset'; did you mean 'dataset'?"),
        ({"model_name_or_path": "no/such-model"}, "model_name_or_path: cannot load 'no/such-model'"),
        ({"prm": "no/such-prm"}, "prm: cannot load 'no/such-prm'"),
        ({"prm": "EMPTY"}, "prm: cannot load"),
        ({"prm_kwargs": '{"tagg": "x"}'}, "prm_kwargs: load_prm has no keyword 'tagg'; it has .*tag,"),
        ({"verifier_kwargs": '{"wrkers": 2}'}, "verifier_kwargs: .*unexpected keyword argument 'wrkers'"),
        ({"dataset": "EMPTY.jsonl"}, "dataset EMPTY.jsonl is empty or cannot be read as jsonl"),
        ({"dataset": "BROKEN.jsonl"}, "dataset BROKEN.jsonl is empty or cannot be read as jsonl"),
        ({"dataset": None}, "dataset: got nothing beside model_name_or_path 'tiny-random'"),
        ({"output_dir": "FILE/run"}, r"output_dir: cannot write in FILE/run \(Not a directory\)"),
        ({"stage_cache": "FILE/cache"}, "Not a directory.*FILE/cache"),
        ({"config": "FILE"}, "expected a mapping of settings"),
        ({"config": "BROKEN.yaml"}, "BROKEN.yaml is not YAML: .*line 2"),
        ({"config": "UNKNOWN.yaml"}, "unknown argument 'learning_rat' in UNKNOWN.yaml; did you mean 'learning_rate'?"),
        ({"config": "."}, "--config: no file at ."),
    ],
)
def test_bad_input(recipe, tmp_path, changes, message):  # noqa: F811
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "EMPTY.jsonl").write_text("")
    (tmp_path / "BROKEN.jsonl").write_text('{"prompt": "a"\n')
    (tmp_path / "FILE").write_text("text")
    (tmp_path / "BROKEN.yaml").write_text("method: pure\nseed: [1\n")
    (tmp_path / "UNKNOWN.yaml").write_text("learning_rat: 1.0e-3\n")
    with pytest.raises(SystemExit, match=message) as stop:
        recipe(**changes)
    one_line(stop)


def test_a_disk_that_fills_up_ends_the_run_with_one_line(recipe, tmp_path):  # noqa: F811
    """A limit on the size of files stands in for a full disk; a checkpoint's weights are the only file above it."""
    recipe(max_steps=1)  # makes the models
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(
            SystemExit, match=r"output_dir: cannot write to .*\(File too large\).*--resume_from"
        ) as stop:
            recipe(max_steps=1, save_strategy="steps", save_steps=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one_line(stop)


class Callbacks(list):
    """A trainer's, without a trainer."""

    add_callback = list.append

    def remove_callback(self, callback) -> None:
        if callback in self:
            self.remove(callback)


def test_the_progress_line_ends_before_an_error_is_printed():
    trainer = Callbacks()
    with pytest.raises(RuntimeError), progress_of(trainer, "run"):
        (line,) = trainer
        line.on_train_begin(None, TrainerState(max_steps=3), None)
        assert line.bar is not None
        raise RuntimeError
    assert line.bar is None and not trainer


def test_only_errors_of_the_disk_are_called_so(tmp_path):
    with pytest.raises(KeyError), disk_errors(tmp_path):
        raise KeyError("a defect of ours")
    with pytest.raises(SystemExit, match="No space left on device"), disk_errors(tmp_path):
        raise RuntimeError("unexpected pos 64 vs 0") from OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "absent").read_text()


def test_a_full_disk_is_recognised_whatever_the_library_says(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(SystemExit, match="No space left on device"), disk_errors(tmp_path / "not yet"):
        raise RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")


def test_a_ready_folder_is_left_empty(tmp_path):
    assert list(ready_folder(tmp_path / "a" / "b").iterdir()) == []


def test_the_launcher_of_several_processes_is_told_the_line(tmp_path, monkeypatch):
    """torchrun prints what lies in this file as the root cause, last of all."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit, match=r"^error: too few$"):
        end_with(ValueError("too\nfew"))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(tmp_path / "error.json"))
    assert "error: too few" in str(ChildFailedError("recipe", {0: failure})).splitlines()[-2]


def test_under_accelerate_launch_the_line_says_what_the_traceback_is(tmp_path):
    """A script in place of a recipe, which would spend most of the time on its imports before it fails."""
    script = tmp_path / "failing.py"
    script.write_text(
        "from rlhf_prm.runs.errors import user_errors\n"
        "with user_errors():\n"
        "    raise ValueError('unknown argument datset')\n"
    )
    command = ["launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", str(script)]
    run = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command]
    done = subprocess.run(run, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and "unknown argument datset" in line and "accelerate launch -q" in line
