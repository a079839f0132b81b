"""How each family of process reward models marks steps, is read, and is recognised. A new family is one entry here.

An entry names a renderer (:mod:`rlhf_prm.prm.render`: text → ids and read positions), a builder (checkpoint → read-out
module, :mod:`rlhf_prm.prm.readers`) and a rule that recognises a checkpoint. A checkpoint that several rules fit is the
first one's, so narrower rules come first.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase

from rlhf_prm.prm import render
from rlhf_prm.prm.decoders import STEP_TAG, complete, decoder_class
from rlhf_prm.prm.output_head import OutputHead
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel, Qwen2WithValueHead
from rlhf_prm.prm.readers import HeadReader, ImplicitReader, TokenLogProbs
from rlhf_prm.prm.texts import Rendered, Texts

QWEN_SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class Checkpoint:
    """The data that a rule may use; ``reference`` is the name of a reference model, if one was given."""

    name: str
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    reference: str | None = None

    @property
    def architecture(self) -> str:
        return str((getattr(self.config, "architectures", None) or [""])[0])

    def named(self, *words: str) -> bool:
        names = f"{self.name} {getattr(self.config, '_name_or_path', '')}".lower()
        return any(word in names for word in words)

    def has_token(self, text: str) -> bool:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id


@dataclass(frozen=True)
class Family:
    """One family of PRMs.

    A checkpoint that is recognised without one of ``names`` in its name is warned about: its architecture and tokenizer
    are those of ordinary language models too. ``tag`` marks a step's end; ``good`` and ``bad`` are the answers of
    causal-LM PRMs; ``numbered`` puts "Step k: " before each step; ``between_steps`` is the text between two steps if
    the family keeps it (set it to ``"\\n"`` for a policy that is cut at line breaks); ``served`` says how vLLM serves
    it (``"tags"``: one row for each tag; ``"tokens"``: one row for each token; ``None``: not at all).
    """

    name: str
    summary: str
    render: Callable[[Texts, "Family", str, list[str]], Rendered]
    build: Callable[..., nn.Module]
    recognised: Callable[[Checkpoint], bool]
    names: tuple[str, ...] = ()
    tag: str | None = None
    good: str | None = None
    bad: str | None = None
    system_prompt: str | None = None
    after_problem: str = ""
    between_steps: str = ""
    numbered: bool = False
    beta: float | None = None
    served: str | None = None

    def rendered(self, texts: Texts, problem: str, steps: list[str]) -> Rendered:
        return self.render(texts, self, problem, steps)


def _process_reward_model(checkpoint: Checkpoint, family: Family, texts: Texts, **kwargs: Any) -> nn.Module:
    model = Qwen2ForProcessRewardModel.from_pretrained(checkpoint.name, **kwargs)
    return HeadReader(model.model, model.score)


def _value_head(checkpoint: Checkpoint, family: Family, texts: Texts, **kwargs: Any) -> nn.Module:
    model = Qwen2WithValueHead.from_pretrained(checkpoint.name, **kwargs)
    return HeadReader(model.model, model.v_head)


def _token_classification(checkpoint: Checkpoint, family: Family, texts: Texts, **kwargs: Any) -> nn.Module:
    model = complete(decoder_class(checkpoint.config), checkpoint.name, **kwargs)
    if model.head.out_features != 2:
        raise ValueError(f"{checkpoint.name} has {model.head.out_features} labels: a token-classification PRM has 2.")
    return HeadReader(model.base_model, model.head)


def _scalar_head(checkpoint: Checkpoint, family: Family, texts: Texts, **kwargs: Any) -> nn.Module:
    model = complete(decoder_class(checkpoint.config), checkpoint.name, **kwargs)
    return HeadReader(model.base_model, model.head)


def _good_or_bad(checkpoint: Checkpoint, family: Family, texts: Texts, **kwargs: Any) -> nn.Module:
    assert family.bad is not None and family.good is not None  # an entry of this builder has both
    bad, good = (texts.token_id(family.bad, "bad answer"), texts.token_id(family.good, "good answer"))
    model = complete(AutoModelForCausalLM, checkpoint.name, **kwargs)
    return HeadReader(model.base_model, OutputHead(model, rows=(bad, good)))


def _implicit(checkpoint: Checkpoint, family: Family, texts: Texts, **kwargs: Any) -> nn.Module:
    if checkpoint.reference is None:
        raise ValueError(
            f"{checkpoint.name} is an implicit PRM, read against a reference model: pass reference= (for EurusPRM: "
            "Qwen/Qwen2.5-Math-7B-Instruct)."
        )
    assert family.beta is not None  # an entry of this builder has one
    models = [complete(AutoModelForCausalLM, name, **kwargs) for name in (checkpoint.name, checkpoint.reference)]
    policy, reference = map(TokenLogProbs, models)
    return ImplicitReader(policy, reference, family.beta)


_FAMILIES = (
    Family(
        name="reasonflux_prm",
        summary="ReasonFlux-PRM-7B: <extra_0> after each step, chat without a system turn, softmax[1] there",
        render=render.chat_then_tags,
        build=_process_reward_model,
        recognised=lambda c: c.architecture == "Qwen2ForProcessRewardModel" and c.named("reasonflux"),
        tag=STEP_TAG,
        served="tags",
    ),
    Family(
        name="qwen_prm",
        summary="Qwen2.5-Math-PRM-7B/72B, -PRM800K, ours from Qwen2: <extra_0> after each step, softmax[1] there",
        render=render.chat_then_tags,
        build=_process_reward_model,
        recognised=lambda c: c.architecture == "Qwen2ForProcessRewardModel",
        tag=STEP_TAG,
        system_prompt=QWEN_SYSTEM_PROMPT,
        served="tags",
    ),
    Family(
        name="skywork_prm",
        summary="Skywork-o1-Open-PRM: a line break after each line, blank ones too; sigmoid of a value head there",
        render=render.lines_then_tags,
        build=_value_head,
        recognised=lambda c: c.architecture == "Qwen2ForPrmModel" or c.named("skywork-o1-open-prm"),
        tag="\n",
        after_problem="\n",
        between_steps="\n\n",
    ),
    Family(
        name="pair_reward",
        summary="ours from pairs (PairTrainer): <extra_0> after each step, sigmoid of one score there; use `last`",
        render=render.chat_then_tags,
        build=_scalar_head,
        recognised=lambda c: (
            c.architecture.endswith("ForTokenClassification")
            and getattr(c.config, "step_tag", None) == STEP_TAG
            and c.config.num_labels == 1
        ),
        tag=STEP_TAG,
    ),
    Family(
        name="decoder_prm",
        summary="ours from any other decoder: <extra_0> after each step, chat without a system turn, softmax[1] there",
        render=render.chat_then_tags,
        build=_token_classification,
        recognised=lambda c: (
            c.architecture.endswith("ForTokenClassification") and getattr(c.config, "step_tag", None) == STEP_TAG
        ),
        tag=STEP_TAG,
        served="tags",
    ),
    Family(
        name="token_classification",
        summary="TRL-trained PRMs and PURE-PRM-7B: a line break after each step, softmax[1] of two token labels there",
        render=render.pieces_then_tags,
        build=_token_classification,
        recognised=lambda c: c.architecture.endswith("ForTokenClassification") and c.config.num_labels == 2,
        tag="\n",
        served="tokens",
    ),
    Family(
        name="implicit_prm",
        summary="EurusPRM (with reference=): chat, 'Step k' before each step, sigmoid of β·Σ(log π − log π_ref) there",
        render=render.chat_of_numbered_steps,
        build=_implicit,
        recognised=lambda c: (
            c.architecture.endswith("ForCausalLM")
            and (c.named("eurusprm", "implicitprm") or (c.reference is not None and not c.named("shepherd", "rlhflow")))
        ),
        beta=0.001,
    ),
    Family(
        name="math_shepherd",
        summary="math-shepherd-mistral-7b-prm: 'Step k: … ки' on a line, softmax over the logits of '+' and '-' there",
        render=render.text_with_tags,
        build=_good_or_bad,
        recognised=lambda c: c.architecture == "MistralForCausalLM" and c.has_token("ки"),
        names=("shepherd",),
        tag="ки",
        numbered=True,
        good="+",
        bad="-",
    ),
    Family(
        name="rlhflow",
        summary="RLHFlow Llama3.1-8B-PRM: a user turn for each step, softmax over the assistant's answers '+' and '-'",
        render=render.turns,
        build=_good_or_bad,
        recognised=lambda c: c.architecture == "LlamaForCausalLM" and c.tokenizer.chat_template is not None,
        names=("rlhflow", "8b-prm"),
        good="+",
        bad="-",
    ),
    Family(
        name="causal_tag",
        summary="any causal LM with its own tag= after each step and answers good=, bad= compared there",
        render=render.text_with_tags,
        build=_good_or_bad,
        recognised=lambda c: False,
        after_problem="\n",
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _FAMILIES}


def listed() -> str:
    """The families, one line each, for error messages and help texts."""
    return "\n".join(f"  {family.name}: {family.summary}" for family in _FAMILIES)


def family_of(checkpoint: Checkpoint) -> Family:
    """The first family whose rule fits; a ``ValueError`` that lists all families if none does."""
    for family in _FAMILIES:
        if family.recognised(checkpoint):
            if family.names and not checkpoint.named(*family.names):
                warnings.warn(
                    f"{checkpoint.name} is read as a PRM of family {family.name!r}, by its architecture and tokenizer "
                    f"only, which other language models share. Pass family={family.name!r} if that is right.",
                    stacklevel=4,
                )
            return family
    raise ValueError(
        f"{checkpoint.name} (architecture {checkpoint.architecture or 'unknown'}) fits no family of PRMs. Name one "
        f"with family=, for another causal LM family='causal_tag' with tag=, good=, bad=:\n{listed()}"
    )
