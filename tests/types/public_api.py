"""What a user's type checker sees of the public API. ``make types`` checks this file; nothing runs it.

Each ``assert_type`` fails where a name has become ``Any``. Each ``type: ignore`` marks a wrong call: mypy reports the
comment as unused as soon as the call is no longer refused.
"""

from typing import assert_type

from torch import Tensor
from transformers import PreTrainedModel

from reward.credit import discounted_returns, step_to_token
from reward.methods import METHODS, Method
from reward.reward_functions import outcome_reward
from reward.rollouts import StepRollouts
from reward.verifier import MathVerifier, Verdict, Verifier
from rlhf_prm.prm.load import load_prm
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.prm.scorer import BatchScorer
from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.steps import StepSplitter, step_lengths


def credit(scores: Tensor, mask: Tensor, lengths: Tensor, outcomes: Tensor) -> None:
    rollouts = StepRollouts(scores, mask, lengths, outcomes, num_generations=4)
    assert_type(rollouts.correct, Tensor)
    assert_type(discounted_returns(scores, mask, gamma=0.9), Tensor)
    assert_type(step_to_token(scores, lengths, 8), Tensor)
    assert_type(METHODS["outcome"], Method)
    discounted_returns(scores, mask, 0.9)  # type: ignore[call-arg]  # gamma is a keyword
    StepRollouts(scores, mask, lengths, [1.0], num_generations=4)  # type: ignore[arg-type]  # a list is no tensor


def verdicts() -> None:
    with MathVerifier(workers=2) as verifier:
        assert_type(verifier.verify(["\\boxed{1}"], ["1"]), list[Verdict])
        any_verifier: Verifier = verifier
        assert_type(any_verifier.verify([""], [None])[0].reward, float | None)
    assert_type(outcome_reward(["\\boxed{1}"], ["1"]), list[float | None])
    MathVerifier(deadline="5 s")  # type: ignore[arg-type]


def scores(tokenizer: object) -> None:
    scorer = load_prm("Qwen/Qwen2.5-Math-PRM-7B", placement="offload")
    assert_type(scorer, BatchScorer)
    any_scorer: StepScorer = scorer
    assert_type(any_scorer.score(["1 + 1?"], [["It is 2."]]), list[list[float]])
    assert_type(step_lengths([1, 2, 3], tokenizer, StepSplitter("\n\n")), tuple[list[str], list[int]])
    load_prm("Qwen/Qwen2.5-Math-PRM-7B", plaecment="offload")  # type: ignore[call-arg]


def training(model: PreTrainedModel, scorer: StepScorer, verifier: Verifier) -> None:
    config = ProcessGRPOConfig(output_dir="out", method="pure", method_kwargs={"temperature": 0.1})
    ProcessGRPOTrainer(model, config, step_scorer=scorer, verifier=verifier)
    ProcessPPOTrainer(model, ProcessPPOConfig(output_dir="out", shaping="delta_shaping"), step_scorer=scorer)
    ProcessGRPOTrainer(model, config, step_scorer=verifier)  # type: ignore[arg-type]  # a verifier scores no steps
    ProcessPPOTrainer(model, config, step_scorer=scorer)  # type: ignore[arg-type]  # a config of GRPO has no critic
    ProcessGRPOConfig(output_dir="out", method=3)  # type: ignore[arg-type]
