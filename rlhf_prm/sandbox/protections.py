"""Finds the protections that a machine grants, by trying each of them."""

from functools import cache

PROTECTIONS = {
    "network": "the program has no network, the machine's own included",
    "processes": "the program sees and signals its own processes only, and all of them end with it",
    "files": "the program sees the interpreter and the system's libraries, read-only, and a folder of its own",
}


@cache
def granted_protections() -> dict[str, str]:
    """Every name of ``PROTECTIONS``, with "" where it is granted, and otherwise with the reason why it is not."""
    from rlhf_prm.sandbox.python_tool import PythonTool  # not at the top: the tool imports the names from this module

    return PythonTool(required=(), seconds=10).check()
