"""Find image files by paths, folders and globs."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
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

    for path in paths:
        found = [path]
        if not os.path.lexists(path):  # a file of this name takes precedence over a pattern
            found = sorted(glob.glob(os.path.expanduser(path), recursive=True)) if glob.has_magic(path) else []
            if not found:
                result.problems[path] = "matches no file" if glob.has_magic(path) else "is missing"
        for place in found:
            files = [place]
            if os.path.isdir(place):
                inside = [os.path.join(parent, name) for parent, names in walk(place, note) for name in names]
                files = list(filter(is_image, inside))
                result.passed_over.extend(file for file in inside if not is_image(file))
            for file in files:
                if os.path.isfile(file):
                    result.files.append(file)
                else:  # opening a pipe would block until something writes to it
                    result.problems[file] = "is not a file, or a broken link"
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


def relative_files(folder: Path, root: Path) -> list[str]:
    """Return the files in a folder and its subfolders, as sorted paths relative to ``root``."""
    files = []
    for parent, names in walk(folder):
        start = Path(parent).relative_to(root).as_posix()
        files += [name if start == "." else f"{start}/{name}" for name in names]
    return sorted(files)


def is_image(file: str) -> bool:
    """Return whether a file has the suffix of an image."""
    return os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES


def is_data(name: str) -> bool:
    """Return whether a folder may contain data: it is not hidden and not made by another program, like ``@eaDir``."""
    return not name.startswith(".") and name.lower() not in OF_OTHER_PROGRAMS
