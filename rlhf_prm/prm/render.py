"""Renderers: a problem and its steps as the token ids that a family of PRMs was trained on.

Each takes (texts, family, problem, steps) and gives a :class:`~rlhf_prm.prm.texts.Rendered`. Where a family's own code
tokenises one long string, so does the renderer, up to the tags, which are put in as ids.
"""

import re

from rlhf_prm.prm.texts import Rendered, Texts

_STEP_PREFIX = re.compile(r"\s*Step \d+")


def numbered(steps: list[str]) -> list[str]:
    """The steps, with "Step k: " before those that do not begin with it."""
    return [step if _STEP_PREFIX.match(step) else f"Step {k}: {step}" for k, step in enumerate(steps, start=1)]


def _with_tags(head: list[int], pieces: list[list[int]], tag_id: int) -> Rendered:
    ids, ends = list(head), []
    for piece in pieces:
        ids += [*piece, tag_id]
        ends.append(len(ids) - 1)
    return Rendered(ids, ends, len(head))


def chat_then_tags(texts: Texts, family, problem: str, steps: list[str]) -> Rendered:
    """A chat whose assistant turn is the steps, each followed by the tag; read at the tag.

    Without a chat template (a base model's tokenizer), the turn comes after the tokenizer's first tokens (BOS), the
    problem and a line break.
    """
    if texts.has_chat_template:
        system = (("system", family.system_prompt),) if family.system_prompt else ()
        before, between, _ = texts.chat_pieces((*system, ("user", "{0}"), ("assistant", "{1}")))
        problem_ids, *pieces = texts.plain_ids([problem, *steps])
        head = [*texts.template_ids(before), *problem_ids, *texts.template_ids(between)]
    else:
        problem_ids, *pieces = texts.plain_ids([problem + "\n", *steps])
        head = [*texts.first_ids, *problem_ids]
    return _with_tags(head, pieces, texts.tag_id)


def pieces_then_tags(texts: Texts, family, problem: str, steps: list[str]) -> Rendered:
    """The problem, then each step and the tag, all tokenised separately (as TRL's PRM trainer did); read at the tag."""
    head, *pieces = texts.plain_ids([problem + family.after_problem, *steps])
    bos = texts.tokenizer.bos_token_id
    return _with_tags(head if bos is None else [bos, *head], pieces, texts.tag_id)


def lines_then_tags(texts: Texts, family, problem: str, steps: list[str]) -> Rendered:
    """As :func:`pieces_then_tags`, for the lines of the whole answer; a step is read at the tag of its last line.

    The answer is the steps with ``family.between_steps`` between them, cut at every tag: a blank line is one more
    tag, between steps and inside them.
    """
    lines_of = [(step + family.between_steps).split(texts.tag) for step in steps[:-1]] + [steps[-1].split(texts.tag)]
    for lines in lines_of[:-1]:
        lines.pop()  # the text after the last tag of ``between_steps`` is the next step
    rendered = pieces_then_tags(texts, family, problem, [line for lines in lines_of for line in lines])
    ends, done = [], 0
    for step, lines in zip(steps, lines_of, strict=True):
        ends.append(rendered.ends[done + step.rstrip(texts.tag).count(texts.tag)])
        done += len(lines)
    return Rendered(rendered.ids[: ends[-1] + 1], ends, rendered.start)


def text_with_tags(texts: Texts, family, problem: str, steps: list[str]) -> Rendered:
    """One text: the problem, a blank, then a line per step that ends with the tag; tokenised whole, read at the tag.

    Raises ``ValueError`` if the tokenizer joins a tag with the text around it.
    """
    if family.numbered:
        steps = numbered(steps)
    if texts.tag_is_added:
        head, *pieces = texts.plain_ids([problem + family.after_problem, *steps])
        return _with_tags([*texts.first_ids, *head], pieces, texts.tag_id)
    found = _tokens_at_tags(texts, problem, steps)
    if found is None:  # the tag is spelled out in the problem or a step
        found = _tokens_at_tags(texts, texts.broken(problem), [texts.broken(step) for step in steps])
    if found is None:
        raise ValueError(
            f"the tag {texts.tag!r} does not come out as its own token {texts.tag_id} at the step ends of "
            f"{problem[:60]!r}: this tokenizer is not the one the family {family.name} expects."
        )
    return found


def _tokens_at_tags(texts: Texts, problem: str, steps: list[str]) -> Rendered | None:
    text, tag_ends = problem + " ", []
    start_character = len(text)
    for step in steps:
        text += f"{step} {texts.tag.strip() or texts.tag}"
        tag_ends.append(len(text))
        text += "\n"
    ids, offsets = texts.ids_and_offsets(text)
    token_of_end = {end: token for token, (start, end) in enumerate(offsets) if end > start}
    ends = [token_of_end.get(end) for end in tag_ends]
    if None in ends:
        return None
    if texts.tag.strip() and [token for token, i in enumerate(ids) if i == texts.tag_id] != ends:
        return None
    start = next(token for token, (_, end) in enumerate(offsets) if end > start_character)
    return Rendered(ids[: ends[-1] + 1], ends, start)


def turns(texts: Texts, family, problem: str, steps: list[str]) -> Rendered:
    """A chat turn per step: the user writes the step (first the problem and a blank), the assistant answers ``good``.

    It is read one token before the answer, at the position that predicts it.
    """
    head, between, _ = texts.chat_pieces(
        (("user", "{0}"), ("assistant", family.good), ("user", "{1}"), ("assistant", family.good))
    )
    between_ids = list(texts.template_ids(between))
    good_id = texts.token_id(family.good, "good answer")
    if between_ids.count(good_id) != 1:
        raise ValueError(f"the chat template does not keep the answer {family.good!r} as one token: got {between_ids}.")
    answer = between_ids.index(good_id)
    pieces = texts.plain_ids([f"{problem} {steps[0].strip()}", *(step.strip() for step in steps[1:])])
    ids, ends = list(texts.template_ids(head)), []
    start = len(ids)
    for piece in pieces:
        ids += [*piece, *between_ids]
        ends.append(len(ids) - len(between_ids) + answer - 1)
    return Rendered(ids[: ends[-1] + 1], ends, start)


def chat_of_numbered_steps(texts: Texts, family, problem: str, steps: list[str]) -> Rendered:
    """A chat whose assistant turn is "Step k: ..." joined by blank lines; read at the last token of each step."""
    before, between, _ = texts.chat_pieces((("user", "{0}"), ("assistant", "{1}")))
    answer, step_ends = "", []
    for step in numbered(steps):
        answer += ("\n\n" if answer else "") + texts.broken(step)
        step_ends.append(len(answer))
    (problem_ids, _), (ids, offsets) = texts.plain_ids_and_offsets([problem, answer])
    head = [*texts.template_ids(before), *problem_ids, *texts.template_ids(between)]
    last_token = [max(t for t, (start, _) in enumerate(offsets) if start < end) for end in step_ends]
    ends = [len(head) + token for token in last_token]
    return Rendered([*head, *ids][: ends[-1] + 1], ends, len(head))
