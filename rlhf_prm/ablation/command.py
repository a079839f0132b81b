"""``rlhf-prm ablate --config FILE``: run what is missing, then write table.json, table.md and report.html."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="the ablation's YAML")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--table-only", action="store_true", help="run nothing; write tables and page of finished runs")


def run(args: argparse.Namespace) -> None:
    """Run the cells, write the tables and the page, and print the table and its path."""
    from rlhf_prm.ablation.config import load_config
    from rlhf_prm.ablation.launch import cell_runs, run_cells
    from rlhf_prm.ablation.markdown import markdown
    from rlhf_prm.ablation.page import write_page
    from rlhf_prm.ablation.table import build_table
    from rlhf_prm.files import write_text

    config = load_config(args.config)
    if args.table_only:
        runs = cell_runs(config)
        for run in runs:
            run.check()
    else:
        runs = run_cells(config, args.retry, lambda text: print(text, flush=True))
    table = build_table(config, runs)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.json", table.to_json())
    write_text(folder / "table.md", markdown(table))
    page = write_page(table, runs, folder / "report.html")
    print(f"\n{markdown(table)}\ntable: {folder / 'table.md'}   report: {page}")
