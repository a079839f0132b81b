"""Process reward models: how each family is read, and how they are scored fast beside a policy.

Names are imported on first use: a command's ``--help`` must not wait for torch.
"""

from importlib import import_module
from typing import Any

MODULES = {
    "Calibration": "calibration",
    "FAMILIES": "families",
    "Family": "families",
    "PRMScorer": "scorer",
    "PRMServerError": "server",
    "ScorerStats": "scorer",
    "ServerScorer": "server",
    "StepScorer": "protocol",
    "fitted_calibration": "calibration",
    "load_prm": "load",
}

__all__ = sorted(MODULES)


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})
