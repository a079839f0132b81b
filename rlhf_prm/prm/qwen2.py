"""Qwen2 with the heads of published process reward models, as native classes: no remote code."""

from collections import OrderedDict

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from rlhf_prm.prm.decoders import NUM_LABELS, StepEndLogits, complete, with_new_head


class Qwen2ForProcessRewardModel(StepEndLogits, Qwen2PreTrainedModel):
    """Qwen2 body (``model.*``) and ``score`` = Linear(h, h), ReLU, Linear(h, 2).

    State-dict keys and config (``architectures``, ``model_type``) are those of Qwen2.5-Math-PRM-7B (arXiv 2501.07301):
    a checkpoint saved here is served by vLLM, and the published ones load here without remote code. ``lm_head.*`` in a
    checkpoint is ignored.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # noqa: RUF012  (transformers' own attribute)

    def __init__(self, config: Qwen2Config):
        config.num_labels = NUM_LABELS
        super().__init__(config)
        self.model = Qwen2Model(config)
        hidden = config.hidden_size
        self.score = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, NUM_LABELS))
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers, but a checkpoint that lacks weights raises ``ValueError``: no head is initialised.

        To put a fresh head on a language model, for training, call :meth:`with_new_head`.
        """
        return complete(super(), pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def with_new_head(cls, pretrained_model_name_or_path, *args, **kwargs) -> "Qwen2ForProcessRewardModel":
        """The body of a Qwen2 language model (or PRM) with a freshly initialised head, to be trained.

        Raises ``ValueError`` if the body itself is incomplete.
        """
        return with_new_head(super(), pretrained_model_name_or_path, *args, **kwargs)


class Qwen2WithValueHead(Qwen2PreTrainedModel):
    """Qwen2 body (``model.*``) and ``v_head.summary`` = Linear(h, 1): the layout of Skywork-o1-Open-PRM.

    Missing weights raise ``ValueError``; ``lm_head.*`` is ignored.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # noqa: RUF012  (transformers' own attribute)

    def __init__(self, config: Qwen2Config):
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.v_head = nn.Sequential(OrderedDict(summary=nn.Linear(config.hidden_size, 1)))
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        return complete(super(), pretrained_model_name_or_path, *args, **kwargs)

    def forward(self, input_ids: torch.LongTensor, **kwargs) -> TokenClassifierOutput:
        """Log-odds (B, T, 1) at every token."""
        return TokenClassifierOutput(logits=self.v_head(self.model(input_ids, **kwargs).last_hidden_state))
