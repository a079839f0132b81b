"""One RL run: evaluate, train, evaluate again, run the baseline on the same seed, write the summary."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import release_memory

from rlhf_prm.generation.endpoint import EndpointError
from rlhf_prm.guard.guard import HackGuard
from rlhf_prm.prm.log_ratio import LogRatioScorer
from rlhf_prm.prm.server import PRMServerError
from rlhf_prm.report import write_report
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.rl.token_budget import TokenBudget
from rlhf_prm.rl.trl_seam import save_checkpoint
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from rlhf_prm.runs.errors import disk_errors, end_with, ready_folder, user_errors
from rlhf_prm.runs.evaluation import EvaluateOnTheWay, held_out_accuracy, samples_of_accuracy
from rlhf_prm.runs.folder import UNFINISHED, MetricsFile, result_table, versions, write_summary
from rlhf_prm.runs.meaning import meaning
from rlhf_prm.runs.prm_check import PRMCheck
from rlhf_prm.runs.progress import one_line
from rlhf_prm.runs.refresh import RefreshPRM, Taught, check_refresh, first_prm, learnt_so_far, taught
from rlhf_prm.runs.sources import Sources
from rlhf_prm.runs.teacher_check import TeacherCheck

BuildTrainer = Callable[[Any, list, Sources], Any]  # (config, callbacks, sources) → trainer


def check_settings(recipe: RecipeArguments, config: Any) -> Any:
    """Check everything that the settings alone determine, before a model is loaded.

    Returns:
        The baseline's config, or None without a baseline.

    Raises:
        ValueError: the method of the run or of its baseline, or a keyword, is unknown; a guard or a budget is invalid;
            there is nothing to resume from; a folder cannot be written.
    """
    StepAdvantages(config.method, config.method_kwargs)
    _guard(recipe)
    TokenBudget(budget=recipe.token_budget)
    checkpoint_to_resume(config)
    check_refresh(recipe, config)
    baseline = None if recipe.baseline is None else _baseline(recipe.baseline, config)
    ready_folder(config.output_dir)
    return baseline


def _baseline(method: str, config: Any) -> Any:
    try:
        baseline = config.baseline(method)
        StepAdvantages(baseline.method, baseline.method_kwargs)
    except ValueError as error:
        raise ValueError(f"baseline: {str(error).removeprefix('baseline: ')}; none = no baseline") from error
    baseline.output_dir = str(Path(config.output_dir) / "baseline")
    return baseline


def run_and_compare(recipe: RecipeArguments, config: Any, sources: Sources, build_trainer: BuildTrainer) -> dict:
    """Train ``config`` and, from the same weights and seed, the runs to compare it with.

    ``recipe.baseline`` names a method; ``recipe.ceiling`` asks for the run's own method on exact step labels. Writes to
    ``config.output_dir``: summary.json, metrics.jsonl, completions/, policy/, report.html, and baseline/ and ceiling/
    with the metrics.jsonl, completions/ and policy/ of these runs. The summary is written, marked as unfinished, before
    another run begins.

    Returns:
        The summary.
    """
    folder, seconds = Path(config.output_dir), dict(sources.seconds)
    with user_errors():
        baseline = check_settings(recipe, config)
    with disk_errors(folder):
        before, measured, learnt = _one_run(recipe, config, sources, build_trainer, seconds)
        summary = {"method": config.label, "seed": config.seed, **measured, "baseline": None}
        summary |= _circumstances(recipe, config, sources, seconds)
        main_process = PartialState().is_main_process
        for name, other_config, other_sources in _beside(recipe, config, baseline, sources):
            if main_process:
                _leave(folder, summary | {UNFINISHED: f"{name} {other_config.label}"})
            with first_prm(learnt):
                _, measured, _ = _one_run(recipe, other_config, other_sources, build_trainer, seconds, (name, before))
            summary[name] = {"method": other_config.label, **measured}
        if recipe.check_prm and sources.check_prm and PartialState().num_processes == 1:
            with _timed(seconds, "check PRM"):
                summary["prm"] = sources.check_prm(folder / "prm_audit.html")
        if main_process:
            page = _leave(folder, summary)
            words = "".join(f"\n{sentence}" for sentence in meaning(summary))
            print(f"\n{result_table(summary)}{words}\nrun: {folder}   report: {page}")
    return summary


def _beside(
    recipe: RecipeArguments, config: Any, baseline: Any | None, sources: Sources
) -> Iterator[tuple[str, Any, Sources]]:
    """(name, config, sources) of the runs to compare with."""
    if baseline is not None:
        # An outcome-only run needs no scorer; verdicts, live values or token scores would be computed for nothing.
        asked = sources.step_scorer
        costly = getattr(asked, "costly", False) or hasattr(asked, "score_tokens")
        wasted = baseline.learns_from_outcome_only and costly
        yield "baseline", baseline, replace(sources, step_scorer=None) if wasted else sources
    if recipe.ceiling:
        ceiling = copy.deepcopy(config)
        ceiling.output_dir = str(Path(config.output_dir) / "ceiling")
        yield "ceiling", ceiling, replace(sources, step_scorer=sources.exact_scorer)


def _one_run(
    recipe: RecipeArguments,
    config: Any,
    sources: Sources,
    build_trainer: BuildTrainer,
    seconds: dict[str, float],
    beside: tuple[str, dict[str, float | None]] | None = None,
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]], Taught | None]:
    """Build a trainer, train it, and release it, so that the next one has all the memory.

    Args:
        beside: for a run to compare with, its name, and the accuracies before training, which are the
            main run's, as both start from the same weights.

    Returns:
        The accuracies before; each before and after; the scorer's states before and after a main run.
    """
    with user_errors():  # when a run is resumed, the one beside it may not have begun
        trainer, checkpoint = _built(recipe, config, sources, build_trainer, is_beside=beside is not None)
    if beside is None:
        label = config.label
        with _timed(seconds, "evaluate"):
            before = sources.start_accuracy() if sources.start_accuracy else held_out_accuracy(trainer, sources)
    else:
        name, before = beside
        label = f"{config.label} ({name})"
    first = learnt_so_far(sources.step_scorer)
    measured = _trained(trainer, checkpoint, sources, seconds, label, before)
    learnt = taught(trainer, sources.step_scorer, first) if beside is None else None
    if hasattr(sources.step_scorer, "detach"):
        sources.step_scorer.detach()
    trainer.accelerator.free_memory()
    del trainer
    release_memory()  # trainer, callbacks and model refer to each other: they go by garbage collection only
    return before, measured, learnt


def _built(
    recipe: RecipeArguments,
    config: Any,
    sources: Sources,
    build_trainer: BuildTrainer,
    is_beside: bool = False,
) -> tuple[Any, str | None]:
    """A trainer with its callbacks, and the checkpoint to resume from."""
    on_the_way = EvaluateOnTheWay(sources, recipe.eval_every, recipe.eval_every_limit)
    tokens, guard = TokenBudget(budget=recipe.token_budget), _guard(recipe)
    checkpoint = checkpoint_to_resume(config, required=not is_beside)
    callbacks = [MetricsFile(config.output_dir), on_the_way, tokens, guard]
    if sources.step_scorer is not None and not config.learns_from_outcome_only and not is_beside:
        callbacks.append(PRMCheck())
        if isinstance(sources.step_scorer, LogRatioScorer) and sources.step_scorer.sign == 1:
            callbacks.append(TeacherCheck())
        if recipe.prm_refresh:
            callbacks.append(RefreshPRM(recipe.prm_refresh, sources))
    trainer = build_trainer(config, callbacks, sources)
    for callback in callbacks[1:]:
        callback.trainer = trainer
    if sources.evaluate is not None or sources.eval_dataset is not None:
        guard.held_out = lambda: on_the_way.measured()["accuracy"]
        guard.state.arbiter.problems = samples_of_accuracy(trainer, sources, recipe.eval_every_limit)
    return trainer, checkpoint


def _trained(
    trainer: Any, checkpoint: str | None, sources: Sources, seconds: dict[str, float], label: str, before: dict
) -> dict[str, dict[str, float | None]]:
    """Train, evaluate and save; returns each held-out measure before and after."""
    with _timed(seconds, f"train {label}"), checkpoint_when_server_is_lost(trainer), one_line(trainer, label):
        trainer.train(resume_from_checkpoint=checkpoint)
    with _timed(seconds, "evaluate"):
        after = held_out_accuracy(trainer, sources)
    trainer.save_model(str(Path(trainer.args.output_dir) / "policy"))
    return {key: {"before": before[key], "after": after[key]} for key in ("accuracy", "process_accuracy")}


def _circumstances(recipe: RecipeArguments, config: Any, sources: Sources, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "eval_problems": sources.eval_problems,
        "seconds": seconds,
        "versions": versions(),
        "settings": {"recipe": recipe, **config.to_dict()},
    }


def _leave(folder: Path, summary: dict[str, Any]) -> Path:
    """Write the summary, and the page that shows it."""
    write_summary(folder, summary)
    return write_report(folder)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def checkpoint_when_server_is_lost(trainer: Any) -> Iterator[None]:
    """If a PRM server or judge is lost, end the run but save its finished updates, so that it can be
    resumed. So are the judge's verdicts that came before."""
    try:
        yield
    except (PRMServerError, EndpointError) as error:
        done = trainer.state.global_step
        if done:
            save_checkpoint(trainer)
            trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
        kept = f"update {done} is saved; resume with --resume_from_checkpoint true" if done else "no update was done"
        end_with(ValueError(f"{error}; {kept}"))


def _guard(recipe: RecipeArguments) -> HackGuard:
    """The guard of these arguments.

    Raises:
        ValueError: an action, a keyword or a value it does not know.
    """
    try:
        return HackGuard(action=recipe.guard, problems=recipe.eval_every_limit, **recipe.guard_kwargs)
    except TypeError as error:
        raise ValueError(f"guard_kwargs: {error}") from error
