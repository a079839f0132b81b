"""Published ways to turn step scores into step advantages, one file each.

A method is a function ``method(rollouts, **keywords) -> (B, K)`` in float32, 0 where masked. To add one: a file of
20–60 lines here whose docstring has the paragraphs Formula, Use when, Known failure and Source, and a line in
``METHODS``; or no change here at all and a dotted path (:func:`reward.resolve`). ``python -m reward.methods`` prints
the table of them.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from reward.methods.immediate import immediate
from reward.methods.outcome import outcome

Method = Callable[..., Float[Tensor, "B K"]]

METHODS: dict[str, Method] = {
    "outcome": outcome,
    "immediate": immediate,
}
