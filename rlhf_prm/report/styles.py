"""One colour and dash for each method, the same on every page.

A style is a number, 0 … 23, for a method: eight colours with three dashes each. Beside them stand ``good``, ``bad`` and
``soft`` for right, wrong and undecided, and ``part0`` … ``part2`` for the parts of one thing, so that no colour of a
method means anything else. The colours themselves are variables of ``report.css``, one set for light and one for dark.
"""

import zlib
from collections.abc import Iterable

STYLES, COLOURS = 24, 8
# The order is the mapping: a method that is added goes to the end, so that pages of before keep their colours.
METHODS = (
    *("immediate", "outcome", "pure", "potential", "grpo_ps", "vppo", "progress", "clip_delta"),
    *("gamma_sum", "pure_strict", "papo", "progrs", "prof", "verigate"),
    *("trusted", "vine", "capo", "fapo", "srar", "gigpo", "mt_grpo", "gtpo"),
)
DASHES = (
    *("solid", "dashed", "dotted", "dashdot", "solid", "dashed", "dotted", "dashdot"),
    *("dashed", "dotted", "dashdot", "solid", "dashed", "dashdot", "solid", "solid"),
    *("dotted", "dashdot", "solid", "dashed", "dotted", "dotted", "dashdot", "dotted"),
)
OTHERS = {
    "good": ("--good", "solid"),
    "bad": ("--bad", "dashed"),
    "soft": ("--soft", "solid"),
    "part0": ("--fg", "solid"),
    "part1": ("--soft", "dashed"),
    "part2": ("--soft", "dotted"),
}


def look_of(style: int | str) -> tuple[str, str]:
    """A style's colour, as a variable of the style sheet, and the dash of its lines."""
    return OTHERS[style] if isinstance(style, str) else (f"--c{style % COLOURS}", DASHES[style % STYLES])


def style_of(method: str) -> int:
    """The style of a method; one that is not listed has its own by its name."""
    return METHODS.index(method) if method in METHODS else zlib.crc32(method.encode()) % STYLES


def styles_of(subjects: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Label → style for (label, method) pairs that are shown together.

    Each has its method's style. Where two would have the same one (settings of one method), the first keeps it and the
    others take free ones; past ``STYLES`` labels they repeat.
    """
    methods: dict[str, str] = {}
    for label, method in subjects:
        methods.setdefault(label, method)
    styles: dict[str, int] = {}
    for label, method in methods.items():  # first those that can have what is theirs
        if style_of(method) not in styles.values():
            styles[label] = style_of(method)
    for label, method in methods.items():
        if label not in styles:
            order = [(style_of(method) + shift) % STYLES for shift in range(STYLES)]
            styles[label] = next((style for style in order if style not in styles.values()), style_of(method))
    return styles
