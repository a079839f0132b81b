"""``prm_refresh`` trains the PRM during a run: it collects the trainer's rollouts and calls ``PRMRefresher``."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlhf_prm.files import read_json, write_json
from rlhf_prm.prm_training.along import refuse_unteachable
from rlhf_prm.prm_training.refresh import PRMRefresher
from rlhf_prm.prm_training.versions import STATE_FILE
from rlhf_prm.rl.trl_seam import metrics_of
from rlhf_prm.rl.update_batches import UpdateBatches
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.refresh_labels import check_options, labeller_of, own_models, split_settings
from rlhf_prm.runs.sources import LIVE_VALUES, ORACLE, Sources
from rlhf_prm.runs.token_scorers import kind_of
from rlhf_prm.step_data import read_rows

CONTINUED = ("mc", "consensus")  # labels from completions of prefixes
FOLDER = "prm_refresh"  # in the run's folder: labelled rows, versions of the weights


def check_refresh(recipe: RecipeArguments, config: Any) -> None:
    """Check everything about ``prm_refresh`` that the settings alone determine.

    Raises:
        ValueError: a key or value is unknown, labels lack their model, or the PRM cannot be trained.
    """
    if not recipe.prm_refresh:
        return
    settings, options = split_settings(recipe.prm_refresh)
    if config.learns_from_outcome_only:
        raise ValueError(f"prm_refresh: got {recipe.prm_refresh} beside a run that learns from the outcome alone")
    if (
        recipe.prm in (ORACLE, LIVE_VALUES)
        or kind_of(recipe.prm)
        or (recipe.prm is None and recipe.dataset is not None)
    ):
        raise ValueError(f"prm_refresh: got prm {recipe.prm!r}, expected a PRM with weights that can be trained")
    if recipe.prm_placement not in ("replicate", "offload"):
        raise ValueError(
            f"prm_refresh: got prm_placement {recipe.prm_placement!r}, expected replicate or offload; a PRM behind a "
            "server is refreshed by hand: stop the run, label its rollouts (rlhf-prm annotate), train the PRM on old "
            "and new rows (recipes/train_prm.py), serve the new folder, continue with --resume_from_checkpoint true"
        )
    if config.prm_reads != "all":
        raise ValueError(
            f"prm_reads: got {config.prm_reads!r} beside prm_refresh, expected 'all': labels are of every step, and "
            "the PRM would learn steps that it is not shown"
        )
    if config.step_pattern is not None and settings.labels in CONTINUED:
        raise ValueError(
            f"step_pattern: got {config.step_pattern!r} beside prm_refresh labels {settings.labels!r}, expected a "
            "step_separator: the steps of a prefix are joined by it before the prefix is continued"
        )
    check_options(settings, options, in_toy_world=recipe.dataset is None)


class RefreshPRM(TrainerCallback):
    """Refreshes the PRM on the rollouts of the policy in training, at intervals of updates (see ``PRMRefresher``).

    It logs ``prm_refresh/…`` in the row of that update. Labelled rows, versions of the weights and a log are in the
    run's folder under ``prm_refresh/``, and at the end the final PRM is under ``prm_refresh/prm``, for families
    whose PRM is a body with a head of two labels. A checkpoint holds what is needed to resume.

    Args:
        given: ``prm_refresh`` of the recipe.
        trainer: a ``ProcessGRPOTrainer`` or ``ProcessPPOTrainer``; set later, before training starts.

    Raises:
        ValueError: the PRM cannot be trained, or a model for labels is not available.
    """

    def __init__(self, given: Mapping[str, Any], sources: Sources, trainer: Any = None) -> None:
        self.settings, self.options = split_settings(given)
        self.sources, self.trainer = sources, trainer
        self.refresher: PRMRefresher | None = None
        self._batches = UpdateBatches()
        refuse_unteachable(sources.step_scorer)
        if sources.world is None:
            judge, completer = own_models(self.settings.labels, self.options)
            for model, needs_template in ((judge, False), (completer, True)):
                if model is not None:
                    model.check(needs_template)

    @property
    def folder(self) -> Path:
        return Path(self.trainer.args.output_dir)

    def on_train_begin(self, args, state, control, **kwargs):
        """Build everything, now that there is a policy, and restore the PRM of the checkpoint if there is one."""
        trainer = self.trainer
        self.refresher = PRMRefresher(
            trainer.scoring.step_scorer,
            labeller_of(self.settings, self.options, self.sources, trainer),
            self.settings,
            folder=self.folder / FOLDER,
            first_rows=first_rows(self.options, self.sources),
            seed=args.seed,
        )
        if state.global_step:
            saved = self.folder / f"checkpoint-{state.global_step}" / STATE_FILE
            if not saved.is_file():
                raise ValueError(
                    f"resume_from_checkpoint: got {saved.parent} without {STATE_FILE}, expected a checkpoint of a run "
                    "with prm_refresh"
                )
            self.refresher.load(read_json(saved), state.global_step)

    def on_substep_end(self, args, state, control, **kwargs):
        """Several generations may feed one update."""
        self._batches.look(self.trainer)

    def on_step_end(self, args, state, control, **kwargs):
        """Collect rollouts, and refresh when it is due, but not after the last update."""
        self._batches.look(self.trainer)
        for batch in self._batches.taken():
            self.refresher.collect([row.fresh for row in batch.rows if row.has_text])
        if self.refresher.due(state.global_step) and state.global_step < state.max_steps:
            logged = metrics_of(self.trainer, "train")
            for name, value in self.refresher.refresh(state.global_step).items():
                if not math.isnan(value):
                    logged[f"prm_refresh/{name}"].append(float(value))

    def on_save(self, args, state, control, **kwargs):
        """Save in the checkpoint what is needed to resume."""
        if state.is_world_process_zero:
            saved = self.folder / f"checkpoint-{state.global_step}" / STATE_FILE
            write_json(saved, self.refresher.state())

    def on_train_end(self, args, state, control, **kwargs):
        """Export the final PRM."""
        if state.is_world_process_zero and self.refresher.version:
            scorer = self.refresher.scorer
            self.refresher.versions.export(self.folder / FOLDER / "prm", scorer.texts.tokenizer)


def learnt_so_far(scorer: Any) -> dict[str, Any] | None:
    """The state of a scorer that is trained along with the policy; None for others."""
    return scorer.state_dict() if hasattr(scorer, "update") else None


@dataclass(frozen=True)
class Taught:
    """The states of a scorer before and after a run; ``put`` loads the ``first`` or the ``newest`` into the scorer."""

    put: Callable[[Any], Any]
    first: Any
    newest: Any


def taught(trainer: Any, scorer: Any, first: Mapping[str, Any] | None) -> Taught | None:
    """The scorer's states before and after this trainer's run, without a reference to the trainer; None if unchanged.

    Args:
        first: ``learnt_so_far`` before the run.
    """
    if first is not None:
        return Taught(scorer.load_state_dict, first, scorer.state_dict())
    found = [c.refresher for c in trainer.callback_handler.callbacks if isinstance(c, RefreshPRM)]
    if found and found[0].version:
        return Taught(found[0].versions.load, 0, found[0].version)
    return None


@contextmanager
def first_prm(taught: Taught | None) -> Iterator[None]:
    """Inside the context the scorer is in its state before the run, from which the runs to compare with start too."""
    if taught is None:
        yield
        return
    taught.put(taught.first)
    try:
        yield
    finally:
        taught.put(taught.newest)


def first_rows(options: Mapping[str, Any], sources: Sources) -> list[dict[str, Any]]:
    """The rows that the PRM was first trained on, if they are known.

    Raises:
        ValueError: a file is missing, or its rows are not stepwise ones.
    """
    own = sources.world is not None and sources.world.prm_path is not None
    if own and "train_rows" not in options:
        rows = list(read_rows(sources.world.stages["labels"].path / "rows.jsonl"))
        return rows[: sources.world.settings.prm_rows]
    named = options.get("train_rows", [])
    return [row for path in ([named] if isinstance(named, str) else named) for row in read_rows(path)]
