"""Methods that turn token scores into token advantages, one file each.

A token method is a function ``method(rollouts, **keywords) -> (B, T)`` in float32, 0 where there is no token, with an
attribute ``per_token = True``. ``rollouts.token_scores`` is (B, T): one score for each of the policy's tokens, mostly a
log-ratio of two models, aligned with the policy's own ids. Docstrings and memories are as in ``reward.methods``. To add
a method, write a file here and add a line to ``TOKEN_METHODS``, or give a dotted path.

Every method of ``reward.methods`` works with a token scorer too: the step score is then σ(Σ of the token scores up to
the end of the step), which reads the summed log-ratio as log-odds.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from reward.methods import Memory
from reward.token_methods.distil import distil
from reward.token_methods.prime import prime
from reward.token_methods.spro import spro
from reward.token_methods.trusted_tokens import trusted_tokens

TokenAdvantages = Float[Tensor, "B T"]
TokenMethod = Callable[..., TokenAdvantages] | Callable[..., tuple[TokenAdvantages, Memory]]

TOKEN_METHODS: dict[str, TokenMethod] = {
    "distil": distil,
    "prime": prime,
    "spro": spro,
    "trusted_tokens": trusted_tokens,
}
