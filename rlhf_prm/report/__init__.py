"""Pages a person can open: one HTML file per run, per comparison of runs, per ablation.

``runs`` reads folders, ``sampling`` passes once over the rollouts, ``charts`` draws with ``svg``, ``gallery`` lays out
the step heat-maps, ``page`` puts them together. A new chart is a function in ``charts`` and one line in
``page.page_parts``.
"""

from rlhf_prm.report.page import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
