"""The two models of an implicit PRM: two whole models, or one base whose adapter is switched off for the reference."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rlhf_prm.prm.placement import Replicate
from rlhf_prm.prm.readers import TokenLogProbs
from rlhf_prm.prm.token_model import Sequences, TokenModel

ADAPTER = "implicit_prm"


@runtime_checkable
class ImplicitModels(Protocol):
    """φ, which is trained, and the frozen reference."""

    device: torch.device
    forwards: int

    def log_probs(self, sequences: Sequences) -> list[Tensor]: ...  # of φ, without gradients

    def reference_log_probs(self, sequences: Sequences) -> list[Tensor]: ...

    def learning(self) -> AbstractContextManager[nn.Module]: ...  # φ's reader with gradients

    def trained(self) -> list[nn.Parameter]: ...  # φ's trainable weights; inside ``learning``

    def batches(self, sequences: Sequences) -> list[list[int]]: ...

    def rows(self, reader: nn.Module, sequences: Sequences) -> list[Tensor]: ...


class TwoModels:
    """Two ``TokenModel``s; φ is trained whole.

    Raises:
        ValueError: φ's placement does not support training (zero3).
    """

    def __init__(self, model: TokenModel, reference: TokenModel) -> None:
        if not hasattr(model.placement, "learning"):
            raise ValueError(
                f"implicit PRM: got placement {type(model.placement).__name__.lower()} for the model to train, "
                "expected replicate or offload"
            )
        self.model, self.reference, self.device = model, reference, model.placement.device
        self.batches, self.rows, self.log_probs = model.batches, model.rows, model.log_probs
        self.reference_log_probs, self.learning = reference.log_probs, model.placement.learning

    @property
    def forwards(self) -> int:
        return self.model.forwards + self.reference.forwards

    def trained(self) -> list[nn.Parameter]:
        return list(self.model.reader.parameters())


class AdapterModel:
    """One base model: φ is a LoRA adapter on it, and the reference is the base without any adapter.

    If the base is the policy's own (a PEFT policy), φ is a second adapter beside the policy's, without another copy of
    the weights. The adapters do not affect each other.

    Args:
        model: a causal LM, or a PEFT model of one; None: the trainer's policy, at ``attach``.
        lora: a ``peft.LoraConfig``.
        context, max_batch_tokens: as ``TokenModel``.
    """

    def __init__(
        self, model: nn.Module | None, lora: Any, *, context: int | None = None, max_batch_tokens: int = 2048
    ) -> None:
        self.lora, self.context, self.max_batch_tokens = lora, context, max_batch_tokens
        self.model: Any = None
        self._tokens: TokenModel | None = None
        if model is not None:
            self._take(model)

    def attach(self, trainer: Any) -> None:
        """Add the adapter beside the policy's, if no model was given.

        Raises:
            ValueError: the policy is without PEFT, or DeepSpeed or FSDP has sharded it.
        """
        if self.model is not None:
            return
        policy = trainer.accelerator.unwrap_model(trainer.model)
        if not hasattr(policy, "add_adapter") or not hasattr(policy, "peft_config"):
            raise ValueError("implicit PRM: got a policy without PEFT, expected use_peft, or a separate model")
        sharded = trainer.is_fsdp_enabled or any(hasattr(weight, "ds_id") for weight in policy.parameters())
        if sharded:
            raise ValueError(
                "implicit PRM: got a sharded policy, expected DDP or ZeRO-1/2 for two adapters on one base"
            )
        self._take(policy)

    def _take(self, model: Any) -> None:
        from peft import get_peft_model

        if hasattr(model, "peft_config"):
            with _flags_kept(model):
                model.add_adapter(ADAPTER, self.lora)
            for name, weight in model.named_parameters():
                if f".{ADAPTER}." in name:
                    weight.requires_grad_(False)
                    weight.data = weight.data.float()
        else:
            model = get_peft_model(model.requires_grad_(False), self.lora, adapter_name=ADAPTER)
            for weight in model.parameters():
                weight.requires_grad_(False)
        self.model, base = model, model.get_base_model()
        limit = base.config.max_position_embeddings
        self._tokens = TokenModel(
            _Still(TokenLogProbs(base)),
            context=min(self.context or limit, limit),
            max_batch_tokens=self.max_batch_tokens,
        )

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self._tokens is None else self._tokens.placement.device

    @property
    def forwards(self) -> int:
        return 0 if self._tokens is None else self._tokens.forwards

    def batches(self, sequences: Sequences) -> list[list[int]]:
        return self._tokens.batches(sequences)

    def rows(self, reader: nn.Module, sequences: Sequences) -> list[Tensor]:
        return self._tokens.rows(reader, sequences)

    def log_probs(self, sequences: Sequences) -> list[Tensor]:
        with self._active():
            return self._tokens.log_probs(sequences)

    def reference_log_probs(self, sequences: Sequences) -> list[Tensor]:
        with _modes_kept(self.model), _flags_kept(self.model), self.model.disable_adapter():
            self.model.eval()
            return self._tokens.log_probs(sequences)

    @contextmanager
    def learning(self) -> Iterator[nn.Module]:
        with self._active():
            for weight in self.trained():
                weight.requires_grad_(True)
            yield self._tokens.reader

    def trained(self) -> list[nn.Parameter]:
        return [weight for name, weight in self.model.named_parameters() if f".{ADAPTER}." in name]

    @contextmanager
    def _active(self) -> Iterator[None]:
        """Inside the context only φ's adapter is on, the policy's weights get no gradient, and dropout is off."""
        others = self.model.active_adapter
        with _modes_kept(self.model), _flags_kept(self.model):
            self.model.eval()
            self.model.set_adapter(ADAPTER)
            for weight in self.model.parameters():
                weight.requires_grad_(False)
            try:
                yield
            finally:
                self.model.set_adapter(others)


class _Still(Replicate):
    """A placement that leaves the weights, their flags and modes as they are, because the policy uses them too."""

    def __init__(self, reader: nn.Module) -> None:
        self.reader = reader

    @property
    def device(self) -> torch.device:
        """Where the weights are now: DeepSpeed moves a policy's after this is made."""
        return next(self.reader.parameters()).device


@contextmanager
def _flags_kept(model: nn.Module) -> Iterator[None]:
    """Restore ``requires_grad`` afterwards, which PEFT changes when it switches adapters."""
    flags = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        yield
    finally:
        for weight, flag in flags:
            weight.requires_grad_(flag)


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
