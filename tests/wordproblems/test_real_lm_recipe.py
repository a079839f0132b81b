"""``recipes/real_lm.py`` from the first stage to the last on a tiny model, in this process; stopped, and gone on."""

import json
import runpy
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
    """Calls the recipe; the processes that build worlds are calls in this one, which are counted."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)
    started = []

    def here(others, command, *arguments, **settings):
        if "rlhf_prm.wordproblems" not in command:  # in a cell, which is a fork of this process
            return others(command, *arguments, **settings)
        started.append(json.loads(command[command.index("--settings") + 1]).get("label_source", "policy"))
        monkeypatch.setattr(sys, "argv", command[2:])
        runpy.run_module(command[2], run_name="__main__")
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    for name in ("run", "Popen"):
        monkeypatch.setattr(subprocess, name, partial(here, getattr(subprocess, name)))

    def run(*arguments: str) -> Path:
        started.clear()
        given = ["--scale", "smoke", "--root", str(tmp_path), "--settings", json.dumps(tiny_settings)]
        main = runpy.run_path("recipes/real_lm.py", run_name="recipe")["main"]
        monkeypatch.setattr(sys, "argv", ["real_lm.py", *given, *arguments])
        main()
        return tmp_path / "smoke-seed0"

    run.started = started
    return run


def test_from_the_first_stage_to_the_table(real_lm, capsys):
    with pytest.raises(SystemExit, match=r"next is policy.*the same command continues there"):
        real_lm("--budget", "0")
    assert real_lm.started == []
    folder = real_lm()
    assert real_lm.started == ["policy", "mc", "judge", "gold"]
    for source in ("judge", "mc", "gold"):
        assert (folder / f"preflight_{source}.html").exists()
        assert json.loads((folder / f"preflight_{source}.json").read_text())["measures"]["accuracy"] is not None
    cells = sorted(path.name for path in (folder / "rl" / "cells").iterdir())
    assert cells == ["method=ceiling", "method=outcome", "method=trusted"]
    for cell in cells:
        summary = json.loads((folder / "rl" / "cells" / cell / "seed0" / "summary.json").read_text())
        assert summary["settings"]["max_steps"] == 1 and summary["settings"]["recipe"]["world"] == "word_problems"
        assert (folder / "rl" / "cells" / cell / "seed0" / "report.html").exists()
    assert (folder / "rl" / "report.html").exists()
    before = (folder / "preflight_mc.json").stat().st_mtime_ns
    capsys.readouterr()
    real_lm()
    assert "3 finished already, 0 to run" in capsys.readouterr().out
    assert (folder / "preflight_mc.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "fails, named, finished",
    [("--without-prm", "policy", []), ('"mc"', "labels and PRM, mc", ["--without-prm", '"judge"'])],
)
def test_a_failed_stage_ends_the_recipe_in_one_line_and_the_process_beside_it_finishes(
    monkeypatch, tmp_path, fails, named, finished
):
    python, ended = tmp_path / "python", tmp_path / "ended"
    lines = ["#!/bin/sh", f'case "$*" in *{fails}*) exit 3;; esac', "sleep .3", f'echo "$*" >> {ended}']
    python.write_text("\n".join(lines))
    python.chmod(0o755)
    ended.touch()
    monkeypatch.setattr(sys, "executable", str(python))
    recipe = runpy.run_path(str(ROOT / "recipes" / "real_lm.py"), run_name="recipe")
    with pytest.raises(SystemExit, match=f"the stage failed: {named}; .* the same command goes on there"):
        recipe["build_worlds"](SimpleNamespace(root=tmp_path, parallel=2), {"seed": 0}, recipe["Budget"](60))
    calls = ended.read_text().splitlines()
    assert len(calls) == len(finished) and all(name in call for name, call in zip(finished, calls, strict=True))
