"""Builds the labeller of a PRM refresh: the user's models, the toy world, or the policy itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from rlhf_prm.annotate.judge import JudgeSettings
from rlhf_prm.annotate.labellers import (
    ConsensusLabeller,
    JudgeLabeller,
    Labeller,
    Labels,
    MonteCarloLabeller,
    OutcomeLabeller,
    given,
)
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.prm_training.refresh import RefreshSettings
from rlhf_prm.rl.policy_sampling import Prefix, TrainerSampler
from rlhf_prm.rl.trl_seam import rendered, tokenizer_of
from rlhf_prm.runs.sources import Sources
from rlhf_prm.step_data import FreshRollout

SETTINGS = tuple(field.name for field in fields(RefreshSettings))
# Keys of labels by the user's models. `model` and `endpoint` are short for those of `judge`, or with `mc` of
# `completer`.
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


def check_options(settings: RefreshSettings, options: Mapping[str, Any], in_toy_world: bool) -> None:
    """Raise a ValueError for an unknown key, and for labels that lack their model."""
    if not in_toy_world or OF_MODELS & set(options):
        own_models(settings.labels, options)
        return
    from rlhf_prm.toyworld.refresh_labels import OPTIONS as TOY_OPTIONS

    if unknown := sorted(set(options) - {*TOY_OPTIONS, "train_rows"}):
        known = ", ".join((*SETTINGS, *TOY_OPTIONS, "train_rows"))
        raise ValueError(f"prm_refresh: got the key {unknown[0]!r}, expected some of {known}")


def split_settings(given: Mapping[str, Any]) -> tuple[RefreshSettings, dict[str, Any]]:
    """The refresh's settings, and the remaining ones, which are the labeller's.

    Raises:
        ValueError: a value out of range.
    """
    try:
        settings = RefreshSettings(**{name: value for name, value in given.items() if name in SETTINGS})
    except TypeError as error:  # a text where a number belongs
        raise ValueError(f"prm_refresh: {error}") from error
    return settings, {name: value for name, value in given.items() if name not in SETTINGS}


def labeller_of(settings: RefreshSettings, options: Mapping[str, Any], sources: Sources, trainer: Any) -> Labeller:
    """The labeller of this run's rollouts.

    Raises:
        ValueError: a key is unknown, a model is not available, or completions of the policy in training are asked for
            on several ranks.
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
                trainer.accelerator.unwrap_model(trainer.model), tokenizer_of(trainer), max_new_tokens=limit
            )
        return toy_labeller(settings.labels, sources.world.settings, policy, **rest)
    judge, completer = own_models(settings.labels, options)
    if settings.labels == "outcome":
        return OutcomeLabeller()
    if settings.labels != "judge" and completer is None:
        _refuse_ranks(trainer)

    def made() -> Labeller:
        asked = judge and JudgeLabeller(
            judge.build(CONCURRENCY),
            JudgeSettings(form=options.get("judge_form", "paper"), votes=options.get("votes", 1)),
        )
        if settings.labels == "judge":
            return asked
        estimate = _estimates(completer, options, trainer)
        return estimate if settings.labels == "mc" else ConsensusLabeller(estimate, asked)

    return _MadeWhenAsked(made)


def _estimates(completer: GeneratorConfig | None, options: Mapping[str, Any], trainer: Any) -> MonteCarloLabeller:
    """Monte Carlo labels by the user's model, or by the policy in training."""
    splitter = trainer.scoring.splitter
    how = MonteCarloSettings(
        options.get("num_completions", 8), options.get("threshold", 0.0), separator=splitter.separator
    )
    verifier = trainer.scoring.verifier
    if completer is None:
        return MonteCarloLabeller(LivePolicy(trainer), verifier, how, partial(_rendered, trainer))
    template = completer.prompt_template()
    return MonteCarloLabeller(completer.build(CONCURRENCY), verifier, how, lambda rollout: template(rollout.prompt))


def own_models(labels: str, options: Mapping[str, Any]) -> tuple[GeneratorConfig | None, GeneratorConfig | None]:
    """(judge, completer), each None if there is none.

    Raises:
        ValueError: a key is unknown, the labels are the toy world's, or there is no judge model.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        known = ", ".join((*SETTINGS, *OPTIONS))
        raise ValueError(f"prm_refresh: got the key {unknown[0]!r}, expected some of {known}")
    if labels in ("gold", "confirmed"):
        raise ValueError(f"prm_refresh labels: got {labels!r}, which only the toy world has")
    short = {"model": options.get("model"), "endpoints": _listed(options.get("endpoint"))}
    short = {name: value for name, value in short.items() if value}
    judge, completer = dict(options.get("judge") or {}), dict(options.get("completer") or {})
    if short:
        judge, completer = (judge, {**short, **completer}) if labels == "mc" else ({**short, **judge}, completer)
    if labels in ("judge", "consensus") and "model" not in judge:
        raise ValueError(
            f"prm_refresh labels {labels!r}: got no judge model, expected model (and endpoint), or "
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


def _rendered(trainer: Any, rollout: FreshRollout) -> str:
    """The text that the policy in training was given, in the trainer's template."""
    prompt = given(rollout)
    return prompt if isinstance(prompt, str) else rendered(trainer, prompt)


class _MadeWhenAsked:
    """A labeller that is built when it is first used, so that ranks that do not label load no model."""

    def __init__(self, make: Callable[[], Labeller]) -> None:
        self.make = make
        self.made: Labeller | None = None

    def labels(self, rollouts: Sequence[FreshRollout], seed: int) -> Labels:
        """See ``Labeller``."""
        self.made = self.made or self.make()
        return self.made.labels(rollouts, seed)


class LivePolicy:
    """A ``Generator`` that is the policy in training, sampled as its rollouts are. One process only."""

    def __init__(self, trainer: Any) -> None:
        _refuse_ranks(trainer)
        self.trainer, self.sampler = trainer, TrainerSampler(trainer)

    def generate(
        self, prompts: Sequence[str], n: int, *, seed: int | Sequence[int] | None = None, stop: Any = None
    ) -> list[list[str]]:
        """``n`` completions of every text; the seeds of a call make one."""
        tokenizer, limit = tokenizer_of(self.trainer), self.trainer.max_completion_length
        rendered = not isinstance(next(iter(self.trainer.train_dataset))["prompt"], str)
        ids = [tokenizer(text, add_special_tokens=not rendered)["input_ids"] for text in prompts]
        prefixes = [Prefix(text, tuple(one), (), limit) for text, one in zip(prompts, ids, strict=True)]
        seeds = [seed] if isinstance(seed, int) or seed is None else seed
        found = self.sampler.continuations(prefixes, n, unit_seed(0, *map(str, seeds)))
        return [[one.text for one in row] for row in found]
