"""Pages a person can open: one HTML file per run, per comparison of runs, per ablation.

``runs`` reads folders, ``sampling`` passes once over the rollouts, ``charts`` says what is shown, ``drawing`` draws it
by Bokeh, ``gallery`` lays out the step heat-maps, ``page`` puts them together. A new chart is a function in ``charts``
and one line in ``page.page_parts``; a new kind of chart is a function in ``drawing``.
Names are imported on first use: a command's ``--help`` must not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
