"""PythonTool: what the policy is shown, the limits, and what a machine without protections is told."""

import time

import pytest

from rlhf_prm.sandbox import PROTECTIONS, PythonTool, granted_protections, python_tool

LACKING = [f"{name}: {why}" for name, why in granted_protections().items() if why]
protected = pytest.mark.skipif(bool(LACKING), reason=f"this machine does not grant the protections ({LACKING})")


def test_the_check_names_every_protection():
    assert set(granted_protections()) == set(PROTECTIONS) == {"network", "processes", "files"}


@protected
@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("print(2 ** 10)", "1024\n"),
        ("", ""),
        ("import math\nprint(math.comb(5, 2))", "10\n"),
        ("print('é∑')", "é∑\n"),
        ("import sys\nprint('to stderr', file=sys.stderr)", "to stderr\n"),
        ("raise SystemExit('enough')", "enough\n"),
        ("open('note', 'w').write('kept?')\nprint(open('note').read())", "kept?\n"),
        ("import subprocess\nprint(subprocess.run(['echo', 'hi'], capture_output=True, text=True).stdout)", "hi\n\n"),
    ],
)
def test_what_a_program_prints_is_what_the_policy_sees(code, shown):
    assert PythonTool().python(code) == shown


@protected
def test_errors_are_texts_for_the_policy():
    tool = PythonTool(seconds=0.5, max_output=300)
    assert "ZeroDivisionError" in tool.python("print('first')\n1 / 0") and "first" in tool.python("print('first')\n1/0")
    assert "SyntaxError" in tool.python("print(")
    assert "line 3" in tool.python("x = 1\n\nprint(y)")
    assert tool.python("while True: pass") == "[error: the program took longer than 0.5 seconds]"
    assert tool.python("print('x' * 5000)").endswith("x\n[the rest of the output was cut]")
    assert "MemoryError" in tool.python("x = 'a' * 10 ** 10")
    killed = tool.python("import os\nprint('so far', flush=True)\nos.kill(os.getpid(), 9)")
    assert killed == "so far\n\n[error: the program was ended; it may have used too much memory]"


@protected
def test_nothing_is_kept_between_calls():
    tool = PythonTool()
    tool.python("x = 1\nopen('left', 'w').write('x')\nopen('/tmp/left', 'w').write('x')")
    assert "NameError" in tool.python("print(x)")
    # Where this project lies under /tmp, its own folder is seen there.
    assert tool.python("import os\nprint(os.listdir('.'), os.path.exists('/tmp/left'))") == "[] False\n"


@protected
def test_a_long_program_is_read_whole():
    assert PythonTool(seconds=60).python("x = 0\n" + "x += 1\n" * 200_000 + "print(x)") == "200000\n"


@protected
def test_the_deadline_is_the_programs_own():
    start = time.monotonic()
    assert PythonTool(seconds=0.3).execute("import time\ntime.sleep(30)").state == "timeout"
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"seconds": 0}, "seconds: got 0, expected more than 0"),
        ({"memory": -1}, "memory: got -1"),
        ({"processes": 0}, "processes: got 0"),
        ({"disk": 0}, "disk: got 0"),
        ({"max_output": 0}, "max_output: got 0, expected at least 1"),
        ({"required": ["wifi"]}, "required: got wifi, expected some of network, processes, files"),
    ],
)
def test_limits_that_are_none_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        PythonTool(**keywords)


def test_a_machine_that_grants_nothing_is_told_and_runs_nothing(monkeypatch, tmp_path):
    """The warden of such a machine, made by taking its way into namespaces away."""
    source = python_tool.WARDEN.read_text().replace(
        "    missing = enter_namespaces()\n",
        "    missing = dict.fromkeys(['network', 'processes', 'files'], 'not permitted')\n",
    )
    (tmp_path / "warden.py").write_text(source)
    monkeypatch.setattr(python_tool, "WARDEN", tmp_path / "warden.py")
    harm = f"open({str(tmp_path / 'harm')!r}, 'w')"
    with pytest.raises(
        ValueError, match=r"does not grant network, processes, files \(network: not permitted.*required="
    ):
        PythonTool().python(harm)
    assert not (tmp_path / "harm").exists()
    assert PythonTool().check() == dict.fromkeys(PROTECTIONS, "not permitted")
    assert PythonTool(required=()).python("print('with open eyes')") == "with open eyes\n"
    assert PythonTool(required=(), seconds=0.3).execute("while True: pass").state == "timeout"
