"""The only file that touches private names of TRL, transformers, accelerate and torch.

Private names change without notice. ``trl_names.SEAM`` lists each, why we need it and what breaks without
it; a contract test compares the list with the installed libraries, and with the rest of our code, which may use
none.

A private method is overridden in the trainer class itself, as Python requires (``kind="overridden"``). Everything
else goes through the functions below (``kind="used"``): what we read, set, or replace for the length of a call.
"""

import functools
import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer import grpo_trainer, utils

HEAD_PAYS_FROM = 4096  # tokens of a vocabulary


# --- logging ----------------------------------------------------------------------------------------------------------


def metrics_of(trainer: Any, mode: str) -> dict[str, list[float]]:
    """Name → values since the last row of the log; TRL logs their mean. ``mode`` is "train" or "eval"."""
    return trainer._metrics[mode]


def tables_of(trainer: Any) -> dict[str, Any]:
    """The columns of the completions table; those that are not TRL's are in ``["extra"]``."""
    return trainer._logs


@contextmanager
def evaluation_logs_kept(trainer: Any) -> Iterator[None]:
    """Restore afterwards the completions table and the evaluation metrics that are not logged yet."""
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
    """(columns, metrics) that reward functions have reported for this batch; an entry removed here is not logged."""
    return trainer._pending_extra_logs, trainer._pending_metrics


# --- sampling ---------------------------------------------------------------------------------------------------------


@contextmanager
def texts_shortened(shorter: Callable[[list[Any]], list[Any]]) -> Iterator[None]:
    """Inside the context TRL gathers its prompts and completions after ``shorter`` was applied to them.

    These are the first two lists that ``_generate_and_score_completions`` gathers as objects by the name of its own
    module; ``tests/rl/test_parts.py`` holds that.
    """
    theirs, calls = grpo_trainer.gather_object, itertools.count()

    def gathered(items: list[Any]) -> list[Any]:
        return theirs(shorter(items) if next(calls) < 2 else items)

    grpo_trainer.gather_object = gathered
    try:
        yield
    finally:
        grpo_trainer.gather_object = theirs


def tokenizer_of(trainer: Any) -> Any:
    """The policy's tokenizer, also if the processing class is a processor of images and text."""
    return trainer._tokenizer


def prompts_of_async(tokenizer: Any, template_keywords: dict[str, Any] | None, train_dataset: Any) -> SimpleNamespace:
    """What ``rendered`` and its callers read of a trainer, for AsyncGRPO's: text only, in the tokenizer's template."""
    return SimpleNamespace(
        train_dataset=train_dataset,
        chat_template=None,
        chat_template_kwargs=template_keywords or {},
        _tokenizer=tokenizer,
        _is_vlm=False,
    )


def reads_images(trainer: Any) -> bool:
    """Whether the policy reads images too."""
    return trainer._is_vlm


def rendered(trainer: Any, messages: list[dict[str, Any]]) -> str:
    """The text of a prompt's messages in the trainer's chat template, up to where the policy begins."""
    template = {"chat_template": trainer.chat_template, **trainer.chat_template_kwargs}
    return tokenizer_of(trainer).apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **template)


def prompt_ids(trainer: Any, prompts: list[Any]) -> list[list[int]]:
    """The tokens of prompts (texts or messages) as the policy reads them."""
    return trainer._tokenize_prompts(prompts)[0]


def generate(trainer: Any, prompts: list[Any]) -> tuple:
    """What TRL's ``_generate`` gives for these prompts, sampled as in training; for a policy without tools."""
    return trainer._generate(prompts)


def generate_and_score(trainer: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """TRL's inputs of a loss from rows of a dataset; it draws environments before it generates."""
    return trainer._generate_and_score_completions(rows)


def kinds_of_environments(trainer: Any) -> list[Any]:
    """One instance of every kind of environment; empty if there are none."""
    return [pool[0] for pool in trainer._environment_pool.values()] if trainer.environment_factories else []


def hide_from_policy(trainer: Any, names: Collection[str]) -> None:
    """Keep these methods of environments from being tools: they are neither offered to the policy nor called for it.

    Call it once the trainer is built, and before each generation, because TRL then collects the tools again.
    """
    if not trainer.environment_factories:
        return
    kept = {name: [tool for tool in tools if tool.__name__ not in names] for name, tools in trainer._env_tools.items()}
    trainer._env_tools = kept
    trainer.tools = [tool for tool in trainer.tools if tool.__name__ not in names]
    for tools in getattr(trainer, "_sync_tool_dicts", []):
        for name in names:
            tools.pop(name, None)


def whole_parameters(trainer: Any) -> AbstractContextManager:
    """Inside the context FSDP's parameters are whole, as ``generate`` needs them; without FSDP it has no effect."""
    return trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False)


def forget_rollouts(trainer: Any) -> None:
    """Make TRL sample again, with the weights that the trainer has now.

    It keeps a generation batch for several micro-batches, and vLLM's copy of the weights until the update's number
    changes: an evaluation may have just made that copy.
    """
    trainer._buffered_inputs = None
    trainer._last_loaded_step = -1


@contextmanager
def vllm_update_kept(trainer: Any) -> Iterator[None]:
    """Restore afterwards the record of which update's weights vLLM has, so that restored weights are sent again."""
    kept = getattr(trainer, "_last_loaded_step", None)  # without vLLM there is none
    try:
        yield
    finally:
        if kept is not None:
            trainer._last_loaded_step = kept


def send_to_vllm_only(generation: Any, is_sent: Callable[[str], bool]) -> None:
    """Send ``trainer.vllm_generation`` only the weights whose names pass from now on; TRL has no setting for it."""
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
    """Inside the context ``then`` is called with the (B, T) log-probabilities right after TRL's forward of the policy.

    TRL's loss reads the old log-probabilities later, so they can be replaced here by ones that depend on the forward.
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
    """Inside the context TRL's loss reads ``value`` for a setting of the trainer, which is restored afterwards.

    TRL's ``_compute_loss`` takes settings from the trainer. PPO has its KL in the reward: with ``beta`` at 0 the loss
    adds no second one; outside, ``beta`` has to stay, as TRL asks the reference model only where it is not 0.
    """
    before = getattr(trainer, name)
    setattr(trainer, name, value)
    try:
        yield
    finally:
        setattr(trainer, name, before)


def use_rollout_loop(worker: Any, loop: type) -> None:
    """Make the process of this AsyncGRPO rollout worker run ``loop`` when it is started."""
    worker._loop_cls = loop


def pack_token_advantages() -> None:
    """Make AsyncGRPO pack an advantage per token for samples that have ``tokens``; others stay as before.

    TRL's packing repeats one number for each trained token of a sample, in order.
    """
    from trl.experimental.async_grpo.packing import TreeRow

    theirs = TreeRow.pack
    if getattr(theirs, "takes_tokens", False):
        return

    @functools.wraps(theirs)
    def pack(row: Any) -> dict[str, Tensor]:
        packed, found = theirs(row), []
        for sample, nodes in zip(row.samples, row.sample_nodes, strict=True):
            trained = [place for place in range(1, len(nodes)) if sample["completion_mask"][place]]
            of_tokens = getattr(sample["advantage"], "tokens", None)
            found += [float(sample["advantage"] if of_tokens is None else of_tokens[place]) for place in trained]
        return packed | {"advantages": torch.tensor(found, dtype=torch.float32)}

    pack.takes_tokens = True  # type: ignore[attr-defined]
    TreeRow.pack = pack


@contextmanager
def completions_only_head(vocabulary: int) -> Iterator[None]:
    """Inside the context TRL's fused head projects only the tokens that are scored, on a CPU too.

    Only this module's name is replaced: TRL's kernels use their own and still run without Triton on a CPU. A small
    ``vocabulary`` is left to TRL: it saves nothing, and sums over fewer rows differ in the last bit.
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
    """Set persistent evaluation loaders aside, and restore them afterwards."""
    kept = vars(trainer).pop("_eval_dataloaders", None)
    try:
        yield
    finally:
        vars(trainer).pop("_eval_dataloaders", None)
        if kept is not None:
            trainer._eval_dataloaders = kept


def count_labels_unshifted(trainer: Any) -> None:
    """Make the trainer divide its loss by the number of unshifted labels, not of those shifted by one token."""
    trainer._loss_shifts_labels = False


def prepared(trainer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch on the trainer's device."""
    return trainer._prepare_inputs(inputs)


def tell_rates(scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Make ``get_last_lr`` return the rates of the optimizer's groups after they were changed outside ``step``."""
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
