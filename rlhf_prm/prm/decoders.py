"""A process reward model from any decoder that transformers loads: its body, and a linear head with two labels.

The layout is that of ``AutoModelForTokenClassification``: the body under its own name (``model.*`` in most), ``score``
= Linear(h, 2) with a bias (``classifier`` in GPT-2 and a few others), architecture ``<Decoder>ForTokenClassification``.
Where transformers has that class, plain transformers loads a checkpoint saved here. Where it has none (Gemma 3, OLMo),
the class is built here, from the same parts and with the same keys. When vLLM reads such an architecture, it
turns the ``<Decoder>ForCausalLM`` that it knows into a classifier. ``step_tag`` in config.json tells ``load_prm`` how
steps are marked.
"""

import os
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForTokenClassification
from transformers.modeling_outputs import TokenClassifierOutput

NUM_LABELS = 2  # column 0 = the step is wrong, column 1 = the step is right
STEP_TAG = "<extra_0>"  # ends a step in everything that is trained here
_LANGUAGE_MODEL_HEADS = [r"^lm_head\.", r"^embed_out\."]


class StepEndLogits:
    """Mixin for a body with a head: logits at every token, or at the step ends only.

    It leaves out the dropout that some token classifiers have before the head.
    """

    @property
    def head(self) -> nn.Module:
        return getattr(self, head_name(self))

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        step_ends: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Logits (B, T, 2) at every token, or (B, K, 2) at the tokens ``step_ends`` (B, K) only, as in training.

        Scoring (``readers``) reads step ends too, but calls the body and the head itself.
        """
        if step_ends is not None:
            kwargs.setdefault("use_cache", False)
        hidden = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        if step_ends is not None:
            hidden = hidden.gather(1, step_ends[..., None].expand(-1, -1, hidden.shape[-1]))
        return TokenClassifierOutput(logits=self.head(hidden))


def head_name(model: nn.Module) -> str:
    """The attribute that holds a token classifier's head.

    Raises:
        ValueError: there is none.
    """
    for name in ("score", "classifier"):
        if hasattr(model, name):
            return name
    raise ValueError(f"got a {type(model).__name__} without a head, expected a model with `score` or `classifier`")


def decoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The token classifier of a decoder's config; it extends transformers' own class if there is one.

    Raises:
        ValueError: the model is not a decoder, so scores of earlier steps would depend on later text.
    """
    return _decoder_class(type(config))


@cache
def _decoder_class(config_class: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    encodes = config_class in MODEL_FOR_MASKED_LM_MAPPING
    if encodes or config_class not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"got a model of type {config_class.model_type!r}, expected a decoder (Llama, Mistral, Gemma, Phi, Qwen or "
            "the like): a step's score must not depend on what is written after it"
        )
    if config_class in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        own = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[config_class]
        name, bases, given = own.__name__, (StepEndLogits, own), {}
    else:
        body = MODEL_MAPPING[config_class]
        family = next(parent for parent in body.__mro__[1:] if parent.__name__.endswith("PreTrainedModel"))
        causal = MODEL_FOR_CAUSAL_LM_MAPPING[config_class].__name__
        name = causal.removesuffix("ForCausalLM").removesuffix("LMHeadModel") + "ForTokenClassification"
        bases = (StepEndLogits, GenericForTokenClassification, family)
        given = {"base_model_prefix": family.base_model_prefix, "config_class": config_class}
    ignored = [key for parent in bases for key in getattr(parent, "_keys_to_ignore_on_load_unexpected", None) or []]
    given["_keys_to_ignore_on_load_unexpected"] = [*ignored, *_LANGUAGE_MODEL_HEADS]
    return type(name, bases, {"__module__": __name__, **given})


def decoder_with_new_head(
    name_or_path: str | os.PathLike, num_labels: int = NUM_LABELS, **kwargs: Any
) -> PreTrainedModel:
    """The body of a language model with a freshly initialised head, to be trained; one label gives a scalar score.

    Raises:
        ValueError: the model is not a decoder, or its body is incomplete.
    """
    config = AutoConfig.from_pretrained(name_or_path, revision=kwargs.get("revision"))
    config.num_labels = num_labels
    config.step_tag = STEP_TAG
    return with_new_head(decoder_class(config), name_or_path, config=config, **kwargs)


def with_new_head(loader: Any, name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> PreTrainedModel:
    """``loader.from_pretrained(...)``, with a new head; ``ValueError`` if other weights are missing."""
    model, info = loader.from_pretrained(name_or_path, *args, output_loading_info=True, **kwargs)
    head = f"{head_name(model)}."
    if missing := sorted(key for key in info["missing_keys"] if not key.startswith(head)):
        kind = model.config.model_type
        raise ValueError(f"{name_or_path} is not a whole model of type {kind}: no weights for {_shortened(missing)}.")
    return model


def complete(
    loader: Any, name_or_path: str | os.PathLike, *args: Any, output_loading_info: bool = False, **kwargs: Any
) -> Any:
    """``loader.from_pretrained(...)``; ``ValueError`` if the checkpoint lacks any of the model's weights."""
    model, info = loader.from_pretrained(name_or_path, *args, output_loading_info=True, **kwargs)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{name_or_path} has no weights for {_shortened(missing)}: expected a trained process reward model with "
            f"the layout of {type(model).__name__}. To start one from a language model, give it "
            "to PRMTrainer (or call with_new_head); to read it as another family, name it."
        )
    return (model, info) if output_loading_info else model


def _shortened(keys: list[str], shown: int = 6) -> str:
    return ", ".join(keys[:shown]) + (f" and {len(keys) - shown} more" if len(keys) > shown else "")
