"""``load_prm``: a checkpoint of any known family as a step scorer."""

import math
import os
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from rlhf_prm.prm.calibration import Calibration, warn_of_narrow_scores
from rlhf_prm.prm.families import FAMILIES, Checkpoint, Family, family_of, listed
from rlhf_prm.prm.placement import Offload, Replicate, Zero3, loading_for
from rlhf_prm.prm.protocol import PLACEMENTS, target_of
from rlhf_prm.prm.scorer import BatchScorer, PRMScorer
from rlhf_prm.prm.server import ServerScorer
from rlhf_prm.prm.texts import Texts
from rlhf_prm.tokenizer_checks import saved_tokenizer

IN_PROCESS: dict[str, type[Replicate | Zero3]] = {"replicate": Replicate, "offload": Offload, "zero3": Zero3}
SHARING_PAYS_FROM = 1 / 3


def load_prm(
    name_or_path: str | os.PathLike[str],
    family: str | Family = "auto",
    placement: str = "replicate",
    *,
    reference: str | os.PathLike[str] | None = None,
    tag: str | None = None,
    good: str | None = None,
    bad: str | None = None,
    between_steps: str | None = None,
    score_scale: float = 1.0,
    score_shift: float = 0.0,
    device: str | torch.device | None = None,
    dtype: str = "auto",
    max_length: int | None = None,
    past_context: str = "nan",
    max_batch_tokens: int | None = None,
    share_prefix: bool | str = "auto",
    attn_implementation: str | None = None,
    server_url: str = "http://127.0.0.1:8000",
    server_deadline: float = 600.0,
) -> BatchScorer:
    """Load a process reward model and place it as ``placement`` says.

    Args:
        name_or_path: a checkpoint's folder or its name on the Hub.
        family: a name of :data:`~rlhf_prm.prm.families.FAMILIES`, an entry made with ``dataclasses.replace``, or
            ``"auto"``: recognised from config and tokenizer.
        placement: ``"replicate"``: a copy on every rank's device. ``"offload"``: in CPU memory except while scoring.
            ``"zero3"``: sharded over the ranks with DeepSpeed; every rank must then call ``score`` equally often.
            ``"server"``: at ``server_url``, served by vLLM; only config and tokenizer are loaded here.
        reference: the reference model of an implicit PRM.
        tag, good, bad: what a causal LM of family ``"causal_tag"`` was trained with; elsewhere in place of the
            family's own.
        between_steps: the text between two steps of the answer that the PRM reads, for families that keep one
            (``"skywork_prm"``: a blank line; ``"\\n"`` for a policy that is cut at line breaks).
        score_scale, score_shift: see :class:`~rlhf_prm.prm.calibration.Calibration`; for an implicit PRM, whose own
            scores are all close to 1/2, fit them with ``fitted_calibration``; a warning is given if they are not set.
        device: default: this rank's GPU, else the CPU.
        dtype: ``"auto"`` is bfloat16 on a GPU and float32 on a CPU.
        max_length: longest input in tokens; default and upper limit: the PRM's context.
        past_context: how steps past that are scored: "nan", or "window": they are read after the problem and the last
            steps before them; see :class:`~rlhf_prm.prm.scorer.BatchScorer`.
        max_batch_tokens: padded size of a micro-batch; default: 16,384 on a GPU and 1,024 on a CPU, whose caches are
            small.
        share_prefix: run the prompt of a group once and reuse its keys and values for the group's rollouts.
            ``"auto"``: on a CPU, for groups in which that saves a third of the tokens (measured in
            ``benchmarks/prm_scoring.py``). ``True``: always. Never with ``"zero3"``, sliding windows, implicit PRMs.
        attn_implementation: as in transformers; default on a GPU: FlashAttention 2, then without any padding, if it
            is installed.
        server_url, server_deadline: see :class:`~rlhf_prm.prm.server.ServerScorer`.

    Raises:
        ValueError: no family fits, a keyword has no effect for this family or placement, the tokenizer lacks the
            family's tag, or the tag's embedding or weights are missing.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement={placement!r}: expected one of {', '.join(PLACEMENTS)}.")
    if placement == "server":
        for keyword, given, default in (
            ("device", device, None),
            ("dtype", dtype, "auto"),
            ("max_batch_tokens", max_batch_tokens, None),
            ("share_prefix", share_prefix, "auto"),
            ("attn_implementation", attn_implementation, None),
        ):
            if given != default:
                raise ValueError(
                    f"{keyword}={given!r} has no effect: with placement 'server' the model runs as its server was "
                    "started. Leave it out."
                )
    name = os.fspath(name_or_path)
    config, tokenizer = AutoConfig.from_pretrained(name), saved_tokenizer(name)
    checkpoint = Checkpoint(name, config, tokenizer, None if reference is None else os.fspath(reference))
    chosen = chosen_family(checkpoint, family, tag=tag, good=good, bad=bad, between_steps=between_steps)
    check_reference(checkpoint, chosen)
    if chosen.beta is not None and past_context == "window":
        raise ValueError(
            f"past_context='window': got {name}, an implicit PRM, expected 'nan': its score of a step is a sum over "
            "all of the solution up to there, and a window would begin it again"
        )
    calibration = Calibration(score_scale, score_shift)
    if chosen.beta is not None and calibration == Calibration():
        warn_of_narrow_scores(name, chosen.beta)
    texts = Texts(tokenizer, chosen.tag)
    context = context_of(name, config, max_length)
    if placement == "server":
        served = ServerScorer(
            chosen,
            texts,
            url=server_url,
            model=name,
            context=context,
            deadline=server_deadline,
            past_context=past_context,
        )
        served.calibration = calibration
        served.between_steps_given = between_steps is not None
        return _with_target(served, config)
    device = this_device() if device is None else torch.device(device)
    precision = (
        (torch.bfloat16 if device.type == "cuda" else torch.float32) if dtype == "auto" else getattr(torch, dtype)
    )
    kwargs: dict[str, Any] = {"dtype": precision}
    if attn_implementation is None and device.type == "cuda" and is_flash_attn_2_available():
        attn_implementation = "flash_attention_2"
    if attn_implementation is not None:
        kwargs["attn_implementation"] = attn_implementation
    with loading_for(placement, precision):
        reader = chosen.build(checkpoint, chosen, texts, **kwargs)
    check_embedding(name, reader, texts)
    sharing_from = (
        sharing_threshold(share_prefix, device) if reader.shares_prefixes and placement != "zero3" else math.inf
    )
    scorer = PRMScorer(
        chosen,
        texts,
        IN_PROCESS[placement](reader, device),
        context=context,
        max_batch_tokens=max_batch_tokens or (16384 if device.type == "cuda" else 1024),
        sharing_from=sharing_from,
        packs=bool(reader.packs),
        past_context=past_context,
    )
    scorer.name_or_path = name
    scorer.calibration = calibration
    scorer.between_steps_given = between_steps is not None
    return _with_target(scorer, config)


def _with_target(scorer: BatchScorer, config: PreTrainedConfig) -> BatchScorer:
    """The scorer, marked as an outcome reward model if the saved config says so."""
    scorer.target = getattr(config, "prm_target", scorer.target)
    target_of(scorer)  # raises if the target is unknown
    return scorer


def context_of(name: str, config: PreTrainedConfig, max_length: int | None) -> int:
    """The longest input in tokens; ``ValueError`` if neither the config nor ``max_length`` gives it."""
    fields = ("max_position_embeddings", "seq_length")
    limits = [max_length, *(getattr(config.get_text_config(), field, None) for field in fields)]
    known = [int(limit) for limit in limits if limit]
    if not known:
        raise ValueError(f"{name}: its config names no longest input; pass max_length= (tokens)")
    return min(known)


def check_embedding(name: str, reader: nn.Module, texts: Texts) -> None:
    """Check that the model embeds its step tag, and choose a padding id that it embeds (padding is never read).

    Raises:
        ValueError: the tag's id is beyond the embedding, so this is not the tokenizer that the PRM was trained with.
    """
    bodies: list[Any] = [body for body in reader.modules() if isinstance(body, PreTrainedModel)]
    fewest = min((body.get_input_embeddings().num_embeddings for body in bodies), default=math.inf)
    if texts.tag_id is not None and texts.tag_id >= fewest:
        raise ValueError(
            f"{name}: the step tag {texts.tag!r} has id {texts.tag_id}, but the model embeds {fewest} tokens: save the "
            "tokenizer that it was trained with beside it, or resize its embedding before training"
        )
    if texts.pad_id >= fewest:
        texts.pad_id = 0


def sharing_threshold(share_prefix: bool | str, device: torch.device) -> float:
    """The share of a group's tokens that sharing its prompt must save; infinity means never share."""
    if share_prefix not in (True, False, "auto"):
        raise ValueError(f"share_prefix={share_prefix!r}: expected True, False or 'auto'.")
    if share_prefix == "auto":
        return SHARING_PAYS_FROM if device.type == "cpu" else math.inf
    return 0.0 if share_prefix else math.inf


def chosen_family(checkpoint: Checkpoint, family: str | Family, **marks: str | None) -> Family:
    """The family asked for, or recognised, with those marks replaced that are not ``None``."""
    given: dict[str, Any] = {name: mark for name, mark in marks.items() if mark is not None}
    if isinstance(family, Family):
        chosen = family
    elif family == "auto":
        chosen = FAMILIES["causal_tag"] if {"tag", "good", "bad"} <= given.keys() else family_of(checkpoint)
    elif family in FAMILIES:
        chosen = FAMILIES[family]
    else:
        raise ValueError(f"family={family!r} is unknown. Expected 'auto' or one of:\n{listed()}")
    for name, mark in given.items():
        if chosen.name != "causal_tag" and not getattr(chosen, name):
            raise ValueError(f"{name}={mark!r} has no effect: PRMs of family {chosen.name!r} have none. Leave it out.")
    chosen = replace(chosen, **given)
    if "between_steps" in given and chosen.tag is not None and chosen.tag not in chosen.between_steps:
        raise ValueError(
            f"between_steps={chosen.between_steps!r}: family {chosen.name!r} reads a step at {chosen.tag!r}, so "
            "expected a text that has it."
        )
    if chosen.name == "causal_tag" and None in (chosen.tag, chosen.good, chosen.bad):
        raise ValueError("family 'causal_tag' needs tag=, good= and bad=: the texts this PRM was trained with.")
    return chosen


def check_reference(checkpoint: Checkpoint, chosen: Family) -> None:
    """Raise a ``ValueError`` for a reference model that the family would not read."""
    if checkpoint.reference is not None and chosen.beta is None:
        raise ValueError(
            f"reference={checkpoint.reference!r} has no effect: PRMs of family {chosen.name!r} have none. Leave it out."
        )


def this_device() -> torch.device:
    """This rank's GPU if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
