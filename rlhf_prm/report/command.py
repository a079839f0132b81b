"""``rlhf-prm report RUN…``: the page of one run, or one page that compares several."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, such as runs/grpo_prm")
    parser.add_argument(
        "--out", type=Path, help="where to write (default: RUN/report.html; with several runs: comparison.html)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the page and print its path."""
    from rlhf_prm.report.page import write_comparison, write_report

    if len(args.runs) == 1:
        page = write_report(args.runs[0], args.out)
    else:
        page = write_comparison(args.runs, args.out or Path("comparison.html"))
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
