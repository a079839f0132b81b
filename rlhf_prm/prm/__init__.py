"""Process reward models: how each family is read, and how they are scored fast beside a policy.

``__init__.pyi`` lists the names. They are imported on first use: a command's ``--help`` must not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
