"""Detects reward hacking during training: measures, rules, the callback, and the weights to roll back to.

``__init__.pyi`` lists the names. They are imported on first use: only the callback needs transformers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
