"""Loads the parts of an RL run: from one of the two laboratories, or from given models and data."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig

from reward import resolve
from reward.verifier import MathVerifier, Verifier
from rlhf_prm.evaluation.audit.probes import ProbeTexts
from rlhf_prm.judges.load import PREFIX, check_judge_keywords, is_judge, load_judge
from rlhf_prm.judges.scorer import JudgeScorer
from rlhf_prm.prm import load_prm
from rlhf_prm.prm.scorer import StepScorer
from rlhf_prm.prompts import keep_gold, load_prompts
from rlhf_prm.rl.dataset_checks import refuse_without_gold
from rlhf_prm.rl.live_values import LiveMonteCarloScorer
from rlhf_prm.rl.scorers import Scorer
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.errors import loading
from rlhf_prm.runs.ignored import without_effect
from rlhf_prm.runs.token_scorers import kind_of, loads_the_policy, token_scorer
from rlhf_prm.settings import build
from rlhf_prm.tokenizer_checks import saved_tokenizer

TINY_RANDOM = "tiny-random"  # a small random policy or PRM, for smoke tests without a download
ORACLE = "oracle"  # in place of a PRM: the world's exact step labels
LIVE_VALUES = "vine"  # in place of a PRM: Monte Carlo values of the policy in training
TOY_JUDGE = f"{PREFIX}toy"  # the world's fallible judge, in place of a judge model
VERIFIERS: dict[str, Callable[..., Verifier]] = {"math": MathVerifier}


@dataclass
class Sources:
    """The parts of a run that a trainer needs.

    ``policy_path`` loads a fresh policy with ``policy()``, so that a baseline starts from the same weights.
    ``evaluate(model, limit)`` gives {"accuracy", "process_accuracy"} on held-out problems, or is None if the
    trainer evaluates on ``eval_dataset`` itself; ``start_accuracy()`` is what it gives before training, if that is
    known without the trainer. ``seconds`` is the time spent building; ``eval_problems`` is how many problems an
    evaluation without a limit uses. If steps can be checked exactly, ``check_prm(page)`` measures and audits the PRM if
    there is one, and ``exact_scorer`` scores by exact labels; ``world`` is the toy world, if it is used. ``prepare`` is
    called on every fresh policy.
    """

    policy_path: str
    model_kwargs: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    step_scorer: Scorer | None
    verifier: Verifier
    train_dataset: Dataset
    eval_dataset: Dataset | None = None
    evaluate: Callable[[PreTrainedModel, int | None], dict[str, float]] | None = None
    start_accuracy: Callable[[], dict[str, float]] | None = None
    check_prm: Callable[[Path], dict[str, Any]] | None = None
    exact_scorer: StepScorer | None = None
    world: Any = None
    prepare: Callable[[PreTrainedModel], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    eval_problems: int = 0

    def policy(self) -> PreTrainedModel:
        """A fresh copy of the policy."""
        with loading("model_name_or_path", self.policy_path):
            policy = AutoModelForCausalLM.from_pretrained(self.policy_path, **self.model_kwargs)
        if self.prepare is not None:
            self.prepare(policy)
        return policy

    def __enter__(self) -> "Sources":
        return self

    def __exit__(self, *_: object) -> None:
        """End the verifier's workers, if it has any."""
        close = getattr(self.verifier, "close", None)
        if close:
            close()


def load_sources(recipe: RecipeArguments, model_args: ModelConfig, seed: int) -> Sources:
    """The toy world if no dataset is named, otherwise the models and data the arguments name.

    Raises:
        ValueError: a model, dataset, column or verifier is missing; raised before anything long starts.
    """
    for sentence in without_effect(recipe):
        warnings.warn(sentence, stacklevel=2)
    if recipe.prm == LIVE_VALUES:
        _check_live_values(recipe)
    if is_judge(recipe.prm):
        _check_judge(recipe)
    if recipe.gold_fraction == 0.0:
        _refuse_outcome_baseline(recipe)
    if recipe.dataset is None:
        for name, given in (
            ("model_name_or_path", model_args.model_name_or_path),
            ("eval_dataset", recipe.eval_dataset),
            ("columns", recipe.columns),
        ):
            if given:
                raise ValueError(
                    f"dataset: got nothing beside {name} {given!r}, expected the problems to train on (without any of "
                    "the two the recipe runs the embedded toy world, which makes its own policy and problems)"
                )
        return _word_problems(recipe, seed) if recipe.world == "word_problems" else _toy_world(recipe, seed)
    return _named(recipe, model_args, seed)


def refuse_revision(recipe: RecipeArguments, config: Any, model_args: ModelConfig) -> None:
    """Raise a ValueError if the policy is of another revision than the reference model that is loaded beside it.

    TRL and the token scorers load a reference by the policy's name alone, which is its revision "main".
    """
    if model_args.model_revision == ModelConfig.model_revision:
        return
    needs_reference = f"beta {config.beta:g}" if config.beta and not model_args.use_peft else None
    if loads_the_policy(recipe):
        needs_reference = f"prm {recipe.prm!r}"
    if needs_reference is not None:
        raise ValueError(
            f"model_revision: got {model_args.model_revision!r} beside {needs_reference}, whose reference model would "
            f"be the policy's revision {ModelConfig.model_revision!r}; expected a folder: download the revision and "
            "name its folder in model_name_or_path"
        )


def _toy_world(recipe: RecipeArguments, seed: int) -> Sources:
    from rlhf_prm.toyworld import ToyWorldSettings, build_world, evaluate_policy
    from rlhf_prm.toyworld.oracle import OracleScorer
    from rlhf_prm.toyworld.prm_check import check_prm
    from rlhf_prm.toyworld.verifier import ExactMatchVerifier

    settings = {"seed": seed, "gold_fraction": recipe.gold_fraction, **recipe.world_settings}
    world_settings = build(ToyWorldSettings, settings, "world_settings")
    own_prm = recipe.prm is None
    oracle = _oracle(recipe, world_settings.seed) if recipe.prm == ORACLE else None
    judge = _toy_judge(recipe, world_settings.seed) if recipe.prm == TOY_JUDGE else None
    world = build_world(world_settings, recipe.stage_cache, with_prm=own_prm, with_labels=own_prm)
    tokenizer = AutoTokenizer.from_pretrained(world.policy_path)

    def evaluate(model: PreTrainedModel, limit: int | None) -> dict[str, float]:
        prompts = world.eval_dataset["prompt"][: limit or recipe.eval_limit]
        return evaluate_policy(model, tokenizer, prompts, max_new_tokens=world.settings.max_completion_length)

    scorer = (
        oracle
        or judge
        or _step_scorer(
            recipe,
            str(world.prm_path if own_prm else recipe.prm),
            (str(world.policy_path), tokenizer, world.train_dataset["prompt"][0]),
        )
    )

    def check(page: Path) -> dict[str, Any]:
        return check_prm(world, scorer, page)

    return Sources(
        policy_path=str(world.policy_path),
        model_kwargs={"dtype": "float32"},
        tokenizer=tokenizer,
        step_scorer=scorer,
        verifier=ExactMatchVerifier(),
        train_dataset=world.train_dataset,
        evaluate=evaluate,
        check_prm=check if hasattr(scorer, "score") and recipe.prm != LIVE_VALUES else None,
        exact_scorer=OracleScorer(seed=world_settings.seed),
        world=world,
        seconds=dict(world.seconds),
        eval_problems=min(recipe.eval_limit or len(world.eval_dataset), len(world.eval_dataset)),
    )


def _word_problems(recipe: RecipeArguments, seed: int) -> Sources:
    from rlhf_prm.toyworld.oracle import OracleScorer
    from rlhf_prm.toyworld.prm_check import check_prm
    from rlhf_prm.toyworld.reward_model import freeze_layers
    from rlhf_prm.toyworld.verifier import ExactMatchVerifier
    from rlhf_prm.wordproblems import WordWorldSettings, build_world
    from rlhf_prm.wordproblems.checker import WORDS
    from rlhf_prm.wordproblems.sampler import ATTENTION, generate_fast

    settings = build(WordWorldSettings, {"seed": seed, **recipe.world_settings}, "world_settings")
    if recipe.prm_refresh:
        raise ValueError("prm_refresh: got settings in the world word_problems, expected none: it has no labeller yet")
    own_prm = recipe.prm is None
    oracle = _oracle(recipe, settings.seed, checker=WORDS) if recipe.prm == ORACLE else None
    judge = _toy_judge(recipe, settings.seed, checker=WORDS) if recipe.prm == TOY_JUDGE else None
    world = build_world(settings, recipe.stage_cache, with_prm=own_prm, gold_fraction=recipe.gold_fraction)
    tokenizer = saved_tokenizer(world.policy_path, padding_side="left")
    policy = (str(world.policy_path), tokenizer, world.train_dataset["prompt"][0])
    scorer = oracle or judge or _step_scorer(recipe, str(world.prm_path if own_prm else recipe.prm), policy)

    def prepare(model: PreTrainedModel) -> None:
        freeze_layers(model, settings.frozen_layers)
        generate_fast(model, tokenizer)

    def evaluate(model: PreTrainedModel, limit: int | None) -> dict[str, float]:
        return world.evaluate(model, tokenizer, limit=limit or recipe.eval_limit)

    def check(page: Path) -> dict[str, Any]:
        return check_prm(world, scorer, page, texts=ProbeTexts(), name="PRM")

    return Sources(
        policy_path=str(world.policy_path),
        model_kwargs={"dtype": "float32", "attn_implementation": ATTENTION},
        tokenizer=tokenizer,
        step_scorer=scorer,
        verifier=ExactMatchVerifier(),
        train_dataset=world.train_dataset,
        evaluate=evaluate,
        start_accuracy=lambda: world.start_accuracy(recipe.eval_limit),
        check_prm=check if hasattr(scorer, "score") and recipe.prm != LIVE_VALUES else None,
        exact_scorer=OracleScorer(seed=settings.seed, checker=WORDS),
        prepare=prepare,
        seconds=dict(world.seconds),
        eval_problems=min(recipe.eval_limit or settings.eval_problems, settings.eval_problems),
    )


def _oracle(recipe: RecipeArguments, seed: int, **world: Any) -> StepScorer:
    """The world's exact labels, with as many errors in them as ``prm_kwargs`` asks for."""
    from rlhf_prm.toyworld.oracle import OracleScorer

    _refuse_settings_of_a_prm(recipe, "which is no model")
    accepted = ("random_flips", "systematic_flips")
    for name, value in recipe.prm_kwargs.items():
        if name not in accepted:
            raise ValueError(f"prm_kwargs: the oracle has no keyword {name!r}; it has {', '.join(accepted)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"prm_kwargs: {name}: got {value!r}, expected a share between 0 and 1")
    try:
        return OracleScorer(seed=seed, **recipe.prm_kwargs, **world)
    except ValueError as error:
        raise ValueError(f"prm_kwargs: {error}") from error


def _toy_judge(recipe: RecipeArguments, seed: int, **world: Any) -> JudgeScorer:
    """The world's judge, mistaken in a share ``flips`` of its verdicts; further keywords are ``load_judge``'s."""
    from rlhf_prm.toyworld.judge import FallibleJudge

    keywords = dict(recipe.prm_kwargs)
    flips = keywords.pop("flips", 0.1)
    if isinstance(flips, bool) or not isinstance(flips, int | float) or not 0 <= flips <= 1:
        raise ValueError(f"prm_kwargs: flips: got {flips!r}, expected a share between 0 and 1")
    return _judge(TOY_JUDGE, keywords, generator=FallibleJudge(flips, seed, **world))


def _judge(name: str, keywords: dict[str, Any], **given: Any) -> JudgeScorer:
    try:
        return load_judge(name, **keywords, **given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"prm_kwargs: {error}") from error


def _check_judge(recipe: RecipeArguments) -> None:
    """Check a judge's arguments, before a policy is made or loaded."""
    _refuse_settings_of_a_prm(recipe, "which writes its verdicts")
    toy = recipe.prm == TOY_JUDGE
    if toy and recipe.dataset is not None:
        raise ValueError(
            f"prm: got {TOY_JUDGE!r} with dataset {recipe.dataset!r}, but it reads problems of the toy world only; "
            f"expected {PREFIX}MODEL"
        )
    try:
        check_judge_keywords({name: v for name, v in recipe.prm_kwargs.items() if not (toy and name == "flips")})
    except ValueError as error:
        raise ValueError(f"prm_kwargs: {error}") from error


def _refuse_settings_of_a_prm(recipe: RecipeArguments, why: str) -> None:
    for name, default in (("prm_family", "auto"), ("prm_placement", "replicate")):
        if getattr(recipe, name) != default:
            raise ValueError(f"{name}: got {getattr(recipe, name)!r} with prm {recipe.prm!r}, {why}; leave it out")


def _named(recipe: RecipeArguments, model_args: ModelConfig, seed: int) -> Sources:
    if recipe.prm == ORACLE:
        raise ValueError(
            f"prm: got {ORACLE!r} with dataset {recipe.dataset!r}, but it knows the labels of the toy world only; "
            "expected a Hub name or a folder"
        )
    columns, chat = recipe.columns, {"chat": recipe.chat, "system_prompt": recipe.system_prompt}
    train = load_prompts(
        recipe.dataset,
        columns=columns,
        config=recipe.dataset_config,
        split=recipe.dataset_split,
        limit=recipe.dataset_limit,
        **chat,
    )
    train = keep_gold(train, recipe.gold_fraction, seed)
    if all(gold is None for gold in train["solution"]):
        _refuse_outcome_baseline(recipe)
    if recipe.prm == LIVE_VALUES:
        refuse_without_gold(train, "live Monte-Carlo values")
    held_out = recipe.eval_dataset and load_prompts(
        recipe.eval_dataset,
        columns=columns,
        config=recipe.dataset_config,
        split=recipe.eval_split,
        limit=recipe.eval_limit,
        **chat,
    )
    verifier = _verifier(recipe)
    policy_path, prm = model_args.model_name_or_path, recipe.prm
    if policy_path is None:
        raise ValueError("model_name_or_path: got nothing, expected the policy's Hub name or folder")
    if policy_path == TINY_RANDOM:
        from rlhf_prm.toyworld.tiny import tiny_random_models

        policy_path, tiny_prm = tiny_random_models([str(row) for row in train["problem"]], recipe.stage_cache, seed)
        prm = tiny_prm if prm == TINY_RANDOM else prm
    with loading("model_name_or_path", policy_path):
        tokenizer = saved_tokenizer(policy_path, revision=model_args.model_revision, padding_side="left")
    scorer = prm and _step_scorer(recipe, str(prm), (str(policy_path), tokenizer, train["prompt"][0]))
    return Sources(
        policy_path=str(policy_path),
        model_kwargs={
            "dtype": model_args.dtype,
            "revision": model_args.model_revision,
            "attn_implementation": model_args.attn_implementation,
        },
        tokenizer=tokenizer,
        step_scorer=scorer or None,
        verifier=verifier,
        train_dataset=train,
        eval_dataset=held_out or None,
        eval_problems=len(held_out or []),
    )


def _step_scorer(recipe: RecipeArguments, name: str, policy: tuple[str, Any, Any]) -> Scorer:
    """``policy``: its path, its tokenizer and one of its prompts."""
    if is_judge(recipe.prm):
        return _judge(recipe.prm, recipe.prm_kwargs)
    if kind_of(recipe.prm) is not None:
        return token_scorer(recipe, *policy)
    return _live_values(recipe) if recipe.prm == LIVE_VALUES else _prm(recipe, name)


def _live_values(recipe: RecipeArguments) -> LiveMonteCarloScorer:
    try:
        return LiveMonteCarloScorer(**recipe.prm_kwargs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"prm_kwargs: {error}") from error


def _check_live_values(recipe: RecipeArguments) -> None:
    """Check the arguments of live values, before a model is made or loaded."""
    _live_values(recipe)
    for name, given, default in (
        ("prm_family", recipe.prm_family, "auto"),
        ("prm_placement", recipe.prm_placement, "replicate"),
    ):
        if given != default:
            raise ValueError(
                f"{name}: got {given!r} beside prm {LIVE_VALUES!r}, which is no model but completions of the policy "
                f"itself; expected {name} to be left out"
            )
    if recipe.gold_fraction == 0.0:
        raise ValueError(
            f"gold_fraction: got 0.0 beside prm {LIVE_VALUES!r}, expected some gold answers to verify completions "
            "against"
        )


def _prm(recipe: RecipeArguments, name: str) -> StepScorer:
    own = {"name_or_path", "family", "placement"}  # arguments of the recipe by themselves
    accepted = [keyword for keyword in inspect.signature(load_prm).parameters if keyword not in own]
    unknown = sorted(set(recipe.prm_kwargs) - set(accepted))
    if unknown:
        raise ValueError(f"prm_kwargs: load_prm has no keyword {unknown[0]!r}; it has {', '.join(accepted)}")
    with loading("prm", name):
        return load_prm(name, family=recipe.prm_family, placement=recipe.prm_placement, **recipe.prm_kwargs)


def _verifier(recipe: RecipeArguments) -> Verifier:
    made = resolve(recipe.verifier, VERIFIERS, "verifier")
    try:
        return made(**recipe.verifier_kwargs)
    except TypeError as error:
        raise ValueError(f"verifier_kwargs: {error}") from error


def _refuse_outcome_baseline(recipe: RecipeArguments) -> None:
    """Raise if no training problem has a gold answer; otherwise the baseline would fail after the whole main run."""
    if recipe.baseline == "outcome":
        raise ValueError(
            f"baseline: got {recipe.baseline!r} for training problems without a gold answer (gold_fraction "
            f"{recipe.gold_fraction}), from which it learns nothing; expected another method, or none (--baseline '')"
        )
