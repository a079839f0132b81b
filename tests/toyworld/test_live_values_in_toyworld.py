"""Live Monte-Carlo values of the toy world's policy, by its fast sampler."""

import math

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reward.verifier import Verdict
from rlhf_prm.rl.live_values import LiveMonteCarloScorer, PolicyAccess
from rlhf_prm.rl.policy_sampling import GeneratorSampler
from rlhf_prm.rl.rollout_scoring import RolloutScoring
from rlhf_prm.steps import StepSplitter
from rlhf_prm.toyworld.problems import SEPARATOR
from rlhf_prm.toyworld.quick_grpo import Regime, quick_grpo
from rlhf_prm.toyworld.sampler import PolicySampler
from rlhf_prm.toyworld.verifier import ExactMatchVerifier


def test_quick_grpo_on_live_values(small_world):
    scorer = LiveMonteCarloScorer(3)
    regime = Regime(max_steps=2, prompts=2, num_generations=4)
    result = quick_grpo(small_world, scorer, "vine", regime=regime)
    assert math.isfinite(result["accuracy"])
    assert scorer.stats.calls == 2 and scorer.stats.completions == 3 * scorer.stats.prefixes > 0
    plain = quick_grpo(small_world, None, "outcome", regime=regime)
    first = quick_grpo(small_world, LiveMonteCarloScorer(3), "outcome", regime=regime)
    assert first["accuracy"] == plain["accuracy"]  # values that are not used change nothing


def test_the_value_of_a_prefix_is_the_chance_to_end_right(small_world):
    """Many live completions against many samples drawn directly from the same tokens."""
    tokenizer = AutoTokenizer.from_pretrained(small_world.policy_path)
    policy = AutoModelForCausalLM.from_pretrained(small_world.policy_path, dtype=torch.float32)
    limit, n = small_world.settings.max_completion_length, 400
    sampler, verifier = PolicySampler(policy, tokenizer, max_new_tokens=limit), ExactMatchVerifier()
    prompt, gold = small_world.train_dataset["prompt"][0], small_world.train_dataset["solution"][0]
    prompt_ids = tokenizer([prompt]).input_ids
    completion = sampler.generate_ids(prompt_ids, 1, seed=1)[0][0]
    scorer = LiveMonteCarloScorer(n)
    scorer.policy = PolicyAccess(
        GeneratorSampler(sampler, tokenizer), verifier, lambda texts: tokenizer(texts).input_ids, limit, lambda: 0
    )
    scoring = RolloutScoring(StepSplitter(SEPARATOR), tokenizer, scorer, verifier)
    (row,) = scoring([prompt], [prompt], [gold], [completion])
    assert len(row.steps) > 1
    begin = completion[: row.lengths[0]]
    fresh = sampler.generate_ids([[*prompt_ids[0], *begin]], n, seed=2)[0]
    texts = tokenizer.batch_decode([[*begin, *ids] for ids in fresh], skip_special_tokens=True)
    verdicts: list[Verdict] = verifier.verify(texts, [gold] * n)
    direct = sum(verdict.reward for verdict in verdicts) / n
    assert abs(row.scores[0] - direct) < 5 * math.sqrt(0.5 / n)  # five standard errors of the difference
