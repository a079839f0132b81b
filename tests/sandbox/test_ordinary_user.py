"""PythonTool started by somebody who is not root, on a kernel that lets users make namespaces and on one that does not.

Both are made in a user namespace of the test's own, where the user has no capabilities.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
NOBODY_MAY = ["unshare", "--user", "--map-root-user", "sh", "-c"]
WITHOUT_RIGHTS = 'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'


def granted(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


def python(start: list[str], program: str) -> str:
    """What a program prints that ``start`` starts."""
    command = [*start, sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not granted(*USER, "true"), reason="this kernel lets nobody make user namespaces")
def test_an_ordinary_user_has_all_protections_where_users_may_make_namespaces():
    program = """
import os
from rlhf_prm.sandbox import PythonTool, granted_protections
assert os.getuid() == 1000 and set(granted_protections().values()) == {""}
tool = PythonTool(seconds=20)
print(tool.python("print(6 * 7)"))
print(tool.python("import os; print(os.path.exists('/etc/passwd'), [p for p in os.listdir('/proc') if p.isdigit()])"))
print("refused" if "Error" in tool.python("import socket; socket.create_connection(('8.8.8.8', 53), 1)") else "let out")
"""
    answer, seen, network = python(USER, program).split("\n\n")
    assert answer == "42" and network.strip() == "refused"
    assert seen.startswith("False ") and len(seen.split(",")) <= 2  # its own processes only


@pytest.mark.skipif(
    not granted(*NOBODY_MAY, WITHOUT_RIGHTS, "sh", "true"), reason="this kernel lets nobody make user namespaces"
)
def test_where_no_namespace_can_be_made_nothing_runs_and_the_reason_is_told(tmp_path):
    program = f"""
from rlhf_prm.sandbox import PythonTool
try:
    PythonTool().python("open({str(tmp_path / "harm")!r}, 'w')")
except ValueError as error:
    print(error)
"""
    said = python([*NOBODY_MAY, WITHOUT_RIGHTS, "sh"], program)
    assert said.startswith("sandbox: this machine does not grant network, processes, files (network: ")
    assert "unshare for files: Operation not permitted" in said and "expected a kernel that lets users make" in said
    assert not (tmp_path / "harm").exists()
