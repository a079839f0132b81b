"""``rlhf-prm preflight``: will dense rewards pay for this policy, PRM, dataset and verifier?"""

import argparse
from pathlib import Path
from typing import Any

from rlhf_prm.command_line import add_columns, add_separator, check_can_write, loading, number, positive
from rlhf_prm.evaluation import arguments as shared
from rlhf_prm.judges.budget import CHARACTERS_PER_TOKEN
from rlhf_prm.judges.load import is_judge
from rlhf_prm.settings import json_mapping
from rlhf_prm.statistics import WRONG_AT_OR_BELOW

ORACLE = "oracle"  # as --prm: the exact labels of a world
TEACHER = "teacher:"
LEARNS = ("implicit", "self")  # as --prm: both start as the policy
WORLDS = ("toyworld", "wordproblems")  # laboratories, each an argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group(
        "where the rollouts come from: --model and --dataset, --samples, --toyworld or --wordproblems"
    )
    where.add_argument("--model", help="the policy's folder, Hub name, or name it is served under")
    where.add_argument("--dataset", help="file, folder or Hub dataset of problems with gold answers")
    where.add_argument("--samples", type=Path, help="JSONL of problem, completions, solution, sampled before")
    toyworld = "JSON of ToyWorldSettings, e.g. '{\"seed\": 0}'; steps are checked exactly; --prm oracle: the labels"
    where.add_argument("--toyworld", help=toyworld)
    where.add_argument("--wordproblems", help="the same of WordWorldSettings: a real language model (docs/real_lm.md)")
    where.add_argument("--problems", type=positive, default=256, help="problems, drawn at random (%(default)s)")
    where.add_argument("--n", type=int, default=8, help="rollouts per problem (%(default)s)")
    _add_policy_arguments(parser)
    shared.add_verifier_argument(parser)
    shared.add_prm_arguments(parser)
    add_columns(parser)
    add_separator(parser)
    parser.add_argument("--threshold", type=number, default=WRONG_AT_OR_BELOW, help="wrong at or below this score")
    parser.add_argument("--probe-problems", type=int, default=32, help="problems the probes rewrite; 0 = no probes")
    parser.add_argument("--filler", nargs="+", help="filler lines of a probe, in the policy's own language")
    parser.add_argument("--stage-cache", default="runs/cache", help="a world's stages (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("preflight.html"), help="the page (%(default)s)")
    parser.add_argument("--json", type=Path, help="everything on the page as JSON (default: beside the page)")


def _add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    policy = parser.add_argument_group("the policy, with --model")
    policy.add_argument("--endpoint", nargs="*", default=[], help="OpenAI-compatible base URLs that serve the policy")
    policy.add_argument("--backend", default="auto", help="auto, hf, vllm, endpoint, or a dotted path")
    policy.add_argument(
        "--template", default="chat", help="chat (the tokenizer's), plain, chatml, or text with {problem}"
    )
    policy.add_argument("--temperature", type=number, default=1.0, help="as in training (%(default)s)")
    policy.add_argument("--max-tokens", type=positive, default=2048, help="longest rollout, in tokens, as in training")
    policy.add_argument("--concurrency", type=positive, default=128, help="requests in flight, or prompts per call")
    policy.add_argument("--split", default="train", help="split of a Hub dataset")


def run(args: argparse.Namespace) -> None:
    """Print the verdict and the measures; write the page and the JSON."""
    from rlhf_prm.preflight.page import preflight_text, write_preflight
    from rlhf_prm.preflight.run import PreflightSettings, preflight

    shared.take_judge(args, required=False)  # the toy world has its own PRM
    data = args.json or args.output.with_suffix(".json")
    check(args, data)
    drawn, scorer, prm, tokenizer = _measured_with(args)
    if drawn.left_out:
        print(f"{drawn.left_out} problems are left out: the verifier could not judge all their rollouts")
    settings = PreflightSettings(
        threshold=args.threshold,
        probe_problems=args.probe_problems,
        texts=_probe_texts(args, drawn.texts),
        length=_token_counter(tokenizer),
        seed=args.seed,
    )
    result = preflight(scorer, drawn.samples, settings, policy=drawn.policy, prm=prm, seconds_generating=drawn.seconds)
    write_preflight(result, args.output, data)
    print(f"\n{preflight_text(result)}\n\npage: {args.output}   data: {data}")


def check(args: argparse.Namespace, data: Path) -> None:
    """Check everything that can be checked without loading or generating anything.

    Raises:
        ValueError: something is missing, contradictory or cannot be written.
    """
    given = [name for name in ("model", "samples", *WORLDS) if getattr(args, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"got {' and '.join(f'--{name}' for name in given) or 'no source of rollouts'}, expected one of --model "
            "POLICY with --dataset FILE, --samples FILE, --toyworld SETTINGS or --wordproblems SETTINGS"
        )
    if (args.dataset is None) != (args.model is None):
        raise ValueError("--model and --dataset go together: the policy answers the dataset's problems")
    in_a_world = any(getattr(args, name) is not None for name in WORLDS)
    if args.prm is None and not in_a_world:
        raise ValueError("--prm is needed: the process reward model to measure")
    if args.prm == ORACLE and not in_a_world:
        raise ValueError(
            "--prm oracle knows the labels of the toy world and of word problems only: pass --toyworld or "
            "--wordproblems, or name a PRM"
        )
    _check_token_scorer(args)
    if args.n < 2 or args.probe_problems < 0:
        raise ValueError(
            f"got --n {args.n}, --probe-problems {args.probe_problems}; expected at least 2 (rollouts of one problem "
            "are compared with each other) and at least 0"
        )
    if data == args.output:
        raise ValueError(f"--output and --json are both {data}: the page and the data need separate files")
    check_can_write(args.output, "--output")
    check_can_write(data, "--json")
    if args.prm not in (None, ORACLE) and not _is_teacher(args):
        shared.check_prm(args)
    if args.model is not None and not args.endpoint:
        _check_policy(args.model)


def _is_teacher(args: argparse.Namespace) -> bool:
    return (args.prm or "").startswith(TEACHER)


def _check_token_scorer(args: argparse.Namespace) -> None:
    """Check a token scorer: a teacher needs the policy; a scorer that starts as the policy cannot be measured."""
    if (args.prm or "").partition(":")[0] in LEARNS:
        raise ValueError(
            f"--prm {args.prm}: it starts as the policy, so every score is 1/2 before training; measure an implicit "
            "PRM that is trained already by its folder, with --family implicit_prm --reference MODEL"
        )
    if not _is_teacher(args):
        return
    if args.samples is not None and "policy" not in args.prm_kwargs:
        raise ValueError(
            '--prm teacher:NAME is read against the policy: pass --prm-kwargs \'{"policy": "POLICY"}\' beside --samples'
        )
    from inspect import signature

    from rlhf_prm.prm.token_model import check_tokenizers, load_token_model
    from rlhf_prm.tokenizer_checks import saved_tokenizer

    known = set(signature(load_token_model).parameters) - {"name_or_path", "temperature"} | {"policy"}
    if unknown := sorted(set(args.prm_kwargs) - known):
        raise ValueError(f"--prm-kwargs: no keyword {unknown[0]!r}; a teacher has {', '.join(sorted(known))}")
    teacher, policy = args.prm.removeprefix(TEACHER), args.prm_kwargs.get("policy", args.model)
    _check_policy(teacher, "--prm")
    if policy is not None:  # a world has its own, which may have to be built first
        _check_policy(policy, "the policy")
        check_tokenizers(saved_tokenizer(policy), teacher)


def _check_policy(name: str, where: str = "--model") -> None:
    """Check that the policy's config and tokenizer exist; no weights are loaded yet."""
    from transformers import AutoConfig

    from rlhf_prm.tokenizer_checks import saved_tokenizer

    with loading(f"{where} {name}"):
        AutoConfig.from_pretrained(name)
        saved_tokenizer(name)


def _measured_with(args: argparse.Namespace) -> tuple[Any, Any, str, str]:
    """The samples, their scorer, its name on the page, and the model whose tokenizer counts tokens."""
    chosen = next((name for name in WORLDS if getattr(args, name) is not None), None)
    if chosen is None:
        drawn = _drawn(args)
        if _is_teacher(args):
            policy = args.prm_kwargs.get("policy", args.model)
            return drawn, _teacher(args, policy, _template(args, policy)), args.prm, policy
        return drawn, shared.scorer_from(args, watched=False), args.prm, args.prm
    from rlhf_prm.preflight import sources
    from rlhf_prm.toyworld.checker import CHAINS
    from rlhf_prm.toyworld.oracle import OracleScorer
    from rlhf_prm.wordproblems.checker import WORDS

    build = sources.from_toy_world if chosen == "toyworld" else sources.from_word_problems
    settings = json_mapping(f"--{chosen}", getattr(args, chosen))
    drawn, world = build(settings, args.stage_cache, args.problems, args.n, with_prm=args.prm is None)
    if args.prm == ORACLE:
        oracle = OracleScorer(checker=CHAINS if chosen == "toyworld" else WORDS)
        return drawn, oracle, "oracle (exact labels)", str(world.policy_path)
    if _is_teacher(args):
        return drawn, _teacher(args, str(world.policy_path), lambda prompt: prompt), args.prm, str(world.policy_path)
    prm = args.prm or str(world.prm_path)
    return drawn, shared.scorer_from(args, prm, watched=False), prm, prm


def _teacher(args: argparse.Namespace, policy: str, template: Any) -> Any:
    """The scorer of ``--prm teacher:NAME``, read at the temperature of the rollouts."""
    from rlhf_prm.preflight.teacher import teacher_on_texts

    settings = {name: getattr(args, name) for name in ("placement", "max_length", "max_batch_tokens")}
    keywords = {name: value for name, value in (settings | args.prm_kwargs).items() if name != "policy"}
    name = args.prm.removeprefix(TEACHER)
    return teacher_on_texts(name, policy, template, args.separator, args.temperature, **keywords)


def _template(args: argparse.Namespace, policy: str) -> Any:
    """Problem → what the policy is given for it."""
    from rlhf_prm.generation.config import GeneratorConfig

    return GeneratorConfig(policy, template=args.template).prompt_template()


def _drawn(args: argparse.Namespace) -> Any:
    """The samples of a policy or of a file."""
    from rlhf_prm.preflight import sources
    from rlhf_prm.steps import StepSplitter

    splitter = StepSplitter(args.separator)
    verifier = shared.verifier_from(args)
    try:
        if args.samples is not None:
            columns = (args.problem_column, args.solution_column)
            return sources.from_file(args.samples, verifier, splitter, args.problems, args.seed, columns)
        return _from_policy(args, verifier, splitter)
    finally:
        close = getattr(verifier, "close", None)
        if close:
            close()


def _from_policy(args: argparse.Namespace, verifier: Any, splitter: Any) -> Any:
    from rlhf_prm.generation.config import GeneratorConfig
    from rlhf_prm.preflight import sources

    config = GeneratorConfig(
        args.model,
        backend=args.backend,
        endpoints=args.endpoint,
        template=args.template,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
    )
    named = {"prompt": args.problem_column, "solution": args.solution_column}
    columns = {ours: theirs for ours, theirs in named.items() if theirs}
    prompts = sources.drawn_prompts(
        args.dataset, columns, args.split, args.problems, config.prompt_template(), args.seed
    )
    keep = args.output.with_suffix(".samples.jsonl")
    drawn = sources.from_policy(config, args.concurrency, prompts, verifier, args.n, splitter, args.seed, keep)
    print(f"rollouts: {keep} (measure another PRM on them with --samples)")
    return drawn


def _probe_texts(args: argparse.Namespace, texts: Any) -> Any:
    from dataclasses import replace

    return replace(texts, filler=tuple(args.filler)) if args.filler else texts


def _token_counter(name: str) -> Any:
    """Text → its tokens by the tokenizer saved there; for a judge, which may be served anywhere, an estimate."""
    if is_judge(name):
        return lambda text: round(len(text) / CHARACTERS_PER_TOKEN)
    from rlhf_prm.tokenizer_checks import saved_tokenizer

    tokenizer = saved_tokenizer(name)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
