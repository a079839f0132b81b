"""From step scores to token advantages: a leaf package that needs only torch and a math verifier.

``__init__.pyi`` lists the names. They are imported on first use: the worker processes of the verifier live here too and
must not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
