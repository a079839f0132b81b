"""Cuts rollouts longer than a PRM's context into windows: the problem, some earlier steps, and new steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf_prm.prm.texts import Rendered

PAST_CONTEXT = ("nan", "window")
_MORE = 16  # steps that are tried beyond twice as many as the last window had; rendering more would be wasted


@dataclass(frozen=True)
class Window:
    """The part of a rollout that is read at once.

    ``first`` is the step that its first end belongs to; the scores at the first ``skip`` ends are dropped, because an
    earlier window has scored those steps with more context.
    """

    rendered: Rendered
    first: int = 0
    skip: int = 0

    @property
    def new(self) -> range:
        """The steps that it scores."""
        return range(self.first + self.skip, self.first + len(self.rendered.ends))


def windows(render: Callable[[list[str]], Rendered], steps: Sequence[str], whole: Rendered) -> list[Window]:
    """The windows of one rollout: each step is scored once, by the first window that holds it.

    After the first window, the steps that are read again fill about half of the context that the problem leaves
    free. A step that does not fit beside the problem is in no window.

    Args:
        render: steps → the problem and these steps, cut to the context.
        whole: ``render(steps)``.
    """
    found = [Window(whole)] if whole.ends else []
    done, sizes = len(whole.ends), _sizes(whole)
    while done < len(steps):
        again = _fill_half(sizes)
        for back in dict.fromkeys((again, 0)):
            first = done - back
            rendered = render(list(steps[first : done + 2 * len(sizes) + _MORE]))
            if len(rendered.ends) > back:
                break
        else:
            done, sizes = done + 1, []  # this step alone is too long
            continue
        found.append(Window(rendered, first, back))
        done, sizes = first + len(rendered.ends), _sizes(rendered)
    return found


def _sizes(rendered: Rendered) -> list[int]:
    """Tokens of each step."""
    return [end - before for before, end in zip([rendered.start - 1, *rendered.ends], rendered.ends, strict=False)]


def _fill_half(sizes: list[int]) -> int:
    """How many of the last steps take at most half of the tokens."""
    left, count = sum(sizes) // 2, 0
    for size in reversed(sizes):
        left -= size
        if left < 0:
            break
        count += 1
    return count
