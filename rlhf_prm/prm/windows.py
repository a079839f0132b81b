"""Rollouts longer than a PRM's context in windows: the problem, and the steps before that half a context holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf_prm.prm.texts import Rendered

PAST_CONTEXT = ("nan", "window")
_MORE = 16  # steps that are tried beyond twice as many as the window before had: rendering more is work thrown away


@dataclass(frozen=True)
class Window:
    """What is read at once of one rollout.

    ``first`` is the step that its first end belongs to; the scores at the first ``skip`` ends are dropped, as a window
    before has those steps with more in front of them.
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

    A window behind the first begins so that the steps which are read again fill about half of what the problem leaves
    of the context. A step that does not fit beside the problem is in none.

    Args:
        render: steps → these behind the problem, cut to the context.
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
            done, sizes = done + 1, []  # too long by itself
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
