"""The run around a trainer: which settings it uses, what is checked before anything long, what a failure leaves."""

import json
import runpy
import sys
import weakref
from pathlib import Path

import jaxtyping
import pytest

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("empty_pages")
ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "model_name_or_path": "tiny-random",
    "prm": "tiny-random",
    "method": "immediate",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_generations": 2,
    "num_generations_eval": 1,
    "max_completion_length": 8,
    "save_strategy": "no",
    "use_cpu": "true",
    "bf16": "false",
    "gradient_checkpointing": "false",
}


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {i}?", "solution": str(i)}) + "\n" for i in range(8)))
    return path


@pytest.fixture(scope="session")
def stage_cache(tmp_path_factory) -> Path:
    """The tiny random models, made once for the same problems."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def recipe(monkeypatch, tmp_path, problems, stage_cache):
    """Runs the GRPO recipe in this process, with small settings as flags; returns its folder."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the parser fills transformers' own fields
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(ROOT / "recipes" / "grpo_prm.py"), run_name="recipe")["main"]

    def run(**changes) -> Path:
        settings = {"dataset": problems, "output_dir": tmp_path / "run", "stage_cache": stage_cache}
        settings |= SMALL | changes
        flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
        monkeypatch.setattr(sys, "argv", ["grpo_prm.py", *flags])
        main()
        return Path(settings["output_dir"])

    return run


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_ones_own_data_is_trained_with_the_trainers_defaults_and_logs_all(recipe, problems, capsys):
    """Flags only, no --config: the toy world's YAML is not used; held-out evaluation on real data loses no log."""
    folder = recipe(eval_dataset=problems, eval_limit=4, max_steps=4, eval_every=2, logging_steps=2)
    settings = json.loads((folder / "summary.json").read_text())["settings"]
    assert settings["learning_rate"] == 1e-6 and settings["loss_type"] == "dapo"  # TRL's; the toy world: 3e-4 and bnpo
    assert settings["recipe"]["baseline"] is None and settings["lr_scheduler_type"] == "linear"
    rows = rows_of(folder)
    assert [row["step"] for row in rows if "loss" in row] == [2, 4]
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [2, 4]
    told = capsys.readouterr().out
    assert "settings: the trainers' defaults and the command line (--dataset without --config)" in told


def test_a_bad_baseline_is_refused_before_anything_is_loaded(recipe, monkeypatch):
    monkeypatch.setattr("rlhf_prm.runs.sources.load_prompts", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(SystemExit, match=r"baseline: .*unknown method 'outcom'.*none = no baseline"):
        recipe(baseline="outcom")
    with pytest.raises(SystemExit, match=r"guard_kwargs: .*unexpected keyword argument 'evry'"):
        recipe(guard="warn", guard_kwargs='{"evry": 1}')
    with pytest.raises(SystemExit, match="unknown method 'imediate'"):
        recipe(method="imediate")


def test_the_oracle_is_of_the_toy_world(recipe):
    with pytest.raises(SystemExit, match=r"prm: got 'oracle' with dataset .*knows the labels of the toy world only"):
        recipe(prm="oracle")


def test_no_baseline_is_no_baseline(recipe):
    for text in ("none", "null", "None", ""):
        assert RecipeArguments(baseline=text).baseline is None
    folder = recipe(baseline="none", max_steps=1)
    assert json.loads((folder / "summary.json").read_text())["baseline"] is None
    assert not (folder / "baseline").exists()


def test_a_baseline_that_fails_loses_nothing_of_the_run(recipe, tmp_path, monkeypatch):
    original = ProcessGRPOTrainer.train

    def fails(self, **arguments):
        if Path(self.args.output_dir).name == "baseline":
            raise RuntimeError("the baseline died")
        return original(self, **arguments)

    monkeypatch.setattr(ProcessGRPOTrainer, "train", fails)
    with pytest.raises(RuntimeError, match="the baseline died"):
        recipe(baseline="outcome")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["unfinished"] == "baseline outcome" and summary["method"] == "immediate"
    assert summary["settings"]["max_steps"] == 2 and (tmp_path / "run" / "report.html").exists()
    monkeypatch.undo()


@pytest.mark.parametrize("prm", ["tiny-random", "vine"])
def test_the_main_trainer_is_gone_before_the_baseline_is_built(recipe, problems, monkeypatch, prm):
    """Two policies with their optimizers would take twice the memory; "vine" holds its trainer to sample with it."""
    built, alive, original = [], [], ProcessGRPOTrainer.__init__

    def recorded(self, *arguments, **keywords):
        alive.append([one() is not None for one in built])
        original(self, *arguments, **keywords)
        built.extend((weakref.ref(self), weakref.ref(self.model)))

    monkeypatch.setattr(ProcessGRPOTrainer, "__init__", recorded)
    guarded = {"guard": "warn", "eval_dataset": problems, "eval_limit": 2, "eval_every": 1}
    live = {"prm_kwargs": '{"num_completions": 1}', "step_pattern": " "} if prm == "vine" else {}
    recipe(prm=prm, baseline="outcome", max_steps=1, **guarded, **live)
    assert alive == [[], [False, False]]


def test_a_finished_run_is_not_marked_as_unfinished(recipe):
    summary = json.loads((recipe(baseline="outcome", max_steps=1) / "summary.json").read_text())
    assert "unfinished" not in summary and summary["baseline"]["method"] == "outcome"


def test_a_checkpoint_cut_short_is_passed_over(tmp_path, caplog):
    for update, state in ((9, '{"global_step": 9}'), (10, '{"global_st'), (11, None)):
        (tmp_path / f"checkpoint-{update}").mkdir()
        if state:
            (tmp_path / f"checkpoint-{update}" / "trainer_state.json").write_text(state)
    config = tiny_config(tmp_path, resume_from_checkpoint="true")
    assert checkpoint_to_resume(config) == str(tmp_path / "checkpoint-9")
    assert "checkpoint-10 is incomplete" in caplog.text
    with pytest.raises(ValueError, match=r"no checkpoint at .*nowhere"):
        checkpoint_to_resume(tiny_config(tmp_path, resume_from_checkpoint=str(tmp_path / "nowhere")))


def test_live_values_in_place_of_a_prm(recipe):
    """``--prm vine``; the outcome-only baseline does not pay for values that it does not use."""
    changes = {"prm": "vine", "method": "vine", "prm_kwargs": '{"num_completions": 2}', "max_steps": 1}
    folder = recipe(**changes, step_pattern=" ", baseline="outcome")
    row, baseline = rows_of(folder)[0], rows_of(folder / "baseline")[0]
    assert row["prm/completions"] > 0 and row["prm/completions"] % 2 == 0 and row["prm/tokens"] > 0
    assert row["process/unscored_frac"] == 0
    assert "prm/completions" not in baseline and baseline["process/unscored_frac"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prm_kwargs": '{"num_completions": -9}'}, r"prm_kwargs: num_completions: got -9, expected a whole number"),
        ({"prm_kwargs": '{"num_completions": 2.5}'}, r"prm_kwargs: num_completions: got 2.5"),
        ({"prm_kwargs": '{"sampler": "hf"}'}, r"prm_kwargs: sampler: got 'hf', expected a Generator"),
        ({"prm_kwargs": '{"completions": 9}'}, "prm_kwargs: .*unexpected keyword argument 'completions'"),
        ({"prm_placement": "offload"}, "prm_placement: got 'offload' beside prm 'vine'"),
        ({"gold_fraction": 0}, "gold_fraction: got 0.0 beside prm 'vine'"),
    ],
)
def test_live_values_that_cannot_be_are_refused_before_anything_is_loaded(recipe, monkeypatch, changes, message):
    monkeypatch.setattr("rlhf_prm.runs.sources.load_prompts", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(SystemExit, match=message) as stop:
        recipe(prm="vine", method="vine", **changes)
    assert len(str(stop.value).splitlines()) == 1


def verdict_by_length(question, seed):
    from tests.judges.scripted_judge import paper

    return paper(0 if len(question) % 3 == 0 else -1, question.count("</paragraph_"))


def test_a_judge_in_place_of_a_prm(recipe):
    """``--prm judge:MODEL``; what it says is logged and kept, and the outcome-only baseline does not pay for it."""
    from rlhf_prm.step_data import read_rows
    from tests.judges.scripted_judge import JudgeServer

    with JudgeServer(answer_to=verdict_by_length) as server:
        keywords = json.dumps({"endpoint": server.url, "votes": 2, "price_prompt": 1.0, "price_completion": 4.0})
        changes = {"prm": "judge:m", "method": "capo", "prm_kwargs": keywords, "max_steps": 1}
        folder = recipe(**changes, step_pattern=" ", baseline="outcome")
        asked = len(server.bodies)
    row, baseline = rows_of(folder)[0], rows_of(folder / "baseline")[0]
    assert row["prm/judge_calls"] == asked > 0 and row["prm/judge_tokens"] == 30 * asked
    assert row["prm/judge_cost"] == pytest.approx(asked * (10 * 1.0 + 20 * 4.0) / 1e6)
    assert "prm/judge_calls" not in baseline and baseline["process/unscored_frac"] == 1
    rows = list(read_rows(folder / "judged.jsonl"))
    assert len(rows) == asked / 2 and {one["source"] for one in rows} == {"judge:m"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prm_kwargs": '{"vote": 4}'}, "prm_kwargs: a judge has no keyword 'vote'"),
        ({"prm_family": "qwen_prm"}, "prm_family: got 'qwen_prm' with prm 'judge:m', which writes its verdicts"),
        ({"prm": "judge:toy"}, "prm: got 'judge:toy' with dataset"),
    ],
)
def test_a_judge_that_cannot_be_is_refused_before_anything_is_loaded(recipe, monkeypatch, changes, message):
    monkeypatch.setattr("rlhf_prm.runs.sources.load_prompts", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(SystemExit, match=message) as stop:
        recipe(**{"prm": "judge:m", "method": "capo"} | changes)
    assert len(str(stop.value).splitlines()) == 1


def test_live_values_without_any_gold_answer_are_refused(recipe, problems):
    rows = [json.loads(line) for line in problems.read_text().splitlines()]
    problems.write_text("".join(json.dumps({**row, "solution": None}) + "\n" for row in rows))
    with pytest.raises(SystemExit, match="live Monte-Carlo values: got no gold answer in 8 rows"):
        recipe(prm="vine", method="vine")
