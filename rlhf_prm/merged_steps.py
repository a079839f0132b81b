"""Merges neighbouring steps until there are at most a given number.

Long reasoning has hundreds of paragraphs, most of one line; a score for each is expensive and says little. What is
merged depends only on the text around it, and on lengths only by size class, so a small change of the text moves few of
the other boundaries.
"""

import heapq
import math
import re
import zlib

Cut = tuple[int, int, int]  # start, end of the content, end of the separator, in characters
RULES = ("length", "breaks")
_CLASSES_PER_DOUBLING = 2
_BREAK = re.compile(
    r"\s*(?:[#*>\-\s]*)(?:wait|hmm+|alternatively|but|however|actually|so|therefore|thus|hence|now|next|then|finally|"
    r"first|second|third|let me|let's|to (?:check|verify|confirm)|check|verify|in (?:summary|conclusion)|step|case|"
    r"okay|ok|alright|maybe|perhaps|another|back to|on the other hand|the answer)\b",
    re.IGNORECASE,
)


def merged(cuts: list[Cut], text: str, limit: int, rule: str, wall: int | None = None) -> list[Cut]:
    """The cuts with neighbours joined until there are at most ``limit``.

    Each time the two neighbours that are shortest together are joined. The time is O(K log K).

    Args:
        rule: "length", or "breaks": where a step begins with a word that turns the reasoning ("Wait", "So",
            "Alternatively"), it is joined to the one before only when no other boundary is left.
        wall: the character that no step goes across.
    """
    count = len(cuts)
    if count <= limit:
        return cuts
    after = [*range(1, count), None]  # the step that follows, of those that are left
    before: list[int | None] = [None, *range(count - 1)]
    ends = [end for *_, end in cuts]
    version = [0] * count

    def entry(left: int) -> tuple[tuple[bool, int, int], int, int, int] | None:
        """The heap's entry of the boundary after ``left``; the least entry is removed first."""
        right = after[left]
        if right is None or ends[left] == wall:
            return None
        start = cuts[right][0]
        size_class = int(_CLASSES_PER_DOUBLING * math.log2(max(1, ends[right] - cuts[left][0])))
        turns = rule == "breaks" and _BREAK.match(text, start, start + 80) is not None
        tie = zlib.crc32(text[start : start + 80].encode("utf-8", "replace"))
        return (turns, size_class, tie), left, version[left], right

    heap = [one for left in range(count) if (one := entry(left))]
    heapq.heapify(heap)
    left_over = count
    while left_over > limit and heap:
        _, left, seen, right = heapq.heappop(heap)
        if version[left] != seen or after[left] != right:
            continue
        ends[left], after[left] = ends[right], after[right]
        version[left] += 1
        version[right] = -1
        if (following := after[left]) is not None:
            before[following] = left
        left_over -= 1
        for changed in (before[left], left):
            if changed is not None:
                version[changed] += 1
                if one := entry(changed):
                    heapq.heappush(heap, one)
    content_end = {end: content for _, content, end in cuts}
    return [(cuts[k][0], content_end[ends[k]], ends[k]) for k in range(count) if version[k] >= 0]
