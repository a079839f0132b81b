"""Pages a person can open: one HTML file per run, per comparison of runs, per ablation.

``runs`` reads folders, ``sampling`` passes once over the rollouts, ``charts`` says what is shown, ``drawing`` draws it
by Bokeh, ``gallery`` lays out the step heat-maps, ``page`` puts them together. A new chart is a function in ``charts``
and one line in ``page.page_parts``; a new kind of chart is a function in ``drawing``.
Names are imported on first use: a command's ``--help`` must not wait for torch.
"""

from importlib import import_module
from typing import Any

__all__ = ["write_comparison", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.page"), name)
