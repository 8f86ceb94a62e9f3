"""``predict``: classify image files with a run's classifier."""

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from atomic_files import write_atomically
from project.commands.light_parser import LightParser
from project.errors import RunError
from project.runs.folders import create_folder, find_checkpoint

NAMES = ("predictions.csv", "predictions.json")


def run(args: list[str]) -> Path:
    """Print the most probable classes of images, write all probabilities, and return the output directory.

    Raises:
        SystemExit: The run does not exist, or no image can be read.
    """
    parser = LightParser("predict", "Classify images with a run.", with_checkpoint=True)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="Image file, folder, glob in quotes, or - to read paths from stdin. Images of another size or shape are "
        "resized like the data of the run (--data.resize): by default, the central square is cropped.",
    )
    parser.add_argument("--top", type=PositiveInt, default=3, help="Number of classes to print for each image.")
    parser.add_argument("--batch_size", type=PositiveInt, help="Images per batch. Default: that of the run.")
    parser.add_argument(
        "--output", type=Path, help="Output directory without results. Default: predict/<time> in the run directory."
    )
    options = parser.parse_args(args)
    folder, checkpoint = find_checkpoint(options.run, options.runs_dir, options.ckpt_path)
    if options.output is not None:
        check_output(options.output)
    from project.cli.error_handling import report_errors  # importing torch takes seconds

    with report_errors(["predict", *args]):
        return predict(folder, checkpoint, options.paths, options.top, options.batch_size, options.output)


def predict(
    folder: Path | None, checkpoint: Path, paths: Sequence[str], top: int, batch_size: int | None, output: Path | None
) -> Path:
    """Classify images; see ``run``. ``folder`` is the run directory of the checkpoint, or None."""
    from rich.console import Console
    from rich.progress import track

    from datamodules.reading.decode import printable
    from datamodules.reading.files import find_files
    from project.inference.predict import load_classifier, predict_files, reader_of

    inputs = find_files(expand(paths))
    passed_over = ""
    if others := inputs.passed_over:
        passed_over = f" ({len(others)} files without an image suffix were skipped, such as {printable(others[0])})"
    if not inputs.files and not inputs.problems:
        raise RunError(f"Expected images in {', '.join(paths)}, but found none.{passed_over}")
    classifier = load_classifier(folder, checkpoint)
    names = classifier.class_names
    width = max(map(len, names))
    answers = track(
        predict_files(classifier, reader_of(folder, classifier, inputs.files), batch_size),
        "Predicting",
        total=len(inputs.files),
        console=Console(stderr=True),
        transient=True,
        disable=not (sys.stdout.isatty() and sys.stderr.isatty()),
    )
    is_old = output is not None and output.exists()
    target = output or create_folder((folder or checkpoint.parent) / "predict")
    with Results(target, checkpoint, names, is_old) as results:
        for file, answer in itertools.chain(inputs.problems.items(), answers):
            if isinstance(answer, str):
                print(f"skipped: {printable(file)} {answer}", file=sys.stderr, flush=True)
                results.skipped.append({"file": file, "reason": answer})
                continue
            best = sorted(range(len(names)), key=answer.__getitem__, reverse=True)
            results.write(file, names[best[0]], answer)
            words = (f"{names[i]:<{width}} {answer[i]:6.1%}" for i in best[:top])
            print_line(f"{'  '.join(words)}  {printable(file)}")
        if not results.count:
            skipped = len(results.skipped)
            raise RunError(f"Expected images, but of {skipped} files none can be read.{passed_over} Use other files.")
    print_line(f"\nPredicted    {results.count} images by {checkpoint}{passed_over}")
    if results.skipped:
        print_line(f"Skipped      {len(results.skipped)} files; the reasons are in {NAMES[1]}")
    print_line(f"Predictions  {results.folder / NAMES[0]} and {NAMES[1]}")
    return results.folder


def check_output(folder: Path) -> None:
    """Check that an output directory holds no predictions.

    Raises:
        RunError: It holds some, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"Expected a directory at --output, but {folder} is a file.")
    if existing := [name for name in NAMES if (folder / name).exists()]:
        raise RunError(
            f"Expected a directory without results at --output, but {folder} has {existing[0]}. Use another one."
        )


def expand(paths: Iterable[str]) -> Iterator[str]:
    """Yield paths, with ``-`` replaced by the lines of stdin; file names need not be UTF-8."""
    for path in paths:
        if path == "-":
            yield from (os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line)
        else:
            yield path


class Results(AbstractContextManager):
    """Write predictions as CSV and JSON into a directory; both files exist only after success.

    File names that are not UTF-8 are escaped with backslashes in the CSV, and with surrogates in the JSON, as
    ``os.fsencode`` accepts them. The directory is removed after an error, unless ``is_old``.
    """

    def __init__(self, folder: Path, checkpoint: Path, class_names: Sequence[str], is_old: bool = False) -> None:
        self.folder, self._is_old = folder, is_old
        self.skipped: list[dict[str, str]] = []
        self.count = 0
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            suffix = f".{os.getpid()}.partial"  # another process may write to this directory
            csv_path, json_path = (files.enter_context(write_atomically(folder / name, suffix)) for name in NAMES)
            table = csv_path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
            self._rows = csv.writer(files.enter_context(table))
            self._json = files.enter_context(json_path.open("w", encoding="utf-8"))
            self._files = files.pop_all()
        self._rows.writerow(["path", "predicted", "confidence", *class_names])
        head = json.dumps({"checkpoint": str(checkpoint), "class_names": list(class_names)})
        self._json.write(f'{head[:-1]}, "images": [')

    def write(self, file: str, predicted: str, probabilities: list[float]) -> None:
        """Add an image."""
        digits = [f"{share:.9g}" for share in probabilities]  # enough for every float32
        self._rows.writerow([file, predicted, max(digits, key=float), *digits])
        image = {"file": file, "predicted": predicted, "probabilities": list(map(float, digits))}
        self._json.write(f"{',' if self.count else ''}\n{json.dumps(image)}")
        self.count += 1

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._json.write(f'\n], "skipped": {json.dumps(self.skipped, indent=0)}}}\n')
        self._files.__exit__(*error)
        if error[0] is not None and not self._is_old:
            with suppress(OSError):  # the directory was not empty
                self.folder.rmdir()


def print_line(line: str) -> None:
    """Print a line; ignore it if the reader of a pipe exited, such as ``head``."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
