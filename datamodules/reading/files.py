"""Find image files by paths, folders and globs."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from datamodules.reading.decode import IMAGE_SUFFIXES

# folders that file servers, desktops and archives put next to images: thumbnails, copies, deleted files
OF_OTHER_PROGRAMS = {
    *("@eadir", "@__thumb", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "~snapshot"),
    *("$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx", "__pycache__"),
    *("network trash folder", "temporary items"),
}


class FileList(NamedTuple):
    """Files found at some paths."""

    files: list[str]  # each once, in the order of the paths; those of a folder are sorted
    problems: dict[str, str]  # paths without a file or without read permission, each with the reason
    passed_over: list[str]  # files in folders without an image suffix


def find_files(paths: Iterable[str]) -> FileList:
    """Return the files at paths of files, folders and globs.

    Folders are searched recursively, except hidden ones and folders of other programs.
    """
    result = FileList([], {}, [])

    def note(error: OSError) -> None:
        result.problems[error.filename] = f"cannot be read ({error.strerror})"

    def add(path: str) -> None:
        if os.path.isfile(path):
            result.files.append(path)
        else:  # opening a pipe would block until something writes to it
            result.problems[path] = "is a broken link" if os.path.islink(path) else "is neither a file nor a folder"

    for path in paths:
        matches = [path]
        if not os.path.lexists(path):
            matches = sorted(glob.glob(os.path.expanduser(path), recursive=True)) if glob.has_magic(path) else []
            if not matches:
                result.problems[path] = "matches no file" if glob.has_magic(path) else "is missing"
        for match in matches:
            if not os.path.isdir(match):
                add(match)
                continue
            for file in (os.path.join(parent, name) for parent, names in walk(match, note) for name in names):
                if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:
                    add(file)
                else:
                    result.passed_over.append(file)
    return result._replace(files=list(dict.fromkeys(result.files)))


def walk(
    folder: str | os.PathLike[str], on_error: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder under a folder, including links, and the names of its files.

    Hidden files and folders and those of other programs (``is_data``) are skipped.
    """
    seen = set()
    for parent, inner, names in os.walk(folder, onerror=on_error, followlinks=True):
        seen.add(os.path.realpath(parent))
        inner[:] = sorted(name for name in inner if is_data(name) and os.path.realpath(f"{parent}/{name}") not in seen)
        yield parent, sorted(name for name in names if not name.startswith("."))


def is_data(name: str) -> bool:
    """Return whether a folder may contain data: it is not hidden and not made by another program, like ``@eaDir``."""
    return not name.startswith(".") and name.lower() not in OF_OTHER_PROGRAMS
