"""Process reward models: how each family is read, and how they score a policy's rollouts fast.

``__init__.pyi`` lists the names. They are imported on first use, so that a command's ``--help`` does not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
