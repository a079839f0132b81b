"""Evaluates a policy of the toy world: exact accuracy of the answer and of the whole process."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.steps import StepSplitter
from rlhf_prm.toyworld.checker import process_correct
from rlhf_prm.toyworld.problems import SEPARATOR, ChainProblem
from rlhf_prm.toyworld.sampler import PolicySampler
from rlhf_prm.toyworld.verifier import final_answer


def evaluate_completions(problems: Sequence[ChainProblem], completions: Sequence[str]) -> dict[str, float]:
    """``accuracy`` (share of right answers) and ``process_accuracy`` (share with every step right and the answer given)
    of one completion per problem; their difference is the share of right answers reached by a wrong process."""
    splitter = StepSplitter(SEPARATOR)
    pairs = list(zip(problems, completions, strict=True))
    right = [final_answer(text) == problem.solution for problem, text in pairs]
    process = [process_correct(problem, splitter.split(text)) for problem, text in pairs]
    return {"accuracy": sum(right) / len(pairs), "process_accuracy": sum(process) / len(pairs)}


def evaluate_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int = 512,
) -> dict[str, float]:
    """``evaluate_completions`` of one seeded sample per prompt, at the temperature the policy is trained at."""
    sampler = PolicySampler(
        model, tokenizer, max_new_tokens=max_new_tokens, temperature=temperature, batch_size=batch_size
    )
    completions = [group[0] for group in sampler.generate(prompts, 1, seed=seed)]
    return evaluate_completions([ChainProblem.parse(prompt) for prompt in prompts], completions)
