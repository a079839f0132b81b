"""Rollouts for the tests: random ones, hypothesis strategies, and the way between tensors and nested lists."""

import torch
from hypothesis import strategies as st

from reward import METHODS, StepRollouts
from tests.reward import method_reference as reference

NAN = float("nan")
GARBAGE = (NAN, 1e9, -1e9, float("inf"), 0.5)
NEED_OUTCOME = ("potential", "prof", "vppo", "progrs", "papo", "verigate", "vine", "capo", "fapo", "gigpo", "gtpo")
# Methods that remember earlier batches have tests of their own (test_trusted.py).
STATELESS = {name: method for name, method in METHODS.items() if not hasattr(method, "initial_memory")}

# Each method with its defaults, and with other keywords.
VARIANTS = [
    *((name, {}) for name in STATELESS),
    ("immediate", {"process_weight": -1.5}),
    ("grpo_ps", {"reduce": "mean", "outcome_weight": 0.3}),
    ("gamma_sum", {"gamma": 0.7, "outcome_weight": 0.0}),
    ("gamma_sum", {"gamma": 0.0}),
    ("pure", {"baseline": "step", "temperature": 1.0}),
    ("pure", {"baseline": "none", "outcome_weight": 2.0}),
    ("pure_strict", {"outcome_weight": 0.0}),
    ("clip_delta", {"threshold": 0.9, "outcome_weight": 0.5}),
    ("progress", {"alpha": 3.0, "initial": 0.1, "outcome_weight": 0.0}),
    ("potential", {"gamma": 0.5}),
    ("potential", {"gamma": 0.9, "initial": 0.25}),
    ("prof", {"keep": 1.0}),
    ("prof", {"keep": 0.7, "penalty": 0.0}),
    ("prof", {"keep": 0.6, "max_steps": 3}),
    ("vppo", {"threshold": 0.5, "alpha": 0.2}),
    ("progrs", {"beta": 2.0}),
    ("papo", {"beta": 1.0}),
    ("capo", {"outcome_weight": 1.0, "process_weight": 0.5, "threshold": 0.7}),
    ("capo", {"threshold": 0.0}),
    ("fapo", {"penalty": 0.5, "threshold": 0.7}),
    ("srar", {"process_weight": 0.3}),
    ("grpo_ps", {"baseline": "return"}),
    ("pure", {"baseline": "return", "temperature": 0.5}),
    ("gigpo", {"gamma": 0.5, "state_weight": 2.0, "process_weight": 1.0, "neutral": 0.5}),
    ("gigpo", {"mode": "mean_std_norm"}),
    ("mt_grpo", {"turn_weight": 0.3, "neutral": 0.5}),
    ("mt_grpo", {"form": "cae", "gamma": 0.5}),
    ("gtpo", {"gamma": 0.5, "process_weight": 2.0, "neutral": 0.25}),
    ("gtpo", {"gamma": 1.0, "baseline": "return"}),
]


def rollouts_of(groups, padding=NAN, length_padding=-7, extra=0):
    """Groups of (scores, lengths, outcomes) as nested lists → StepRollouts, padding filled with garbage."""
    rows = [row for scores, _, _ in groups for row in scores]
    steps = max(map(len, rows)) + extra
    table = torch.tensor([row + [padding] * (steps - len(row)) for row in rows])
    mask = torch.tensor([[k < len(row) for k in range(steps)] for row in rows])
    lengths = [row for _, lengths, _ in groups for row in lengths]
    tokens = torch.tensor([row + [length_padding] * (steps - len(row)) for row in lengths])
    outcomes = torch.tensor([o for _, _, outcomes in groups for o in outcomes])
    states = torch.where(mask, state_of(tokens), length_padding)
    return StepRollouts(table, mask, tokens, outcomes, len(groups[0][0]), state_keys=states)


def state_of(length):
    """The state before a step of the made-up rollouts: a few that repeat, and none for every fourth length."""
    return length % 4 - 1


def expected(groups, name, keywords, steps):
    """The reference's advantages of the groups, padded with 0 to ``steps``."""
    method = getattr(reference, name)
    rows = [row for group in groups for row in method(reference.Group(*group), **keywords)]
    return torch.tensor([row + [0.0] * (steps - len(row)) for row in rows])


def random_groups(seed, prompts=3, group=6, steps=7, missing=0.2):
    """Groups with continuous scores (no ties), binary outcomes and some unscorable rollouts."""
    generator = torch.Generator().manual_seed(seed)

    def uniform():
        return float(torch.rand((), generator=generator))

    groups = []
    for _ in range(prompts):
        counts = [1 + int(uniform() * steps) for _ in range(group)]
        scores = [[uniform() for _ in range(count)] for count in counts]
        lengths = [[1 + int(uniform() * 9) for _ in range(count)] for count in counts]
        outcomes = [NAN if uniform() < missing else float(uniform() < 0.5) for _ in range(group)]
        groups.append((scores, lengths, outcomes))
    return groups


# Sixteenths are exact in float32, so sums, comparisons and ties agree with the reference.
_scores = st.integers(0, 16).map(lambda n: n / 16)
_outcomes = st.sampled_from([0.0, 1.0, 0.0, 1.0, NAN, 0.25, -1.0])


@st.composite
def grouped(draw, max_prompts=3, max_group=5, max_steps=6):
    group = draw(st.integers(1, max_group))
    groups = []
    for _ in range(draw(st.integers(1, max_prompts))):
        scores = draw(st.lists(st.lists(_scores, min_size=1, max_size=max_steps), min_size=group, max_size=group))
        lengths = [draw(st.lists(st.integers(0, 5), min_size=len(row), max_size=len(row))) for row in scores]
        groups.append((scores, lengths, draw(st.lists(_outcomes, min_size=group, max_size=group))))
    return groups
