"""PPO's critic is a value head on a trunk of its own or on the policy's. It lives inside the policy's module.

One module means one DDP wrapper, one DeepSpeed engine and one optimizer for both. What is saved for others to load is
the policy alone (``policy_state``); the critic is saved in a separate file beside it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import FusedCausalLMOutput

CRITIC_FILE = "critic.safetensors"
PREFIX = "critic."


class ValueHead(nn.Linear):
    """A linear map computed in float32, also under autocast and in an engine that holds its weights in bfloat16.

    Values are regressed on returns and differenced in GAE; with bfloat16's eight significant bits a value near 1 would
    come in steps of 0.004 to 0.008.
    """

    def forward(self, hidden: Float[Tensor, "... H"]) -> Float[Tensor, "... 1"]:
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.weight.float(), self.bias.float())


class Critic(nn.Module):
    """V(s) per token from hidden states; the head starts at zero, so the first advantages are the rewards-to-go.

    Args:
        hidden_size: width of the hidden states.
        trunk: the critic's own decoder without a head; None = it uses the policy's hidden states.
        detach: with the policy's trunk, the value loss moves only the head.
    """

    def __init__(self, hidden_size: int, trunk: PreTrainedModel | None, *, detach: bool = False) -> None:
        super().__init__()
        self.trunk, self.detach = trunk, detach
        self.head = ValueHead(hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, hidden: Float[Tensor, "B L H"] | None, input_ids: Int[Tensor, "B L"], attention_mask: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """The value of each prefix: position i has seen tokens 0 … i. ``hidden`` is the policy's last hidden state."""
        if self.trunk is not None:
            outputs = self.trunk(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            hidden = outputs.last_hidden_state
        elif self.detach:
            hidden = hidden.detach()
        return self.head(hidden).squeeze(-1)


@dataclass
class _ValuedOutput(FusedCausalLMOutput):
    """The output of TRL's fused forward, with the critic's values."""

    critic_values: Tensor | None = None


class ValueTap:
    """Makes a policy's forward also compute values, in the same call, when asked to.

    A second forward of the policy's engine per micro-batch would break the bookkeeping of DDP and ZeRO; this
    is one forward for both models. Works for a ``PreTrainedModel`` and for a ``PeftModel``.

    Args:
        model: the policy, not yet wrapped; gets the critic as ``model.critic``.
    """

    def __init__(self, model: nn.Module, critic: Critic) -> None:
        model.critic = critic
        self._collecting = False
        self._hidden: Tensor | None = None
        self._values: list[Tensor] = []
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if critic.trunk is None:
            base.base_model.register_forward_hook(self._keep_hidden)
        model.register_forward_hook(self._compute_values, with_kwargs=True)

    @contextmanager
    def collecting(self) -> Iterator[list[Tensor]]:
        """Inside the context every forward of the policy appends its (B, L) values to the list."""
        self._collecting, self._values = True, []
        try:
            yield self._values
        finally:
            self._collecting, self._hidden = False, None

    def _keep_hidden(self, module, args, output) -> None:
        if self._collecting:
            self._hidden = output.last_hidden_state

    def _compute_values(self, module, args, kwargs, output) -> FusedCausalLMOutput | None:
        if self._collecting:
            values = module.critic(self._hidden, kwargs["input_ids"], kwargs["attention_mask"]).float()
            self._values.append(values)
            # DDP finds the parameters in use by walking back from the outputs, so the values must be one of them.
            return _ValuedOutput(**output, critic_values=values)
        return None


def state_values(values: list[Tensor], num_tokens: int) -> Float[Tensor, "B T"]:
    """Values (B, L) of micro-batches → V(s_t) of the T completion tokens, where s_t ends before token t."""
    return torch.cat(values)[:, -num_tokens - 1 : -1]


def critic_trunk(source: str | PreTrainedModel, **load_arguments) -> PreTrainedModel:
    """A trainable copy, without its head, of a policy in memory or of a checkpoint (a policy's or a PRM's).

    Raises:
        ValueError: the checkpoint lacks weights of the trunk, or the policy in memory cannot be copied.
    """
    if isinstance(source, str):
        trunk, report = AutoModel.from_pretrained(source, output_loading_info=True, **load_arguments)
        if report["missing_keys"]:
            raise ValueError(
                f"critic_init: {source!r} lacks {len(report['missing_keys'])} weights of a {type(trunk).__name__}, "
                f"such as {sorted(report['missing_keys'])[0]!r}; expected a checkpoint whose trunk is complete"
            )
        return trunk
    if not isinstance(source, PreTrainedModel) or any(hasattr(p, "ds_id") for p in source.parameters()):
        raise ValueError(
            f"critic_init='policy': got a {type(source).__name__} in memory that cannot be copied (PEFT or ZeRO-3); "
            "pass the policy by name, or critic_init=<name or folder of a checkpoint>"
        )
    trunk = copy.deepcopy(source.base_model)
    return trunk.requires_grad_(True)


def check_vocabulary(trunk: PreTrainedModel, source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the critic and the policy, whose token ids it reads, have the same vocabulary.

    Raises:
        ValueError: the trunk's embedding is too small, or its tokenizer has another token at an id.
    """
    known = trunk.config.get_text_config().vocab_size
    if known < len(tokenizer):
        raise ValueError(f"critic_init: {source!r} embeds {known} tokens, expected the policy's {len(tokenizer)}")
    if not any((Path(source) / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        return
    theirs = AutoTokenizer.from_pretrained(source).get_vocab()
    for token, index in tokenizer.get_vocab().items():
        if theirs.get(token, index) != index:
            raise ValueError(
                f"critic_init: {source!r} has token {token!r} at {theirs[token]}, the policy at {index}; expected one "
                "vocabulary (the critic reads the policy's ids)"
            )


def policy_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a joint state dict that is the policy's."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}


class SyncReferenceToPolicy(SyncRefModelCallback):
    """TRL's moving reference, for a module that holds a critic beside the policy."""

    @staticmethod
    def sync_target_model(model: nn.Module, target_model: nn.Module, alpha: float) -> None:
        """Reference ← (1 − alpha) · reference + alpha · policy."""
        policy = [parameter for name, parameter in model.named_parameters() if not name.startswith(PREFIX)]
        SyncRefModelCallback.sync_target_model(SimpleNamespace(parameters=lambda: iter(policy)), target_model, alpha)


def save_critic(state: Mapping[str, Tensor], folder: str | Path) -> None:
    """Write the critic's part of a joint state dict to ``folder``; if it has none, nothing is written."""
    tensors = {
        name.removeprefix(PREFIX): tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if name.startswith(PREFIX)
    }
    if tensors:
        save_file(tensors, Path(folder) / CRITIC_FILE, metadata={"format": "pt"})


def load_critic(critic: Critic, folder: str | Path) -> None:
    """Read what ``save_critic`` wrote.

    Raises:
        ValueError: there is no such file, or its weights do not fit this critic.
    """
    path = Path(folder) / CRITIC_FILE
    if not path.exists():
        raise ValueError(
            f"{path}: not found; expected a checkpoint of ProcessPPOTrainer (was it saved by another trainer?)"
        )
    try:
        critic.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: does not fit this critic; were critic or critic_init changed? {error}") from error
