"""Methods that read token scores and give token advantages, one file each.

A token method is a function ``method(rollouts, **keywords) -> (B, T)`` in float32, 0 where there is no token, with an
attribute ``per_token = True``. ``rollouts.token_scores`` is (B, T): what a scorer says of every token of the policy (a
log-ratio of two models, mostly), aligned with the policy's own ids. Docstrings and memories are as in
``reward.methods``; to add a method: a file here and a line in ``TOKEN_METHODS``, or a dotted path.

Every method of ``reward.methods`` serves a token scorer too: its step score is σ(Σ of the token scores up to the end of
the step), the probability that goes with a log-ratio as log-odds.
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
