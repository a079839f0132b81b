"""Names that packages import on first use: all are there, and none drags in more than it needs."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("reward", "rlhf_prm.prm", "rlhf_prm.guard", "rlhf_prm.report")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package):
    found = importlib.import_module(package)
    assert found.__all__ and set(found.__all__) == set(dir(found))
    for name in found.__all__:
        assert getattr(found, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        found.no_such_name  # noqa: B018


def loaded_by(code):
    """The heavy packages that a fresh interpreter has loaded after the code."""
    heavy = ("torch", "transformers", "trl")
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print([name for name in {heavy} if name in sys.modules])"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_importing_a_package_loads_nothing_heavy():
    assert loaded_by("\n".join(f"import {package}" for package in PACKAGES)) == "[]"
    assert loaded_by("from reward import MathVerifier, resolve") == "[]"


def test_only_the_callback_needs_transformers():
    assert loaded_by("from rlhf_prm.guard import DETECTORS, TripRule, Watch") == "['torch']"
    assert "transformers" in loaded_by("import transformers")  # it would be seen
