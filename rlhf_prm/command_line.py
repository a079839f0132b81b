"""Options that several commands share, and checks to make before any long work."""

import argparse
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations: ``--learning_rat`` is an error. Its sub-parsers are of this class too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)


def separator(text: str) -> str:
    r"""The text that ends a step, as typed: ``\n``, ``\t``, ``\r`` and ``\\`` mean what they mean in a string, every
    other character stands for itself.

    Raises:
        argparse.ArgumentTypeError: nothing is left to cut at.
    """
    if not text:
        raise argparse.ArgumentTypeError("got an empty text, expected at least one character such as '\\n\\n'")
    return re.sub(r"\\[ntr\\]", lambda match: _ESCAPES[match[0]], text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return value


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number")
    return value


def add_separator(parser: argparse.ArgumentParser, **kwargs: Any) -> None:
    """``--separator``, read alike by every command."""
    text = "what ends a step in a text; \\n is a line break (default: a blank line)"
    parser.add_argument("--separator", type=separator, help=text, **{"default": "\n\n"} | kwargs)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """``--problem-column`` and ``--solution-column``, the same for every command."""
    parser.add_argument("--problem-column", help="default: problem, prompt or question")
    parser.add_argument("--solution-column", help="the gold answer's; default: solution or answer")


def check_can_write(path: str | os.PathLike | None, option: str) -> None:
    """Create the folder of a file that will be written, and check that it can be written to.

    Raises:
        ValueError: it cannot, or the path is a folder.
    """
    if path is None:
        return
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder, expected the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, "the file is read-only")
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written ({reason(error)}); choose another place") from error


@contextmanager
def loading(
    what: str, hint: str = "expected a folder with a saved model, or a model's name on the Hub"
) -> Iterator[None]:
    """Inside the context, report a failure to load a checkpoint in one line that names it.

    Raises:
        ValueError: in place of the errors of transformers, the Hub's client, safetensors and torch; our own
            one-line errors are passed on.
    """
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, HFValidationError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(f"{what} cannot be loaded: {hint} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """The first line of an error, in at most 300 characters; for an operating system's error its own words."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {text}"[:300] if not isinstance(error, ValueError) else text[:300]
