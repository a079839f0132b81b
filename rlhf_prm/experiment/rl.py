"""One RL run from its parts to its folder: before, train, after, the baseline on the same seed, the summary."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from rlhf_prm.experiment.arguments import RecipeArguments, user_errors
from rlhf_prm.experiment.evaluation import EvaluateOnTheWay, held_out_accuracy
from rlhf_prm.experiment.progress import show_one_line
from rlhf_prm.experiment.run_folder import MetricsFile, result_table, versions, write_summary
from rlhf_prm.experiment.sources import Sources
from rlhf_prm.prm.server import PRMServerError
from rlhf_prm.report import write_report
from rlhf_prm.trainers.callbacks import HackGuard, TokenBudget

BuildTrainer = Callable[[Any, list], Any]  # (config, callbacks) → trainer


def run_and_compare(recipe: RecipeArguments, config: Any, sources: Sources, build_trainer: BuildTrainer) -> dict:
    """Trains ``config`` and, where ``recipe.baseline`` names a method, that too from the same weights and seed.

    Leaves in ``config.output_dir``: summary.json, metrics.jsonl, completions/, policy/, report.html, and baseline/.

    Returns:
        The summary.
    """
    folder = Path(config.output_dir)
    seconds = dict(sources.seconds)
    result = _train(recipe, config, sources, build_trainer, seconds, label=config.label)
    summary = {"method": config.label, "seed": config.seed, **result["measured"], "baseline": None}
    if recipe.baseline:
        baseline = config.baseline(recipe.baseline)
        baseline.output_dir = str(folder / "baseline")
        label = f"{baseline.label} (baseline)"
        other = _train(recipe, baseline, sources, build_trainer, seconds, label, before=result["before"])
        summary["baseline"] = {"method": baseline.label, **other["measured"]}
    if recipe.check_prm and sources.check_prm and result["trainer"].accelerator.num_processes == 1:
        start = time.perf_counter()
        summary["prm"] = sources.check_prm(folder / "prm_audit.html")
        seconds["check PRM"] = time.perf_counter() - start
    summary |= {
        "eval_problems": sources.eval_problems,
        "seconds": seconds,
        "versions": versions(),
        "settings": {"recipe": recipe, **config.to_dict()},
    }
    if result["trainer"].accelerator.is_main_process:
        write_summary(folder, summary)
        page = write_report(folder)
        print(f"\n{result_table(summary)}\nrun: {folder}   report: {page}")
    return summary


def _train(
    recipe: RecipeArguments,
    config: Any,
    sources: Sources,
    build_trainer: BuildTrainer,
    seconds: dict[str, float],
    label: str,
    before: dict | None = None,
) -> dict[str, Any]:
    on_the_way = EvaluateOnTheWay(sources, recipe.eval_every, recipe.eval_every_limit)
    with user_errors():
        tokens, guard = TokenBudget(budget=recipe.token_budget), _guard(recipe, sources)
        checkpoint = checkpoint_to_resume(config, required=before is None)  # a baseline may not have begun
        trainer = build_trainer(config, [MetricsFile(config.output_dir), on_the_way, tokens, guard])
    on_the_way.trainer = tokens.trainer = guard.trainer = trainer
    show_one_line(trainer, label)
    start = time.perf_counter()
    before = before or held_out_accuracy(trainer, sources)
    started = time.perf_counter()
    with checkpoint_when_server_is_lost(trainer):
        trainer.train(resume_from_checkpoint=checkpoint)
    trained = time.perf_counter()
    after = held_out_accuracy(trainer, sources)
    trainer.save_model(str(Path(config.output_dir) / "policy"))
    seconds[f"train {label}"] = trained - started
    seconds["evaluate"] = seconds.get("evaluate", 0.0) + started - start + time.perf_counter() - trained
    measured = {key: {"before": before[key], "after": after[key]} for key in ("accuracy", "process_accuracy")}
    return {"trainer": trainer, "before": before, "measured": measured}


@contextmanager
def checkpoint_when_server_is_lost(trainer: Any) -> Iterator[None]:
    """A PRM server that stays away ends the run, but not the updates that are done: they are saved, to be resumed."""
    try:
        yield
    except PRMServerError as error:
        done = trainer.state.global_step
        if done:
            trainer._save_checkpoint(trainer.model, trial=None)
        kept = f"update {done} is saved; go on with --resume_from_checkpoint true" if done else "no update was done"
        sys.exit(f"error: {error}\n{kept}")


def _guard(recipe: RecipeArguments, sources: Sources) -> HackGuard:
    """The guard with held-out accuracy as its arbiter, on as many problems as the evaluations on the way."""
    guard = HackGuard(action=recipe.guard, problems=recipe.eval_every_limit, **recipe.guard_kwargs)
    if sources.evaluate is not None or sources.eval_dataset is not None:
        guard.held_out = lambda: held_out_accuracy(guard.trainer, sources, recipe.eval_every_limit)["accuracy"]
    return guard


def checkpoint_to_resume(config: Any, required: bool = True) -> str | None:
    """The checkpoint to go on from: the one named, or the newest of the folder for ``true``.

    Raises:
        ValueError: resuming was asked for, is ``required``, and there is nothing to resume from.
    """
    wanted = str(config.resume_from_checkpoint or "false")
    if wanted.lower() == "false":
        return None
    if wanted.lower() != "true" and required:
        return wanted
    folder = Path(config.output_dir)
    newest = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if newest is None and required:
        raise ValueError(f"resume_from_checkpoint: no checkpoint in {folder}; set save_steps and run without it first")
    return newest
