"""``rlhf-prm COMMAND``: each command is a module with ``add_arguments(parser)`` and ``run(args)``."""

import importlib
import os
import sys

from rlhf_prm.command_line import Parser, reason

COMMANDS: dict[str, tuple[str, str]] = {
    "annotate": ("rlhf_prm.annotate.command", "label the steps of solutions: sampling, Monte-Carlo, judge, consensus"),
    "label": (
        "rlhf_prm.runs.label",
        "label steps by small questions to a judge, or lines of programs by mutants and tests",
    ),
    "plan": (
        "rlhf_prm.plan.command",
        "memory per GPU and seconds per update of a run, and what to change when it does not fit",
    ),
    "score": (
        "rlhf_prm.evaluation.score",
        "score the reasoning steps of a file of rollouts with a process reward model",
    ),
    "preflight": (
        "rlhf_prm.preflight.command",
        "predict whether dense rewards will pay, from the policy's samples, before training",
    ),
    "audit": ("rlhf_prm.evaluation.audit.command", "measure whether a PRM is safe to train a policy against"),
    "evaluate": (
        "rlhf_prm.evaluation.command",
        "measure a PRM: ProcessBench, best-of-n, PRMBench, MR-Ben, RMB, search",
    ),
    "ablate": ("rlhf_prm.ablation.command", "run a grid of methods and settings over seeds, and compare"),
    "report": ("rlhf_prm.report.command", "write the HTML page of a run, or of several runs compared"),
}


def main(argv: list[str] | None = None) -> int:
    """Entry point. Bad input (``ValueError``) and errors of the operating system (``OSError``: a full disk, a folder
    without permission) become one line on stderr and the exit status 2 or 1; Ctrl-C is 130.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not sys.stderr.isatty():  # a log gets lines instead of bars; these packages read it when they are imported
        for package in ("HF_HUB", "HF_DATASETS"):
            os.environ.setdefault(f"{package}_DISABLE_PROGRESS_BARS", "1")
    parser = Parser(prog="rlhf-prm", description="Process supervision for LLM reasoning, on TRL.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    chosen = argv[0] if argv else None
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == chosen:  # only the chosen command's module is imported
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except ValueError as error:
        print(f"rlhf-prm {args.command}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has closed it
        sys.stdout = None
        return 1
    except OSError as error:
        print(f"rlhf-prm {args.command}: error: {reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nrlhf-prm {args.command}: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
