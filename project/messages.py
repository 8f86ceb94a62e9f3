"""Errors, written for the person who made the mistake."""

import site
import sysconfig
import traceback
from typing import Any

INSTALLED = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *site.getsitepackages(), "<frozen"})


def short_traceback(error: BaseException) -> str:
    """Return the frames of an error that lie outside installed packages, and the error itself."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(INSTALLED)]
    lines = traceback.format_list(frames)
    reason = "".join(traceback.format_exception_only(error)).strip()
    return f"{''.join(lines)}error: {reason}\nOnly your files and the project's are shown; PROJECT_DEBUG=1 shows all."


def parser_message(parser: Any, message: str, ex: Exception | None) -> str:
    """Return a parser's complaint in one line."""
    return message
