"""A rollout cut into the policy's turns, and these into steps; what tools and environments wrote stands between them.

    tokens   q u e r y | r e s u l t | 4 2 . ⏎⏎ d o n e
    mask     1 1 1 1 1   0 0 0 0 0 0   1 1 1  1  1 1 1 1
    turn     ─── 0 ───                 ─────── 1 ───────
    step     ─── 0 ───                 ── 1 ──── ── 2 ──

A step never goes on past a 0. The tokens under 0 belong to no step: they are context for whoever scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rlhf_prm.steps import StepSplitter, ToolResult, step_lengths

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Told:
    """What the sampling tells of one rollout beside its token ids.

    ``policy_mask`` is 1 where the policy wrote the token, 0 where a tool or an environment did; None = all are the
    policy's. ``results`` are the texts of the runs of 0, in order; None = their tokens decoded. ``answer`` is what a
    verifier reads; None = the policy's last turn.
    """

    policy_mask: list[int] | None = None
    results: list[str] | None = None
    answer: str | None = None


@dataclass(frozen=True)
class CutRollout:
    """A rollout in turns and steps.

    ``steps``, ``lengths`` (the policy's tokens in each) and ``turn_of_step`` have one entry per step, and there is at
    least one. ``turns`` are the texts of the policy's turns. ``results`` are (number of turns before it, text).
    ``answer`` is what a verifier reads.
    """

    turns: list[str]
    steps: list[str]
    lengths: list[int]
    turn_of_step: list[int]
    results: list[tuple[int, str]]
    answer: str

    @property
    def text(self) -> str:
        """All that the policy wrote, and nothing else."""
        return "\n\n".join(self.turns)

    @property
    def results_after_steps(self) -> list[tuple[int, str]]:
        """The results as (number of steps before it, text)."""
        return [(sum(turn < before for turn in self.turn_of_step), text) for before, text in self.results]

    @property
    def shown_steps(self) -> list[str]:
        """The steps with the tool results between them, as ``ToolResult``: what a scorer of steps reads."""
        return _between(self.steps, self.results_after_steps)

    @property
    def shown_turns(self) -> list[str]:
        """The turns with the tool results between them: what a scorer of turns reads."""
        return _between(self.turns, self.results)


def cut_rollout(token_ids: Sequence[int], tokenizer: Any, splitter: StepSplitter, told: Told) -> CutRollout:
    """The turns and steps of one completion.

    Raises:
        ValueError: a mask of another length, or with other values than 0 and 1; not one result per run of 0.
    """
    ids = list(token_ids)
    runs = list(_runs(ids, told.policy_mask))
    results = told.results
    if results is None:
        results = [tokenizer.decode(run, skip_special_tokens=True).strip() for own, run in runs if not own]
    if len(results) != sum(not own for own, _ in runs):
        raise ValueError(
            f"tool results: got {len(results)} texts, expected one for each of the "
            f"{sum(not own for own, _ in runs)} runs of tokens that the policy did not write"
        )
    if not any(own for own, _ in runs):  # the policy wrote nothing: one empty step
        runs.append((True, []))
    cut = CutRollout([], [], [], [], [], "")
    waiting = iter(results)
    for own, run in runs:
        if not own:
            cut.results.append((len(cut.turns), next(waiting)))
            continue
        steps, lengths = step_lengths(run, tokenizer, splitter)
        cut.turn_of_step.extend([len(cut.turns)] * len(steps))
        cut.turns.append(tokenizer.decode(run, skip_special_tokens=True))
        cut.steps.extend(steps)
        cut.lengths.extend(lengths)
    answer = cut.turns[-1] if told.answer is None else told.answer
    return CutRollout(cut.turns, cut.steps, cut.lengths, cut.turn_of_step, cut.results, answer)


def told_by_trl(masks: list[list[int]] | None, completions: list, rollouts: int, *, with_tools: bool) -> list[Told]:
    """What TRL's ``_generate`` tells of every rollout.

    Args:
        masks: 1 = the policy's token; None = all are.
        with_tools: the completions are messages, those of tools among them; else they are those of a ``rollout_func``,
            whose texts do not say who wrote what.
    """
    if masks is None:
        return [Told()] * rollouts
    if not with_tools:
        return [Told(mask) for mask in masks]
    return [told_by_messages(mask, messages) for mask, messages in zip(masks, completions, strict=True)]


def told_by_messages(policy_mask: list[int], messages: Sequence[Message]) -> Told:
    """What a completion tells that TRL has sampled with tools: its mask, and its messages.

    The verifier reads the last message of the policy. What stands in a call of a tool is a question and not an answer,
    so a last message that calls one counts without its calls.
    """
    results = [
        "\n".join(_text(message["content"]) for message in group)
        for of_tool, group in groupby(messages, lambda message: message["role"] == "tool")
        if of_tool
    ]
    last = next(message for message in reversed(messages) if message["role"] != "tool")
    return Told(policy_mask, results, _text(last.get("content")) if last.get("tool_calls") else None)


def num_turns(token_ids: Sequence[int], policy_mask: Sequence[int] | None) -> int:
    """How many turns of the policy there are, at least one."""
    return max(1, sum(own for own, _ in _runs(list(token_ids), policy_mask)))


def _runs(ids: list[int], policy_mask: Sequence[int] | None) -> Iterator[tuple[bool, list[int]]]:
    """(the policy's?, tokens) of every run."""
    mask = [1] * len(ids) if policy_mask is None else list(policy_mask)
    if len(mask) != len(ids) or any(value not in (0, 1) for value in mask):
        raise ValueError(
            f"env_mask: got {len(mask)} values {sorted(set(mask))} for {len(ids)} tokens, expected one for each token: "
            "1 = the policy wrote it, 0 = a tool or an environment did"
        )
    for own, pairs in groupby(zip(mask, ids, strict=True), lambda pair: pair[0]):
        yield bool(own), [token for _, token in pairs]


def _between(own: list[str], results: list[tuple[int, str]]) -> list[str]:
    if not results:
        return own
    shown: list[str] = []
    for number in range(len(own) + 1):
        shown += [ToolResult(text) for before, text in results if before == number]
        shown += own[number : number + 1]
    return shown


def _text(content: Any) -> str:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, list):
        return "\n".join(part.get("text", f"[{part.get('type')}]") for part in content)
    return content or ""


def prompt_text(prompt: str | Sequence[Message]) -> str:
    """What the PRM reads of a prompt: the text, or the last user message."""
    if isinstance(prompt, str):
        return prompt
    content = next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
