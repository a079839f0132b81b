"""``--prm teacher:…``, ``implicit`` and ``self``: scorers of the policy's own tokens, from the recipe's arguments."""

import inspect
from dataclasses import fields
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rlhf_prm.generation.log_probs import EndpointTokenModel
from rlhf_prm.prm.load import this_device
from rlhf_prm.prm.log_ratio import LogRatioScorer
from rlhf_prm.prm.placement import loading_for
from rlhf_prm.prm.token_model import check_tokenizers, load_token_model
from rlhf_prm.prm_training.implicit import ImplicitPRM, ImplicitSettings
from rlhf_prm.prm_training.implicit_models import AdapterModel, TwoModels
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.errors import loading

KINDS = ("teacher", "implicit", "self")
ON_THE_POLICY = "policy"  # implicit: a second adapter beside the policy's own
OF_LOADING = tuple(
    name for name in inspect.signature(load_token_model).parameters if name not in ("name_or_path", "placement")
)
OF_FROZEN = tuple(name for name in OF_LOADING if name != "temperature")  # which is that of the run
OF_ADAPTER = ("max_length", "max_batch_tokens")
OF_BASE = (*OF_ADAPTER, "device", "dtype", "attn_implementation")  # of an adapter on a base of its own
OF_LEARNING = tuple(field.name for field in fields(ImplicitSettings))


def kind_of(prm: str | None) -> str | None:
    """Which of ``KINDS`` an argument ``--prm`` names; None for a PRM of steps."""
    kind = (prm or "").partition(":")[0]
    return kind if kind in KINDS else None


def loads_the_policy(recipe: RecipeArguments) -> bool:
    """Whether the token scorer that ``--prm`` names loads the policy's starting checkpoint again."""
    kind, _, name = (recipe.prm or "").partition(":")
    if kind == "implicit" and "lora" in recipe.prm_kwargs:
        return not name and recipe.prm_kwargs.get("base") != ON_THE_POLICY
    return kind == "self" or (kind == "implicit" and not (name and "reference" in recipe.prm_kwargs))


def token_scorer(recipe: RecipeArguments, policy_path: str, tokenizer: Any, prompt: Any) -> Any:
    """The scorer that ``--prm`` names.

    Args:
        policy_path: the policy's starting checkpoint, which is the reference of ``implicit`` and ``self``.
        tokenizer: the policy's; ``prompt``: one of its prompts, which a teacher must encode the same way.

    Raises:
        ValueError: a keyword is unknown, or a model is missing or has another tokenizer.
    """
    kind, _, name = recipe.prm.partition(":")
    if recipe.prm_family != "auto":
        raise ValueError(f"prm_family: got {recipe.prm_family!r} beside prm {recipe.prm!r}, which is read by tokens")
    kwargs = dict(recipe.prm_kwargs)
    if kind == "teacher":
        return _teacher(name, kwargs, recipe, tokenizer, prompt)
    if kind == "self":
        _only(kwargs, OF_FROZEN)
        return LogRatioScorer(_loaded(policy_path, recipe, kwargs), sign=-1)
    return _implicit(name or policy_path, policy_path, kwargs, recipe, tokenizer, prompt)


def _teacher(name: str, kwargs: dict[str, Any], recipe: RecipeArguments, tokenizer: Any, prompt: Any) -> LogRatioScorer:
    if not name:
        raise ValueError("prm: got 'teacher', expected teacher:NAME with the teacher's Hub name or folder")
    own_tokenizer = kwargs.pop("tokenizer", name)
    with loading("prm", own_tokenizer):
        check_tokenizers(tokenizer, own_tokenizer, prompt)
    urls = kwargs.pop("endpoint", None)
    if urls is None:
        _only(kwargs, OF_FROZEN)
        return LogRatioScorer(_loaded(name, recipe, kwargs))
    try:
        return LogRatioScorer(EndpointTokenModel(name, [urls] if isinstance(urls, str) else list(urls), **kwargs))
    except TypeError as error:
        raise ValueError(f"prm_kwargs: {error}") from error


def _implicit(
    name: str, policy_path: str, kwargs: dict[str, Any], recipe: RecipeArguments, tokenizer: Any, prompt: Any
) -> ImplicitPRM:
    if "lora" in kwargs:
        return ImplicitPRM(*_adapter(name, policy_path, kwargs, recipe, tokenizer, prompt))
    if "base" in kwargs:
        raise ValueError(f"prm_kwargs: got base {kwargs['base']!r} without lora, expected the keywords of a LoraConfig")
    reference = kwargs.pop("reference", policy_path)
    _only(kwargs, (*OF_LEARNING, *OF_LOADING), further=("reference", "lora", "base"))
    settings, options = _settings_and_options(kwargs)
    for other in {name, reference} - {policy_path}:
        check_tokenizers(tokenizer, other, prompt)
    models = TwoModels(_loaded(name, recipe, options), _loaded(reference, recipe, options))
    return ImplicitPRM(models, settings)


def _adapter(
    name: str, policy_path: str, kwargs: dict[str, Any], recipe: RecipeArguments, tokenizer: Any, prompt: Any
) -> tuple[AdapterModel, ImplicitSettings]:
    """φ as an adapter, whose base without it is the reference."""
    from peft import LoraConfig

    lora, base = kwargs.pop("lora"), kwargs.pop("base", None)
    if base not in (None, ON_THE_POLICY):
        raise ValueError(f"prm_kwargs: got base {base!r}, expected 'policy', or none for a base of its own")
    on_the_policy = base == ON_THE_POLICY
    if on_the_policy and name != policy_path:
        raise ValueError(f"prm: got implicit:{name} beside base 'policy', expected implicit: φ begins as the policy")
    if recipe.prm_placement != "replicate":
        raise ValueError(f"prm_placement: got {recipe.prm_placement!r} beside lora, expected replicate")
    _only(kwargs, (*OF_LEARNING, *(OF_ADAPTER if on_the_policy else OF_BASE)), further=("lora", "base"))
    settings, options = _settings_and_options(kwargs)
    limits = {"context": options.pop("max_length", None), "max_batch_tokens": options.pop("max_batch_tokens", 2048)}
    try:
        adapter = LoraConfig(**lora)
    except TypeError as error:
        raise ValueError(f"prm_kwargs: lora: {error}") from error
    if on_the_policy:
        return AdapterModel(None, adapter, **limits), settings
    if name != policy_path:
        check_tokenizers(tokenizer, name, prompt)
    device = torch.device(options.pop("device", None) or this_device())
    with loading("prm", name), loading_for("replicate", torch.float32):
        model = AutoModelForCausalLM.from_pretrained(name, **{"dtype": "float32", **options})
    return AdapterModel(model.to(device), adapter, **limits), settings


def _settings_and_options(kwargs: dict[str, Any]) -> tuple[ImplicitSettings, dict[str, Any]]:
    """The settings of φ's training, and what is left: those of loading a model."""
    settings = ImplicitSettings(**{key: value for key, value in kwargs.items() if key in OF_LEARNING})
    return settings, {key: value for key, value in kwargs.items() if key not in OF_LEARNING}


def _loaded(name: str, recipe: RecipeArguments, options: dict[str, Any]) -> Any:
    with loading("prm", name):
        return load_token_model(name, recipe.prm_placement, **options)


def _only(kwargs: dict[str, Any], known: tuple[str, ...], further: tuple[str, ...] = ()) -> None:
    if unknown := sorted(set(kwargs) - set(known)):
        raise ValueError(f"prm_kwargs: no keyword {unknown[0]!r}; expected some of {', '.join((*further, *known))}")
