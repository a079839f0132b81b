"""From step scores to token advantages, and the math verifier. This package imports neither TRL nor transformers.

``__init__.pyi`` lists the names. They are imported on first use, because the verifier's worker processes import this
package too and must not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
