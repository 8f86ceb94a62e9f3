"""Image files of anybody's: found by paths, folders and globs, and read as far as they can be."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.errors import DataError, ImageError
from datamodules.loading.dataset import ImageDataset
from datamodules.reading.decode import IMAGE_SUFFIXES, Resize

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


class FileDataset(ImageDataset):
    """Image files, each with its position as its target. A file that cannot be read is missing in its batch.

    Args:
        files: Their paths.
        size: Side in pixels that images are brought to.
        resize: How.
        transform: Applied to each image, uint8 ``(3, H, W)``, on the way out.
    """

    def __init__(
        self,
        files: Sequence[str],
        size: int,
        resize: Resize = "crop",
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(Path(), [(file, i) for i, file in enumerate(files)], size, resize, transform)

    def __getitems__(self, batch: tuple[int, Tensor]) -> tuple[Tensor, Tensor]:
        try:
            return super().__getitems__(batch)
        except DataError:  # of one file, for which the others need not suffer
            good = [position for position in batch[1].tolist() if self.problem(position) is None]
            if not good:
                return torch.empty(0, 3, self.size, self.size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
            return super().__getitems__((batch[0], torch.tensor(good)))

    def problem(self, position: int) -> str | None:
        """Return why a file cannot be read or transformed, or None if it can."""
        try:
            super().__getitems__((0, torch.tensor([position])))
        except DataError as error:
            return error.reason if isinstance(error, ImageError) else str(error)
        return None


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
