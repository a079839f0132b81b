"""The type checker pytest puts on every function of the packages: beartype, with ints accepted for floats (PEP 484)."""

from collections.abc import Callable
from functools import partial, wraps
from importlib.machinery import SourceFileLoader
from inspect import isclass
from typing import Any, get_args
from unittest.mock import patch

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, _import_hook, jaxtyped as shapes_checked

checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))


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


def _names_shapes(annotation: Any) -> bool:
    """Whether a part of a type is an array of jaxtyping's, or a text that may name one."""
    if isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return isinstance(annotation, str) or any(_names_shapes(part) for part in get_args(annotation))


def _checked_when_called(function: Callable[..., Any], typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its types checked; the check is made at the first call, with shapes where the types name some.

    jaxtyping makes two more functions of every function when its module is imported, and binds the arguments of every
    call to keep what a shape's letter stands for. Most functions name no shapes, and most are not called in a process.
    """
    check = None

    @wraps(function)
    def call(*args, **kwargs):
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        nonlocal check
        if check is None:
            shapes = any(map(_names_shapes, function.__annotations__.values()))
            check = shapes_checked(function, typechecker=typechecker) if shapes else typechecker(function)
        return check(*args, **kwargs)

    return call


def _jaxtyped(thing: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """What the import hook calls on every class, function, class method, static method and property of a module."""
    if thing is None:
        return partial(_jaxtyped, typechecker=typechecker)
    if isclass(thing):
        if "__init__" in vars(thing) and hasattr(thing, "__dataclass_fields__"):
            thing.__init__ = _jaxtyped(thing.__init__, typechecker=typechecker)
        return thing
    if isinstance(thing, classmethod | staticmethod):
        return type(thing)(_jaxtyped(thing.__func__, typechecker=typechecker))
    if isinstance(thing, property):
        accessors = (one and _jaxtyped(one, typechecker=typechecker) for one in (thing.fget, thing.fset, thing.fdel))
        return property(*accessors)
    return _checked_when_called(thing, typechecker)


jaxtyping.jaxtyped = _jaxtyped
