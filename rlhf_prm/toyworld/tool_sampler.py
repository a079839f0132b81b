"""The sampler with a tool: after a call, the tokens of the tool's answer are inserted in place of sampled ones."""

from collections import deque
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.toyworld.sampler import PolicySampler
from rlhf_prm.toyworld.tool_turns import CALL, Environment, ToolRollout, called, tool_text


class ToolSampler(PolicySampler):
    """Samples rollouts with tool calls: one decoding, in which a row that has called is fed the answer.

    ``max_new_tokens`` counts the tool's tokens as well: what the model has to read.
    """

    pads = True

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **keywords) -> None:
        super().__init__(model, tokenizer, **keywords)
        (self.call_id,) = tokenizer(CALL).input_ids
        self._environments: Sequence[Environment] = ()
        self._at: list[int] = []  # row of the present decoding → sample of the call

    def rollouts(
        self, prompts: Sequence[list[int]], n: int, environments: Sequence[Environment], *, seed: int | None = None
    ) -> list[ToolRollout]:
        """``n`` rollouts of every prompt, adjacent; ``environments``: one per rollout, reset to its problem.

        Raises:
            ValueError: not one environment per rollout.
        """
        if len(environments) != n * len(prompts):
            raise ValueError(f"environments: got {len(environments)} for {n * len(prompts)} rollouts, expected as many")
        self._environments = environments
        self._own: list[list[int]] = [[] for _ in environments]  # the tokens of each sample's present turn
        self._given: list[deque[int]] = [deque() for _ in environments]
        self._written: list[list[bool]] = [[] for _ in environments]
        completions = [ids for group in self.generate_ids(prompts, n, seed=seed) for ids in group]
        return [
            self._rollout(ids, written[: len(ids)], environment)
            for ids, written, environment in zip(completions, self._written, environments, strict=True)
        ]

    def _begin(self, samples: list[int]) -> None:
        self._at = samples

    def _replaced(self, rows: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
        chosen = sampled.tolist()
        for i, row in enumerate(rows.tolist()):
            sample = self._at[row]
            given = self._given[sample]
            self._written[sample].append(not given)
            if given:
                chosen[i] = given.popleft()
                continue
            self._own[sample].append(chosen[i])
            if chosen[i] == self.call_id:
                answer = self._environments[sample].calculate(called(self._text(self._own[sample])))
                given.extend(self.tokenizer(tool_text(answer)).input_ids)
                self._own[sample] = []
        return torch.tensor(chosen, device=sampled.device)

    def _rollout(self, ids: list[int], written: list[bool], environment: Environment) -> ToolRollout:
        turns: list[list[int]] = [[]]
        for token, own, before in zip(ids, written, [True, *written], strict=False):
            if own and not before:
                turns.append([])
            if own:
                turns[-1].append(token)
        return ToolRollout(
            ids, written, [self._text(turn) for turn in turns], [len(turn) for turn in turns], environment
        )

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
