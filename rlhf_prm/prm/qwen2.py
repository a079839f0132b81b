"""Qwen2 with the heads of published process reward models, as native classes: no remote code."""

from collections import OrderedDict

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

NUM_LABELS = 2  # column 0 = the step is wrong, column 1 = the step is right


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):
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
        """As in transformers, but a checkpoint that lacks weights raises ``ValueError``: a head is never made up.

        To put a fresh head on a language model, for training, call :meth:`with_new_head`.
        """
        return complete(super(), pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def with_new_head(cls, pretrained_model_name_or_path, *args, **kwargs) -> "Qwen2ForProcessRewardModel":
        """The body of a Qwen2 language model (or PRM) with a freshly initialised head, to be trained.

        Raises ``ValueError`` where the body itself is incomplete.
        """
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if missing := sorted(key for key in info["missing_keys"] if not key.startswith("score.")):
            raise ValueError(
                f"{pretrained_model_name_or_path} is no Qwen2 model: no weights for {_shortened(missing)}."
            )
        return model

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        step_ends: torch.LongTensor | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """Logits (B, T, 2) at every token, or (B, K, 2) at the tokens ``step_ends`` (B, K) only, as in training.

        Scoring reads step ends only too, and goes through ``model`` and ``score``.
        """
        if step_ends is not None:
            kwargs.setdefault("use_cache", False)
        hidden = self.model(input_ids, attention_mask, position_ids, inputs_embeds=inputs_embeds, **kwargs)
        hidden = hidden.last_hidden_state
        if step_ends is not None:
            hidden = hidden.gather(1, step_ends[..., None].expand(-1, -1, hidden.shape[-1]))
        return TokenClassifierOutput(logits=self.score(hidden))


class Qwen2WithValueHead(Qwen2PreTrainedModel):
    """Qwen2 body (``model.*``) and ``v_head.summary`` = Linear(h, 1): the layout of Skywork-o1-Open-PRM.

    Missing weights are refused, ``lm_head.*`` is ignored.
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


def complete(loader, name_or_path, *args, output_loading_info: bool = False, **kwargs):
    """``loader.from_pretrained(...)``; ``ValueError`` where the checkpoint lacks any of the model's weights."""
    model, info = loader.from_pretrained(name_or_path, *args, output_loading_info=True, **kwargs)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{name_or_path} has no weights for {_shortened(missing)}: expected a trained process reward model with "
            f"the layout of {type(model).__name__}, and none is made up. To start one from a language model, call "
            "Qwen2ForProcessRewardModel.with_new_head; to read it as another family, name it."
        )
    return (model, info) if output_loading_info else model


def _shortened(keys: list[str], shown: int = 6) -> str:
    return ", ".join(keys[:shown]) + (f" and {len(keys) - shown} more" if len(keys) > shown else "")
