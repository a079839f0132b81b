"""HTML reports: one file per run, per comparison of runs, per ablation.

``runs`` reads folders, ``sampling`` reads the rollouts once, ``charts`` defines the charts, ``drawing`` draws them
with Bokeh, ``gallery`` lays out the step heat-maps, ``page`` puts them together. A new chart is a function in
``charts`` and one line in ``page.page_parts``; a new kind of chart is a function in ``drawing``.
Names are imported on first use, so that a command's ``--help`` does not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
