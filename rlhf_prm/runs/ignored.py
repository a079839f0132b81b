"""Finds settings of a recipe that have no effect beside the others, to warn about them."""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

from rlhf_prm.runs.arguments import RecipeArguments

Condition = Callable[[RecipeArguments], bool]
# Names, what they need, whether that is given.
_NEEDS: tuple[tuple[tuple[str, ...], str, Condition], ...] = (
    (
        ("dataset_config", "dataset_split", "dataset_limit", "chat", "system_prompt", "verifier", "verifier_kwargs"),
        "a dataset: the embedded toy world has its own problems and checks them exactly",
        lambda recipe: recipe.dataset is not None,
    ),
    (
        ("world", "world_settings", "check_prm"),
        "the toy world, and so no dataset",
        lambda recipe: recipe.dataset is None,
    ),
    (
        ("prm_family", "prm_placement", "prm_kwargs"),
        "a prm",
        lambda recipe: recipe.dataset is None or recipe.prm is not None,
    ),
    (
        ("eval_split", "eval_limit", "eval_every"),
        "an eval_dataset",
        lambda recipe: recipe.dataset is None or recipe.eval_dataset is not None,
    ),
    (("system_prompt",), "chat: true", lambda recipe: recipe.dataset is None or recipe.chat),
    (
        ("guard_kwargs",),
        "a guard that is not off",
        lambda recipe: recipe.guard != "off" or bool(recipe.guard_kwargs.get("actions")),
    ),
    (
        ("eval_every_limit",),
        "eval_every or a guard",
        lambda recipe: bool(recipe.eval_every) or recipe.guard != "off" or bool(recipe.guard_kwargs.get("actions")),
    ),
)


def without_effect(recipe: RecipeArguments) -> list[str]:
    """A sentence for every setting that was changed but has no effect."""
    changed = {field.name for field in fields(recipe) if _given(getattr(recipe, field.name), field)}
    return [
        f"{name}: {getattr(recipe, name)!r} has no effect; it needs {what}"
        for names, what, is_there in _NEEDS
        for name in names
        if name in changed and not is_there(recipe)
    ]


def _given(value: Any, field: Field) -> bool:
    """Whether the setting was changed; a mapping that was not given is an empty one, not None."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return value != default and not (default is None and value == {})
