"""Every private name of TRL, transformers, accelerate and torch that the trainers touch: here, and nowhere else.

Private names move without notice. ``SEAM`` lists each with the reason why we need it and what breaks without it; a
contract test holds the list against the installed libraries, and against the rest of our code, which may use none.

A private method is overridden in the trainer class itself, where Python wants it (``kind="overridden"``). Everything
else goes through the functions below (``kind="used"``): what we read, set, or replace for the length of a call.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer import utils

_GRPO, _TRAINER = "trl.trainer.grpo_trainer.GRPOTrainer", "transformers.trainer.Trainer"
HEAD_PAYS_FROM = 4096  # tokens of a vocabulary


@dataclass(frozen=True)
class PrivateName:
    """A name that its library may change at any time.

    ``owner`` is the dotted path of the class or module that has it; ``kind`` is "overridden" or "used".
    """

    owner: str
    name: str
    kind: str
    reason: str
    breaks: str


SEAM = (
    # TRL's GRPO trainer: what ProcessGRPOTrainer overrides
    PrivateName(
        *(_GRPO, "_calculate_rewards", "overridden"),
        reason="the one call between sampling and advantages that has the texts: steps, scores and verdicts come here",
        breaks="nothing is split, scored or verified",
    ),
    PrivateName(
        *(_GRPO, "_generate_and_score_completions", "overridden"),
        reason="its output holds the advantages, which we replace by those of tokens",
        breaks="training goes on with TRL's advantages of whole completions",
    ),
    PrivateName(
        *(_GRPO, "_compute_loss", "overridden"),
        reason="GSPO-token's ratios, and PPO's value loss from the same forward",
        breaks="sequence-level ratios weigh all tokens alike; the critic is not trained",
    ),
    PrivateName(*(_GRPO, "_tag_names", "overridden"), reason="the model card's tags", breaks="a card without our tags"),
    PrivateName(*(_GRPO, "_name", "overridden"), reason="the model card's method", breaks="a card that says GRPO"),
    PrivateName(
        *("trl.trainer.grpo_config.GRPOConfig", "_VALID_DICT_FIELDS", "overridden"),
        reason="settings that a command line gives as JSON",
        breaks="method_kwargs and shaping_kwargs stay texts, and the configs refuse them",
    ),
    # TRL's GRPO trainer: what is read, set or called
    PrivateName(
        *(_GRPO, "_get_per_token_logps_and_entropies", "overridden"),
        reason="PPO's old log-probabilities and values; GSPO-token's place behind the forward; the way to the head",
        breaks="no PPO, no GSPO-token",
    ),
    PrivateName(
        *(_GRPO, "_metrics", "used"),
        reason="TRL logs the mean of each of its lists",
        breaks="our metrics, the guard's measures and the token count are not logged",
    ),
    PrivateName(
        *(_GRPO, "_logs", "used"),
        reason="the completions table; an evaluation on the way must leave it as it was",
        breaks="steps and step scores are missing in completions/*.parquet, and so in the report",
    ),
    PrivateName(
        *(_GRPO, "_pending_extra_logs", "used"),
        reason="what reward functions have reported for the table: the verdicts, and names that are ours",
        breaks="verdicts of reward functions are not seen; two write to one column",
    ),
    PrivateName(
        *(_GRPO, "_pending_metrics", "used"),
        reason="the same for metrics: shares of verdicts are counted by the trainer, over all ranks",
        breaks="shares of verdicts are counted twice",
    ),
    PrivateName(
        *(_GRPO, "_tokenizer", "used"),
        reason="the tokenizer, also inside a processor of images and text",
        breaks="completions cannot be decoded into steps",
    ),
    PrivateName(
        *(_GRPO, "_is_vlm", "used"),
        reason="the critic and live values read token ids only",
        breaks="a policy that reads images would be trained as if there were none",
    ),
    PrivateName(
        *(_GRPO, "_tokenize_prompts", "used"),
        reason="live values go on from the prompt's tokens as the policy reads them",
        breaks="no live Monte-Carlo values",
    ),
    PrivateName(
        *(_GRPO, "_generate", "overridden"),
        reason="the verifier and a judge begin as soon as completions are there; held-out accuracy and the teacher's "
        "check sample as training does, and ask neither PRM nor loss",
        breaks="scoring waits for TRL's own work; no held-out accuracy on one's own data",
    ),
    PrivateName(
        *(_GRPO, "_dist", "used"),
        reason="FSDP gives whole parameters to generate with; live values sample outside TRL's own generation",
        breaks="no live Monte-Carlo values under FSDP",
    ),
    PrivateName(
        *(_GRPO, "_buffered_inputs", "used"),
        reason="rollouts that wait to be trained on; a rollback throws them away",
        breaks="the weights that are back train on rollouts of the rejected ones",
    ),
    PrivateName(
        *(_GRPO, "_last_loaded_step", "used"),
        reason="the update whose weights vLLM has; a rollback, or an evaluation that is undone, changes them",
        breaks="vLLM samples with the rejected weights",
    ),
    PrivateName(
        *("trl.generation.vllm_generation.VLLMGeneration", "_iter_named_params", "used"),
        reason="the weights sent to vLLM, of which the critic is none",
        breaks="vLLM refuses the critic's weights, so no PPO with vLLM",
    ),
    PrivateName(
        *("trl.trainer.utils", "_use_triton", "used"),
        reason="TRL's fused head asks it whether to score the completions alone, which it does not do on a CPU",
        breaks="on a CPU the head projects prompts and padding too, at several times the cost",
    ),
    # transformers' trainer
    PrivateName(
        *(_TRAINER, "_save_checkpoint", "overridden"),
        reason="what a method remembers belongs to a checkpoint; a run that loses its PRM server saves one at once",
        breaks="a resumed method has forgotten; updates are lost with the server",
    ),
    PrivateName(
        *(_TRAINER, "_load_optimizer_and_scheduler", "overridden"),
        reason="the one place that is passed on resuming under every backend",
        breaks="a resumed method has forgotten",
    ),
    PrivateName(
        *(_TRAINER, "_save", "overridden"),
        reason="the policy's checkpoint holds no critic; the critic has a file beside it",
        breaks="policies with a critic inside, which nobody can load",
    ),
    PrivateName(
        *(_TRAINER, "_load_from_checkpoint", "overridden"),
        reason="brings the critic back from its file",
        breaks="PPO resumes with a new critic",
    ),
    PrivateName(
        *(_TRAINER, "_issue_warnings_after_load", "overridden"),
        reason="the critic is missing in the policy's checkpoint by intent",
        breaks="a false warning on resuming PPO",
    ),
    PrivateName(
        *(_TRAINER, "_get_num_items_in_batch", "overridden"),
        reason="PRM training with loss pqm is a mean over rollouts, not over labelled steps",
        breaks="pqm's loss depends on how a batch is cut into micro-batches",
    ),
    PrivateName(
        *(_TRAINER, "_get_train_sampler", "overridden"),
        reason="batch_rebalance shuffles by a seed of its own, the same in every run",
        breaks="all PRM training runs see one order of rows",
    ),
    PrivateName(
        *(_TRAINER, "_get_output_dir", "used"),
        reason="where the checkpoint goes, hyperparameter search included",
        breaks="the method's memory lies outside the checkpoint",
    ),
    PrivateName(
        *(_TRAINER, "_eval_dataloaders", "used"),
        reason="with persistent workers it keeps the loader of the first data set evaluated for all others",
        breaks="an evaluation on the way decides which rows the next evaluation reads",
    ),
    PrivateName(
        *(_TRAINER, "_loss_shifts_labels", "used"),
        reason="labels of steps are counted unshifted; a language model's are shifted by one",
        breaks="the PRM's loss is divided by too few steps",
    ),
    PrivateName(
        *(_TRAINER, "_prepare_inputs", "used"),
        reason="moves a batch to the device, in an evaluation step of our own",
        breaks="no evaluation of a PRM in training",
    ),
    # torch
    PrivateName(
        *("torch.optim.lr_scheduler.LambdaLR", "_last_lr", "used"),
        reason="what get_last_lr gives and the trainer logs, where we change the rates of a schedule",
        breaks="wrong learning rates in the log; the rates themselves are right",
    ),
)


# --- logging ----------------------------------------------------------------------------------------------------------


def metrics_of(trainer: Any, mode: str) -> dict[str, list[float]]:
    """Name → values since the last row of the log; TRL logs their mean. ``mode`` is "train" or "eval"."""
    return trainer._metrics[mode]


def tables_of(trainer: Any) -> dict[str, Any]:
    """The columns of the completions table; those that are not TRL's lie in ``["extra"]``."""
    return trainer._logs


@contextmanager
def evaluation_logs_kept(trainer: Any) -> Iterator[None]:
    """What waits to be logged of an evaluation, and the completions table, are afterwards what they were."""
    metrics, kept, tables = trainer._metrics, _copied(trainer._metrics["eval"]), _copied(trainer._logs)
    try:
        yield
    finally:
        metrics["eval"], trainer._logs = kept, tables


def _copied(containers: Any) -> Any:
    """A copy of a mapping of lists, queues and mappings of them; what these hold is shared."""
    copies = containers.copy()  # a defaultdict stays one
    for name, value in copies.items():
        copies[name] = _copied(value) if isinstance(value, dict) else value.copy()
    return copies


def reported_by_rewards(trainer: Any) -> tuple[dict[str, list], dict[str, list]]:
    """(columns, metrics) that reward functions have reported for this batch; removing one takes it over."""
    return trainer._pending_extra_logs, trainer._pending_metrics


# --- sampling ---------------------------------------------------------------------------------------------------------


def tokenizer_of(trainer: Any) -> Any:
    """The policy's tokenizer, also where the processing class is a processor of images and text."""
    return trainer._tokenizer


def reads_images(trainer: Any) -> bool:
    """Whether the policy reads images too."""
    return trainer._is_vlm


def prompt_ids(trainer: Any, prompts: list[Any]) -> list[list[int]]:
    """The tokens of prompts (texts or messages) as the policy reads them."""
    return trainer._tokenize_prompts(prompts)[0]


def sampled_ids(trainer: Any, prompts: list[Any]) -> list[list[int]]:
    """The tokens of one completion of every prompt, sampled as in training."""
    return trainer._generate(prompts)[1]


def whole_parameters(trainer: Any) -> AbstractContextManager:
    """Within it FSDP's parameters are whole, as ``generate`` needs them; of no effect elsewhere."""
    return trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False)


def forget_rollouts(trainer: Any) -> None:
    """Make TRL sample anew, with the weights that the trainer has now.

    It keeps a generation batch for several micro-batches, and vLLM's copy of the weights until the update's number
    changes: an evaluation may have just made that copy.
    """
    trainer._buffered_inputs = None
    trainer._last_loaded_step = -1


@contextmanager
def vllm_update_kept(trainer: Any) -> Iterator[None]:
    """The update whose weights vLLM has is afterwards what it was, so that weights that are put back are sent again."""
    kept = getattr(trainer, "_last_loaded_step", None)  # without vLLM there is none
    try:
        yield
    finally:
        if kept is not None:
            trainer._last_loaded_step = kept


def send_to_vllm_only(generation: Any, is_sent: Callable[[str], bool]) -> None:
    """From now on ``trainer.vllm_generation`` gets only the weights whose names pass; TRL has no setting for that."""
    everything = generation._iter_named_params

    def chosen():
        for name, parameter in everything():
            if is_sent(name):
                yield name, parameter

    generation._iter_named_params = chosen


# --- losses -----------------------------------------------------------------------------------------------------------


def token_log_probs(
    trainer: Any, input_ids: Tensor, attention_mask: Tensor, num_tokens: int, *, batch_size: int
) -> Tensor:
    """(B, T) log-probabilities of the last ``num_tokens`` tokens by the trainer's policy, in batches of rows."""
    tokens = trainer.model, input_ids, attention_mask, num_tokens
    return trainer._get_per_token_logps_and_entropies(*tokens, batch_size=batch_size)[0]


@contextmanager
def after_forward(trainer: Any, then: Callable[[Tensor], None]) -> Iterator[None]:
    """Within it ``then`` is called with the (B, T) log-probabilities right behind TRL's forward of the policy.

    TRL's loss reads the old log-probabilities after it, so they can be replaced here by some that depend on it.
    """
    name = "_get_per_token_logps_and_entropies"
    own, forward = vars(trainer).get(name), getattr(trainer, name)

    def forward_and_then(*args, **kwargs):
        log_probs, *others = forward(*args, **kwargs)
        then(log_probs)
        return log_probs, *others

    setattr(trainer, name, forward_and_then)
    try:
        yield
    finally:
        if own is None:
            delattr(trainer, name)
        else:
            setattr(trainer, name, own)


@contextmanager
def loss_setting(trainer: Any, name: str, value: Any) -> Iterator[None]:
    """Within it TRL's loss reads ``value`` for a setting of the trainer; afterwards it is what it was.

    TRL's ``_compute_loss`` takes them from the trainer. PPO has its KL in the reward: with ``beta`` at 0 the loss adds
    no second one; outside, ``beta`` has to stay, as TRL asks the reference model only where it is not 0.
    """
    before = getattr(trainer, name)
    setattr(trainer, name, value)
    try:
        yield
    finally:
        setattr(trainer, name, before)


@contextmanager
def completions_only_head(vocabulary: int) -> Iterator[None]:
    """Within it TRL's fused head projects on a CPU, too, only the tokens that are scored.

    Only this module's name is replaced: TRL's kernels ask one of their own, and go on without Triton on a CPU. A small
    ``vocabulary`` is left to TRL: nothing is saved there, and sums over fewer rows round otherwise in the last bit.
    """
    theirs = utils._use_triton
    if vocabulary >= HEAD_PAYS_FROM:
        utils._use_triton = lambda device: device.type == "cpu" or theirs(device)
    try:
        yield
    finally:
        utils._use_triton = theirs


# --- training and checkpoints -----------------------------------------------------------------------------------------


def checkpoint_folder(trainer: Any, trial: Any) -> Path:
    """Where the trainer writes the checkpoint of this update."""
    return Path(trainer._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"


def save_checkpoint(trainer: Any) -> None:
    """Write a checkpoint now, whatever the save strategy."""
    trainer._save_checkpoint(trainer.model, trial=None)


@contextmanager
def eval_loaders_kept(trainer: Any) -> Iterator[None]:
    """Evaluation loaders that persist are put away, and are afterwards those of before."""
    kept = vars(trainer).pop("_eval_dataloaders", None)
    try:
        yield
    finally:
        vars(trainer).pop("_eval_dataloaders", None)
        if kept is not None:
            trainer._eval_dataloaders = kept


def count_labels_unshifted(trainer: Any) -> None:
    """The trainer divides its loss by the number of labels as they are, and not of those that a next token has."""
    trainer._loss_shifts_labels = False


def prepared(trainer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch on the trainer's device."""
    return trainer._prepare_inputs(inputs)


def tell_rates(scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Make ``get_last_lr`` say what the optimizer's groups have; for who has changed them outside ``step``."""
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
