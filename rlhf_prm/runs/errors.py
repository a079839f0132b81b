"""Errors that a user can correct end a recipe with one line instead of a traceback."""

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_NO_SPACE_LEFT = 1 << 20  # bytes; below that a disk counts as full


@contextmanager
def user_errors() -> Iterator[None]:
    """Inside the context, bad input, and missing or unusable files and models, end the program with one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        end_with(error)


@contextmanager
def loading(argument: str, name: str | os.PathLike) -> Iterator[None]:
    """Report a failure to load a model, tokenizer or dataset together with the argument that names it.

    Raises:
        ValueError: in place of the library's own errors, which name no argument.
    """
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            raise
        raise ValueError(f"{argument}: cannot load {os.fspath(name)!r}: {_one_line(error)}") from error


@contextmanager
def disk_errors(folder: str | os.PathLike) -> Iterator[None]:
    """If a run can no longer write its folder, end it with one line; other errors are raised unchanged.

    A full disk shows as an ``OSError`` of ours, as a ``RuntimeError`` of torch and as a ``SafetensorError``.
    """
    try:
        yield
    except Exception as error:
        reason = _why_not_written(error, Path(folder))
        if reason is None:
            raise
        end_with(
            ValueError(
                f"output_dir: cannot write to {folder} any more ({reason}); make room, then resume from the newest "
                "complete checkpoint, if there is one, with --resume_from_checkpoint true"
            )
        )


def ready_folder(folder: str | os.PathLike, argument: str = "output_dir") -> Path:
    """Create the folder if needed, and check that files can be written in it.

    Raises:
        ValueError: they cannot.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable_{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{argument}: cannot write in {path} ({error.strerror}); give another folder") from error
    return path


def end_with(error: Exception) -> NoReturn:
    """End the program with status 1 and the error as one line, which a launcher gets too.

    ``torchrun`` (and with it ``accelerate launch`` on several processes) prints that line last. With one
    process ``accelerate launch`` prints its own traceback after the line, which only its ``--quiet`` suppresses.
    """
    line = f"error: {_one_line(error)}"
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(report).write_text(json.dumps({"message": line, "timestamp": str(int(time.time()))}))
    elif "ACCELERATE_MIXED_PRECISION" in os.environ:  # set by accelerate launch for its child
        line += "  [a traceback of the launcher may follow; `accelerate launch -q` leaves it out]"
    sys.exit(line)


def _one_line(error: Exception) -> str:
    """The message without line breaks; of several paragraphs, the first."""
    message = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno is None:
        message = message.strip().split("\n\n")[0].split("\nIf this is a private repository")[0]
    return " ".join(message.split())


def _why_not_written(error: BaseException, folder: Path) -> str | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            return os.strerror(error.errno)
        for number in _CANNOT_WRITE:
            if isinstance(error, SafetensorError) and f"(os error {number})" in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    return os.strerror(errno.ENOSPC) if shutil.disk_usage(existing).free < _NO_SPACE_LEFT else None
