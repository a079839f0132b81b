"""``load_judge`` makes a step scorer from a judge model's name and a few settings."""

import inspect
from collections.abc import Sequence
from typing import Any

from reward import resolve
from rlhf_prm.generation import Generator
from rlhf_prm.generation.config import GeneratorConfig
from rlhf_prm.judges.budget import Budget, Prices
from rlhf_prm.judges.decomposed import DecomposedReader
from rlhf_prm.judges.families import GENERATIVE, FamilyReader, family_named_in
from rlhf_prm.judges.forms import FORMS
from rlhf_prm.judges.readers import FormReader, Reader
from rlhf_prm.judges.rubrics import CRITERIA, GradesForm, RubricForm, read_rubrics, rubric_items
from rlhf_prm.judges.scorer import JudgeScorer

PREFIX = "judge:"  # of a PRM's name: the rest is the name of a judge model
RUBRICS = ("rubric", "grades")
SAMPLING = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 2048}  # of a judge that belongs to no family


def is_judge(prm: str | None) -> bool:
    """Whether a PRM's name is that of a judge: ``judge:MODEL``."""
    return prm is not None and prm.startswith(PREFIX)


def load_judge(
    model: str,
    *,
    endpoint: str | Sequence[str] = (),
    backend: str = "auto",
    form: str = "auto",
    rubric: Any = None,
    votes: int = 1,
    attempts: int = 2,
    behind_error: str = "unscored",
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    concurrency: int = 64,
    timeout: float = 120.0,
    deadline: float = 600.0,
    extra_body: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    budget_calls: int | None = None,
    budget_tokens: int | None = None,
    budget_cost: float | None = None,
    budget_seconds: float | None = None,
    price_prompt: float = 0.0,
    price_completion: float = 0.0,
    cache: int = 100_000,
    seed: int = 0,
    in_evaluation: bool = False,
    keeps_rows: bool = True,
    generator: Generator | None = None,
) -> JudgeScorer:
    """A judge, or a generative PRM, as a step scorer.

    Args:
        model: a Hub name, a folder, or the name it is served under; a leading ``judge:`` is ignored.
        endpoint: base URLs that serve it, such as ``http://host:8000/v1``; without one it runs in this process.
        backend: "auto" (endpoints if there are any, else transformers), "hf", "vllm", "endpoint", or a dotted path.
        form: "paper", "processbench", "verdicts", "decomposed", "rubric", "grades", a family of ``judges.families``, or
            a dotted path to a ``JudgeForm``; "auto": the family named in the model's name, else "paper".
        rubric: for the form "rubric" a file, or the items for all problems; for "grades" the criteria.
        votes, behind_error, cache, seed, in_evaluation, keeps_rows: see ``JudgeScorer``.
        attempts: tries per vote, after answers that cannot be read.
        temperature, top_p, max_tokens: sampling; default: the family's, else 0.7, 1 and 2,048.
        concurrency, timeout, deadline: requests in flight, seconds for an attempt and for a request with all its
            attempts, of endpoints.
        extra_body, options: see ``GeneratorConfig``.
        budget_calls, budget_tokens, budget_cost, budget_seconds: per update; see ``Budget``.
        price_prompt, price_completion: of a million tokens.
        generator: a ready generator, in place of all settings of the model and how it runs.

    Raises:
        ValueError: a value is invalid, or a model or host is not available.
    """
    model = model.removeprefix(PREFIX)
    if not model:
        raise ValueError(f"prm: got {PREFIX!r} without a model, expected such as {PREFIX}Qwen/Qwen2.5-7B-Instruct")
    family = _family(model, form)
    if generator is not None:
        told = {"endpoint": endpoint, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        told |= {"extra_body": extra_body, "options": options, "backend": backend if backend != "auto" else None}
        if ignored := [name for name, value in told.items() if value]:
            raise ValueError(f"{ignored[0]}: got a value beside a generator, which has its own settings; leave it out")
    else:
        urls = [endpoint] if isinstance(endpoint, str) else list(endpoint)
        sampling = SAMPLING | (family.sampling if family else {})
        given = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        sampling |= {name: value for name, value in given.items() if value is not None}
        limits = {"timeout": timeout, "deadline": deadline} if urls else {}
        config = GeneratorConfig(
            model,
            backend=backend,
            endpoints=urls,
            extra_body=extra_body or {},
            options=limits | (options or {}),
            **sampling,
        )
        config.check(needs_template=False)
        generator = config.build(concurrency)
    return JudgeScorer(
        generator,
        _reader(family, form, rubric, attempts),
        name=model,
        votes=votes,
        seed=seed,
        behind_error=behind_error,
        budget=Budget(budget_calls, budget_tokens, budget_cost, budget_seconds),
        prices=Prices(price_prompt, price_completion),
        cache=cache,
        in_evaluation=in_evaluation,
        keeps_rows=keeps_rows,
    )


def judge_keywords() -> list[str]:
    """The keywords of ``load_judge`` beside the model."""
    return [name for name in inspect.signature(load_judge).parameters if name not in ("model", "generator")]


def check_judge_keywords(keywords: dict[str, Any]) -> None:
    """Raise a ValueError for a keyword that ``load_judge`` does not have."""
    for name in keywords:
        if name not in judge_keywords():
            raise ValueError(f"a judge has no keyword {name!r}; it has {', '.join(judge_keywords())}")


def _family(model: str, form: str) -> Any:
    return family_named_in(model) if form == "auto" else GENERATIVE.get(form)


def _reader(family: Any, form: str, rubric: Any, attempts: int) -> Reader:
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ValueError(f"attempts: got {attempts!r}, expected a whole number of at least 1")
    if rubric is not None and form not in RUBRICS:
        raise ValueError(f"rubric: got one with form {form!r}, expected form {' or '.join(RUBRICS)}, or no rubric")
    if family is not None:
        return FamilyReader(family, attempts)
    if form == "rubric":
        return FormReader(_rubric_form(rubric), attempts, f"rubric {rubric}", verdicts=False)
    if form == "grades":
        return FormReader(GradesForm(rubric or CRITERIA), attempts, f"grades {rubric}", verdicts=False)
    if form == "decomposed":
        return DecomposedReader(attempts)
    name = "paper" if form == "auto" else form
    try:
        return FormReader(resolve(name, FORMS, "judge form"), attempts, name)
    except ValueError as error:
        families = ", ".join((*RUBRICS, "decomposed", *GENERATIVE))
        raise ValueError(f"form: {error}; or one of {families}") from error


def _rubric_form(rubric: Any) -> RubricForm:
    if rubric is None:
        raise ValueError("rubric: got none with form 'rubric', expected a file of rubrics, or items for all problems")
    is_file = isinstance(rubric, str) and not rubric.lstrip().startswith("<")
    return RubricForm(read_rubrics(rubric) if is_file else {"": rubric_items(rubric)})
