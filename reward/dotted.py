"""Looks a name up in a registry, or imports it from a dotted path, so that users can supply their own functions."""

import importlib
from collections.abc import Mapping
from typing import Any


def resolve(name: str, registry: Mapping[str, Any], kind: str) -> Any:
    """The entry of ``registry`` called ``name``, or the object at the dotted path ``name`` (``package.module.attr``).

    Args:
        kind: what is being looked up ("method", "shaping", …), for the error messages.

    Raises:
        ValueError: ``name`` is neither registered nor an importable dotted path.
    """
    if name in registry:
        return registry[name]
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise ValueError(
            f"unknown {kind} {name!r}: expected one of {', '.join(sorted(registry))}, or a dotted path to your own"
        )
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {name!r} cannot be imported ({error}); is its folder on PYTHONPATH?") from error
