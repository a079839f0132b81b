"""Published ways to turn step scores into step advantages, one file each.

A method is a function ``method(rollouts, **keywords) -> (B, K)`` in float32, 0 where masked. To add one, write a file
of 20–60 lines here, whose docstring has the paragraphs Formula, Use when, Known failure, Baseline and Source, and add a
line to ``METHODS``; or change nothing here and give its dotted path (:func:`reward.resolve`). A method that remembers
earlier batches has an attribute ``initial_memory``, a function that returns named float32 tensors, and is called as
``method(rollouts, memory, **keywords) -> (advantages, memory)``. ``python -m reward.methods`` prints tables of them.

"Baseline" says whether the baseline depends on what the rollout itself does later, which would reward or punish longer
rollouts. It is "unaffected"; "own share", if a rollout counts in its own baseline by its number of steps (a bias of the
order 1/G); or "affected", if the baseline is subtracted once for every remaining step.

A source is marked [code] if it was read in the authors' code, [paper] in the paper, [2nd] in secondary notes or an
abstract, and [mem] if it was written from memory and not confirmed.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from reward.methods.capo import capo
from reward.methods.clip_delta import clip_delta
from reward.methods.fapo import fapo
from reward.methods.gamma_sum import gamma_sum
from reward.methods.gigpo import gigpo
from reward.methods.grpo_ps import grpo_ps
from reward.methods.gtpo import gtpo
from reward.methods.immediate import immediate
from reward.methods.mt_grpo import mt_grpo
from reward.methods.outcome import outcome
from reward.methods.papo import papo
from reward.methods.potential import potential
from reward.methods.prof import prof
from reward.methods.progress import progress
from reward.methods.progrs import progrs
from reward.methods.pure import pure
from reward.methods.pure_strict import pure_strict
from reward.methods.srar import srar
from reward.methods.trusted import trusted
from reward.methods.verigate import verigate
from reward.methods.vine import vine
from reward.methods.vppo import vppo

Advantages = Float[Tensor, "B K"]
Memory = dict[str, Tensor]
Method = Callable[..., Advantages] | Callable[..., tuple[Advantages, Memory]]

METHODS: dict[str, Method] = {
    "outcome": outcome,
    "trusted": trusted,
    "immediate": immediate,
    "grpo_ps": grpo_ps,
    "gamma_sum": gamma_sum,
    "pure": pure,
    "pure_strict": pure_strict,
    "clip_delta": clip_delta,
    "progress": progress,
    "potential": potential,
    "prof": prof,
    "vppo": vppo,
    "progrs": progrs,
    "papo": papo,
    "verigate": verigate,
    "vine": vine,
    "capo": capo,
    "fapo": fapo,
    "srar": srar,
    "gigpo": gigpo,
    "mt_grpo": mt_grpo,
    "gtpo": gtpo,
}
