"""``recipes/real_lm.py`` from the first stage to the last on a tiny model, in this process; stopped, and gone on."""

import json
import runpy
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def real_lm(monkeypatch, tmp_path, tiny_settings):
    """Calls the recipe; the processes of its stages are calls in this one, which are counted."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)
    started = []

    def here(others, command, *arguments, **settings):
        if "--stage" not in command:  # in a cell, which is a fork of this process
            return others(command, *arguments, **settings)
        started.append(command[-1])
        call(*command[2:])
        return SimpleNamespace(poll=lambda: 0)

    monkeypatch.setattr(subprocess, "Popen", partial(here, subprocess.Popen))

    def call(*arguments: str) -> None:
        main = runpy.run_path("recipes/real_lm.py", run_name="recipe")["main"]
        monkeypatch.setattr(sys, "argv", ["real_lm.py", *arguments])
        main()

    def run(*arguments: str) -> Path:
        started.clear()
        call("--scale", "smoke", "--root", str(tmp_path), "--settings", json.dumps(tiny_settings), *arguments)
        return tmp_path / "smoke-seed0"

    run.started = started
    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def test_from_the_first_stage_to_the_table(real_lm, capsys, tiny_settings):
    with pytest.raises(SystemExit, match=r"next is policy; the same command continues there"):
        real_lm("--budget", "0")
    assert real_lm.started == []
    folder = real_lm()
    needs = runpy.run_path("recipes/real_lm.py", run_name="recipe")["NEEDS"]
    assert sorted(real_lm.started) == sorted(needs)
    for stage, needed in needs.items():
        assert all(real_lm.started.index(stage) > real_lm.started.index(one) for one in needed)
    prompts = []
    for source in ("judge", "mc", "gold"):
        assert (folder / f"preflight_{source}.html").exists()
        data = json.loads((folder / f"preflight_{source}.json").read_text())
        assert data["measures"]["accuracy"] is not None and data["prm"] == f"labels: {source}"
        prompts.append(data["measures"]["accuracy"])
    assert len(set(prompts)) == 1  # the same rollouts
    cells = sorted(path.name for path in (folder / "rl" / "cells").iterdir())
    assert cells == ["method=ceiling", "method=outcome", "method=trusted"]
    for cell in cells:
        summary = json.loads((folder / "rl" / "cells" / cell / "seed0" / "summary.json").read_text())
        assert summary["settings"]["max_steps"] == 1 and summary["settings"]["recipe"]["world"] == "word_problems"
        assert (folder / "rl" / "cells" / cell / "seed0" / "report.html").exists()
    assert (folder / "rl" / "report.html").exists()

    before = (folder / "preflight_mc.json").stat().st_mtime_ns
    capsys.readouterr()
    (folder / "rollouts.jsonl").unlink()
    (folder / "preflight_gold.json").unlink()
    real_lm()
    assert real_lm.started == ["policy", "prm_judge", "rollouts", "prm_mc", "prm_gold", "preflight_gold"]
    assert "3 finished already, 0 to run" in capsys.readouterr().out
    assert (folder / "preflight_mc.json").stat().st_mtime_ns == before

    with pytest.raises(SystemExit, match="got label_source, expected none"):
        real_lm("--settings", '{"label_source": "mc"}')
    with pytest.raises(SystemExit, match="begun with prm_updates=4, got 5; give another --root, or delete"):
        real_lm("--settings", json.dumps({**tiny_settings, "prm_updates": 5}))


def test_a_failed_stage_ends_the_recipe_in_one_line(real_lm, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", lambda command: subprocess_of_failure(command[-1]))

    def subprocess_of_failure(stage: str) -> SimpleNamespace:
        return SimpleNamespace(poll=lambda: 3 if stage == "prm_judge" else 0)

    with pytest.raises(SystemExit, match=r"^failed: prm_judge; the message is above"):
        real_lm()
    assert "prm_judge failed with status 3" in capsys.readouterr().out


def test_a_signal_ends_the_recipe_with_what_it_has_started(real_lm, monkeypatch):
    ended = []

    def poll() -> None:
        signal.raise_signal(signal.SIGTERM)

    ends = {"terminate": lambda: ended.append("ended"), "kill": lambda: ended.append("killed")}
    process = SimpleNamespace(poll=poll, wait=lambda timeout: 0, **ends)
    monkeypatch.setattr(subprocess, "Popen", lambda command: process)
    with pytest.raises(SystemExit, match="ended by a signal"):
        real_lm()
    assert ended == ["ended"]
