"""Image files of anybody's: found by paths, folders and globs, and read as far as they can be."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from datamodules.reading.decode import IMAGE_SUFFIXES

# folders that file servers, desktops and archives put beside images: thumbnails, copies, what was deleted
OF_OTHER_PROGRAMS = {
    *("@eadir", "@__thumb", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "~snapshot"),
    *("$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx", "__pycache__"),
    *("network trash folder", "temporary items"),
}


class Found(NamedTuple):
    """What some paths lead to."""

    files: list[str]  # each once, in the order of the paths, those of a folder in alphabetical order
    problems: dict[str, str]  # paths that lead to nothing, or may not be read, with the reason
    passed_over: list[str]  # files in folders that have no suffix of an image


def find_files(paths: Iterable[str]) -> Found:
    """Return the files that paths of files and folders, and globs, lead to.

    Folders are looked through to their ends, but for what is hidden, and folders of other programs.
    """
    found = Found([], {}, [])
    for path in paths:
        if os.path.lexists(path):
            _add(found, path)
        elif glob.has_magic(path):
            matches = sorted(glob.glob(os.path.expanduser(path), recursive=True))
            for match in matches:
                _add(found, match)
            if not matches:
                found.problems[path] = "matches no file"
        else:
            found.problems[path] = "is missing"
    return found._replace(files=list(dict.fromkeys(found.files)))


def walk(
    folder: str | os.PathLike[str], on_error: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from one on down, linked ones too, and the names of its files.

    What is hidden and folders of other programs (``is_data``) are passed over.
    """
    seen = set()
    for here, inner, names in os.walk(folder, onerror=on_error, followlinks=True):
        seen.add(os.path.realpath(here))
        inner[:] = sorted(one for one in inner if is_data(one) and os.path.realpath(f"{here}/{one}") not in seen)
        yield here, sorted(one for one in names if not one.startswith("."))


def is_data(name: str) -> bool:
    """Return whether a folder may hold data: it is neither hidden nor made by another program, as ``@eaDir``."""
    return not name.startswith(".") and name.lower() not in OF_OTHER_PROGRAMS


def _add(found: Found, path: str) -> None:
    if os.path.isdir(path):

        def note(error: OSError) -> None:
            found.problems[error.filename] = f"cannot be read ({error.strerror})"

        for here, names in walk(path, note):
            for name in names:
                if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                    _add_file(found, os.path.join(here, name))
                else:
                    found.passed_over.append(os.path.join(here, name))
    else:
        _add_file(found, path)


def _add_file(found: Found, path: str) -> None:
    if os.path.isfile(path):
        found.files.append(path)
    else:  # to open a pipe would be to wait for somebody who writes into it
        found.problems[path] = "leads to nothing" if os.path.islink(path) else "is neither a file nor a folder"
