"""``prm_refresh``: the PRM of a run learns along. Collects the trainer's rollouts, and calls ``PRMRefresher``."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlhf_prm.annotate.judge import JudgeSettings
from rlhf_prm.annotate.labellers import (
    ConsensusLabeller,
    JudgeLabeller,
    Labeller,
    MonteCarloLabeller,
    OutcomeLabeller,
    given,
)
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.guard.update_batches import UpdateBatches
from rlhf_prm.prm_training.along import refuse_unteachable
from rlhf_prm.prm_training.refresh import PRMRefresher, RefreshSettings
from rlhf_prm.prm_training.versions import STATE_FILE
from rlhf_prm.rl.policy_sampling import Prefix, TrainerSampler
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.sources import LIVE_VALUES, ORACLE, Sources
from rlhf_prm.step_data import FreshRollout, read_rows

FOLDER = "prm_refresh"  # in the run's folder: labelled rows, versions of the weights
SETTINGS = tuple(field.name for field in fields(RefreshSettings))
# Of labels by models of one's own. `model` and `endpoint` are short for those of `judge`, or of `completer` with `mc`.
OPTIONS = (
    "model",
    "endpoint",
    "judge",
    "completer",
    "votes",
    "judge_form",
    "num_completions",
    "threshold",
    "train_rows",
)
OF_MODELS = {"model", "judge", "completer"}
CONCURRENCY = 128


def check_refresh(recipe: RecipeArguments, config: Any) -> None:
    """Everything about ``prm_refresh`` that settings alone can tell.

    Raises:
        ValueError: a key or value it does not know, labels that lack their model, a PRM that cannot go on learning.
    """
    if not recipe.prm_refresh:
        return
    settings, options = split_settings(recipe.prm_refresh)
    if config.learns_from_outcome_only:
        raise ValueError(f"prm_refresh: got {recipe.prm_refresh} beside a run that learns from the outcome alone")
    if recipe.prm in (ORACLE, LIVE_VALUES) or (recipe.prm is None and recipe.dataset is not None):
        raise ValueError(f"prm_refresh: got prm {recipe.prm!r}, expected a PRM with weights, which can go on learning")
    if recipe.prm_placement not in ("replicate", "offload"):
        raise ValueError(
            f"prm_refresh: got prm_placement {recipe.prm_placement!r}, expected replicate or offload; a PRM behind a "
            "server is refreshed by hand: stop the run, label its rollouts (rlhf-prm annotate), train the PRM on old "
            "and new rows (recipes/train_prm.py), serve the new folder, go on with --resume_from_checkpoint true"
        )
    _check_options(settings, options, in_toy_world=recipe.dataset is None)


def _check_options(settings: RefreshSettings, options: Mapping[str, Any], in_toy_world: bool) -> None:
    if not in_toy_world or OF_MODELS & set(options):
        _own_models(settings.labels, options)
        return
    from rlhf_prm.toyworld.refresh_labels import OPTIONS as TOY_OPTIONS

    if unknown := sorted(set(options) - {*TOY_OPTIONS, "train_rows"}):
        known = ", ".join((*SETTINGS, *TOY_OPTIONS, "train_rows"))
        raise ValueError(f"prm_refresh: got the key {unknown[0]!r}, expected some of {known}")


def split_settings(given: Mapping[str, Any]) -> tuple[RefreshSettings, dict[str, Any]]:
    """The refresh's settings, and the rest: those of who labels.

    Raises:
        ValueError: a value out of range.
    """
    try:
        settings = RefreshSettings(**{name: value for name, value in given.items() if name in SETTINGS})
    except TypeError as error:  # a text where a number belongs
        raise ValueError(f"prm_refresh: {error}") from error
    return settings, {name: value for name, value in given.items() if name not in SETTINGS}


class RefreshPRM(TrainerCallback):
    """Every so many updates the PRM is refreshed on the rollouts of the policy in training (see ``PRMRefresher``).

    Logged as ``prm_refresh/…`` in the row of that update; labelled rows, versions of the weights and a log lie in the
    run's folder under ``prm_refresh/``, and at the end the PRM as it is then under ``prm_refresh/prm``, for families
    that ``load_prm`` reads from our layout. A checkpoint holds what is needed to go on.

    Args:
        given: ``prm_refresh`` of the recipe.
        trainer: a ``ProcessGRPOTrainer`` or ``ProcessPPOTrainer``; set later, before training starts.

    Raises:
        ValueError: a PRM that cannot go on learning, a model that cannot be asked.
    """

    def __init__(self, given: Mapping[str, Any], sources: Sources, trainer: Any = None) -> None:
        self.settings, self.options = split_settings(given)
        self.sources, self.trainer = sources, trainer
        self.refresher: PRMRefresher | None = None
        self._batches = UpdateBatches()
        refuse_unteachable(sources.step_scorer)
        if sources.world is None:
            judge, completer = _own_models(self.settings.labels, self.options)
            for model, needs_template in ((judge, False), (completer, True)):
                if model is not None:
                    model.check(needs_template)

    @property
    def folder(self) -> Path:
        return Path(self.trainer.args.output_dir)

    def on_train_begin(self, args, state, control, **kwargs):
        """Everything is built now that there is a policy; or the PRM of the checkpoint comes back."""
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
            self.refresher.load(json.loads(saved.read_text()), state.global_step)

    def on_substep_end(self, args, state, control, **kwargs):
        """Several generations may feed one update."""
        self._batches.look(self.trainer)

    def on_step_end(self, args, state, control, **kwargs):
        """Collect; refresh when it is time, but not after the last update."""
        self._batches.look(self.trainer)
        for batch in self._batches.taken():
            self.refresher.collect([row.fresh for row in batch.rows])
        if self.refresher.due(state.global_step) and state.global_step < state.max_steps:
            logged = self.trainer._metrics["train"]
            for name, value in self.refresher.refresh(state.global_step).items():
                if not math.isnan(value):
                    logged[f"prm_refresh/{name}"].append(float(value))

    def on_save(self, args, state, control, **kwargs):
        """Leave what is needed to go on in the checkpoint."""
        if state.is_world_process_zero:
            saved = self.folder / f"checkpoint-{state.global_step}" / STATE_FILE
            saved.write_text(json.dumps(self.refresher.state()))

    def on_train_end(self, args, state, control, **kwargs):
        """The PRM as it is now, for others to load."""
        if state.is_world_process_zero and self.refresher.version:
            scorer = self.refresher.scorer
            self.refresher.versions.export(self.folder / FOLDER / "prm", scorer.texts.tokenizer)


@contextmanager
def first_prm(trainer: Any) -> Iterator[None]:
    """Inside, the trainer's scorer is what it was before any refresh: what a run is compared with starts there too."""
    found = [c for c in trainer.callback_handler.callbacks if isinstance(c, RefreshPRM)]
    if not found or not found[0].refresher.version:
        yield
        return
    versions = found[0].refresher.versions
    newest = versions.newest
    versions.load(0)
    try:
        yield
    finally:
        versions.load(newest)


def first_rows(options: Mapping[str, Any], sources: Sources) -> list[dict[str, Any]]:
    """The rows that the PRM was first trained on, where they are known.

    Raises:
        ValueError: a file that is not there, or rows that are not stepwise ones.
    """
    if sources.world is not None and "train_rows" not in options:
        rows = list(read_rows(sources.world.stages["labels"].path / "rows.jsonl"))
        return rows[: sources.world.settings.prm_rows]
    named = options.get("train_rows", [])
    return [row for path in ([named] if isinstance(named, str) else named) for row in read_rows(path)]


def labeller_of(settings: RefreshSettings, options: Mapping[str, Any], sources: Sources, trainer: Any) -> Labeller:
    """Who labels this run's rollouts.

    Raises:
        ValueError: an unknown key, a model that cannot be asked, completions of the policy in training on several
            ranks.
    """
    rest = {name: value for name, value in options.items() if name != "train_rows"}
    if sources.world is not None and not OF_MODELS & set(rest):
        from rlhf_prm.toyworld.refresh_labels import toy_labeller
        from rlhf_prm.toyworld.sampler import PolicySampler

        policy = None
        if settings.labels in ("mc", "consensus", "confirmed"):
            _refuse_ranks(trainer)
            limit = sources.world.settings.max_completion_length
            policy = PolicySampler(
                trainer.accelerator.unwrap_model(trainer.model), trainer._tokenizer, max_new_tokens=limit
            )
        return toy_labeller(settings.labels, sources.world.settings, policy, **rest)
    judge, completer = _own_models(settings.labels, options)
    if settings.labels == "outcome":
        return OutcomeLabeller()
    asked = judge and JudgeLabeller(
        judge.build(CONCURRENCY),
        JudgeSettings(form=options.get("judge_form", "paper"), votes=options.get("votes", 1)),
    )
    if settings.labels == "judge":
        return asked
    estimate = _estimates(completer, options, trainer)
    return estimate if settings.labels == "mc" else ConsensusLabeller(estimate, asked)


def _estimates(completer: GeneratorConfig | None, options: Mapping[str, Any], trainer: Any) -> MonteCarloLabeller:
    """By a model of one's own, or by the policy in training."""
    splitter = trainer.scoring.splitter
    how = MonteCarloSettings(
        options.get("num_completions", 8), options.get("threshold", 0.0), separator=splitter.separator
    )
    verifier = trainer.scoring.verifier
    if completer is None:
        return MonteCarloLabeller(LivePolicy(trainer), verifier, how, partial(_rendered, trainer._tokenizer))
    template = completer.prompt_template()
    return MonteCarloLabeller(completer.build(CONCURRENCY), verifier, how, lambda rollout: template(rollout.prompt))


def _own_models(labels: str, options: Mapping[str, Any]) -> tuple[GeneratorConfig | None, GeneratorConfig | None]:
    """(judge, completer), None where there is none."""
    if unknown := sorted(set(options) - set(OPTIONS)):
        known = ", ".join((*SETTINGS, *OPTIONS))
        raise ValueError(f"prm_refresh: got the key {unknown[0]!r}, expected some of {known}")
    if labels in ("gold", "confirmed"):
        raise ValueError(f"prm_refresh labels: got {labels!r}, which the toy world alone has")
    short = {"model": options.get("model"), "endpoints": _listed(options.get("endpoint"))}
    short = {name: value for name, value in short.items() if value}
    judge, completer = dict(options.get("judge") or {}), dict(options.get("completer") or {})
    if short:
        judge, completer = (judge, {**short, **completer}) if labels == "mc" else ({**short, **judge}, completer)
    if labels in ("judge", "consensus") and "model" not in judge:
        raise ValueError(
            f"prm_refresh labels {labels!r}: got no model that judges, expected model (and endpoint), or "
            'judge: {"model": …, "endpoints": […]}'
        )
    return _model("judge", judge), _model("completer", completer)


def _model(name: str, given: dict[str, Any]) -> GeneratorConfig | None:
    if not given:
        return None
    try:
        return GeneratorConfig(**given)
    except TypeError as error:
        raise ValueError(f"prm_refresh {name}: {error}") from error


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _refuse_ranks(trainer: Any) -> None:
    if trainer.accelerator.num_processes > 1:
        raise ValueError(
            "prm_refresh: got completions of the policy in training on several ranks, of which one labels; expected a "
            'completer: {"model": …, "endpoints": […]}, or labels judge or outcome'
        )


def _rendered(tokenizer: Any, rollout: FreshRollout) -> str:
    """The text that the policy in training was given."""
    prompt = given(rollout)
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


class LivePolicy:
    """A ``Generator`` that is the policy in training, sampled as its rollouts are. One process only."""

    def __init__(self, trainer: Any) -> None:
        _refuse_ranks(trainer)
        self.trainer, self.sampler = trainer, TrainerSampler(trainer)

    def generate(
        self, prompts: Sequence[str], n: int, *, seed: int | Sequence[int] | None = None, stop: Any = None
    ) -> list[list[str]]:
        """``n`` completions of every text; the seeds of a call make one."""
        tokenizer, limit = self.trainer._tokenizer, self.trainer.max_completion_length
        rendered = not isinstance(next(iter(self.trainer.train_dataset))["prompt"], str)
        ids = [tokenizer(text, add_special_tokens=not rendered)["input_ids"] for text in prompts]
        prefixes = [Prefix(text, tuple(one), (), limit) for text, one in zip(prompts, ids, strict=True)]
        seeds = [seed] if isinstance(seed, int) or seed is None else seed
        found = self.sampler.continuations(prefixes, n, unit_seed(0, *map(str, seeds)))
        return [[one.text for one in row] for row in found]
