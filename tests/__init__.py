"""The type checker pytest puts on every function of the packages: beartype, with ints accepted for floats (PEP 484)."""

from functools import partial
from importlib.machinery import SourceFileLoader
from unittest.mock import patch

from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def _code_of_checked_module(loader: SourceFileLoader, name: str):
    cache = partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", cache):
        return SourceFileLoader.get_code(loader, name)


# jaxtyping keeps the bytecode of a checked module under a name of its own. It patches where Python looks for bytecode,
# and takes that back only when the module has run. What the module is the first to import, TRL with all its parts, is
# then looked for under such a name too, not found, and compiled from source: eight seconds in each process of a first
# run. Here the patch ends before the module runs.
_import_hook._JaxtypingLoader.get_code = _code_of_checked_module
_import_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
