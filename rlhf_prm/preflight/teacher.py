"""``--prm teacher:NAME``: step scores from a teacher's log-ratios to the policy, before a run of distillation."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from rlhf_prm.generation.prompts import prompt_ids
from rlhf_prm.prm.token_model import TokenModel, check_tokenizers, load_token_model
from rlhf_prm.rl.token_scoring import step_scores


class TeacherOnTexts:
    """A step scorer: σ(Σ log π_T − log π) over the tokens up to the end of each step, as a run with `--prm` reads it.

    Args:
        teacher, policy: both use ``tokenizer`` and the sampling temperature.
        template: problem → the policy's prompt.
        separator: the text between two steps of a solution.
    """

    def __init__(
        self,
        teacher: TokenModel,
        policy: TokenModel,
        tokenizer: Any,
        template: Callable[[str], Any],
        separator: str = "\n\n",
    ) -> None:
        self.teacher, self.policy, self.tokenizer = teacher, policy, tokenizer
        self.template, self.separator = template, separator

    def score(self, problems: Sequence[str], steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """See ``StepScorer``. NaN once a token is past a model's context."""
        sequences, lengths = [], []
        for problem, row in zip(problems, steps, strict=True):
            text = self.separator.join(row)
            read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            starts = [start for start, _ in read["offset_mapping"]]
            ends = list(accumulate(len(step) + len(self.separator) for step in row))  # a step ends with its separator
            stops = [bisect_left(starts, end) for end in ends]
            lengths.append([stop - start for start, stop in pairwise([0, *stops])])
            sequences.append((prompt_ids(self.tokenizer, self.template(problem)), list(read["input_ids"])))
        ratios = zip(self.teacher.log_probs(sequences), self.policy.log_probs(sequences), strict=True)
        return [step_scores(of - own, counts) for (of, own), counts in zip(ratios, lengths, strict=True)]


def teacher_on_texts(
    name: str, policy: str, template: Callable[[str], Any], separator: str, temperature: float, **loading: Any
) -> TeacherOnTexts:
    """The teacher saved at ``name`` and the policy at ``policy``; ``loading``: keywords of ``load_token_model``.

    Raises:
        ValueError: a model is not found, or the teacher's tokenizer differs from the policy's.
    """
    from rlhf_prm.tokenizer_checks import saved_tokenizer

    tokenizer = saved_tokenizer(policy)
    check_tokenizers(tokenizer, name, template("1 + 1"))
    models = [load_token_model(one, temperature=temperature, **loading) for one in (name, policy)]
    return TeacherOnTexts(*models, tokenizer, template, separator)
