"""Find the images in a folder that the cells of a CSV file mean."""

import os
import posixpath
from collections import defaultdict
from pathlib import Path

from datamodules.preparation.layout import stages_in
from datamodules.reading.files import is_image, relative_files


class Images:
    """The images in a folder, which are found by paths, names or names without suffix."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for file in filter(is_image, relative_files(root, root)):
            name = file.rpartition("/")[2]
            for key in {name, os.path.splitext(name)[0]}:
                self.by_name[key].append(file)

    def find(self, text: str, table: Path) -> list[str]:
        """Return the images that a cell of a CSV file may mean, relative to the root: one, unless it is wrong.

        A path is absolute, relative to the folder of the CSV file, or the end of the path of an image, with or without
        suffix. Images in the folder of another stage, such as test for ``train.csv``, need a relative path.
        """
        path = posixpath.normpath(text.replace("\\", "/"))
        place = table.parent / path
        if os.path.isfile(place):
            file = Path(os.path.relpath(place, self.root)).as_posix()
            return [Path(os.path.abspath(place)).as_posix() if file.startswith("../") else file]
        stage, found = set(stages_in(table.stem)), []
        for file in self.by_name.get(path.rpartition("/")[2], ()):
            stages = {word for folder in file.split("/")[:-1] for word in stages_in(folder)}
            ends = (f"/{each}".endswith(f"/{path}") for each in (file, os.path.splitext(file)[0]))
            if any(ends) and not (stage and stages - stage):
                found.append(file)
        return found
