"""``predict``: classify image files with a run's classifier."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from atomic_files import write_atomically
from project.commands.light_parser import LightParser, positive, report_run_errors
from project.errors import RunError
from project.runs.folders import create_folder, find_checkpoint

if TYPE_CHECKING:
    from datamodules.reading.files import FileList

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
    parser.add_argument("--top", type=positive, default=3, help="Number of classes to print for each image.")
    parser.add_argument("--batch_size", type=positive, help="Images per batch. Default: that of the run.")
    parser.add_argument(
        "--output", type=Path, help="Output directory without results. Default: predict/<time> in the run directory."
    )
    options = parser.parse_args(args)
    with report_run_errors():
        folder, checkpoint = find_checkpoint(options.run, Path(options.runs_dir), options.ckpt_path)
        if options.output is not None:
            check_output(options.output)
    from project.cli.error_handling import report_errors  # importing torch takes seconds

    with report_errors(["predict", *args]):
        return predict(folder, checkpoint, options.paths, options.top, options.batch_size, options.output)


def predict(
    folder: Path | None, checkpoint: Path, paths: Sequence[str], top: int, batch_size: int | None, output: Path | None
) -> Path:
    """Classify images; see ``run``. ``folder`` is the run directory of the checkpoint, or None."""
    from datamodules.reading.decode import printable
    from datamodules.reading.files import find_files
    from project.inference.predict import load_classifier, predict_files, reader_of

    inputs = find_files(expand(paths))
    if not inputs.files and not inputs.problems:
        raise RunError(f"Expected images in {', '.join(paths)}, but found none.{_skipped_suffixes(inputs)}")
    classifier = load_classifier(folder, checkpoint)
    answers = predict_files(classifier, reader_of(folder, classifier, inputs.files), batch_size)
    names = classifier.class_names
    width = max(map(len, names))
    skipped: list[dict[str, str]] = []

    def skip(file: str, reason: str) -> None:
        print(f"skipped: {printable(file)} {reason}", file=sys.stderr, flush=True)
        skipped.append({"file": file, "reason": reason})

    count = 0
    with results(output, folder or checkpoint.parent, checkpoint, names, skipped) as (target, write):
        for file, reason in inputs.problems.items():
            skip(file, reason)
        for file, answer in progress(answers, len(inputs.files)):
            if isinstance(answer, str):
                skip(file, answer)
                continue
            count += 1
            best = sorted(range(len(names)), key=answer.__getitem__, reverse=True)
            write(file, names[best[0]], answer)
            words = (f"{names[i]:<{width}} {answer[i]:6.1%}" for i in best[:top])
            print_line(f"{'  '.join(words)}  {printable(file)}")
        if not count:
            raise RunError(
                f"Expected images, but of {len(skipped)} files none can be read.{_skipped_suffixes(inputs)} Use other "
                "files."
            )
    print_line(f"\nPredicted    {count} images by {checkpoint}{_skipped_suffixes(inputs)}")
    if skipped:
        print_line(f"Skipped      {len(skipped)} files; the reasons are in {NAMES[1]}")
    print_line(f"Predictions  {target / NAMES[0]} and {NAMES[1]}")
    return target


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
        if path != "-":
            yield path
            continue
        for line in sys.stdin.buffer:
            if name := os.fsdecode(line.removesuffix(b"\n").removesuffix(b"\r")):
                yield name


@contextmanager
def results(
    output: Path | None, parent: Path, checkpoint: Path, names: Sequence[str], skipped: list[dict[str, str]]
) -> Iterator[tuple[Path, Callable[[str, str, list[float]], None]]]:
    """Yield an output directory, and a function that adds an image to its CSV and JSON, which are written atomically.

    File names that are not UTF-8 are escaped with backslashes in the CSV, and with surrogates in the JSON, as
    ``os.fsencode`` accepts them.
    """
    is_new = output is None or not output.exists()
    folder = output or create_folder(parent / "predict")
    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{os.getpid()}.partial"  # another process may write there too
    try:
        with (
            write_atomically(folder / NAMES[1], suffix) as json_path,
            write_atomically(folder / NAMES[0], suffix) as csv_path,
            csv_path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as table,
            json_path.open("w", encoding="utf-8") as document,
        ):
            rows = csv.writer(table)
            rows.writerow(["path", "predicted", "confidence", *names])
            head = json.dumps({"checkpoint": str(checkpoint), "class_names": list(names)})
            document.write(f'{head[:-1]}, "images": [')
            between = "\n"

            def write(file: str, predicted: str, answer: list[float]) -> None:
                nonlocal between
                digits = [f"{share:.9g}" for share in answer]  # enough for every float32
                rows.writerow([file, predicted, f"{max(answer):.9g}", *digits])
                head = json.dumps({"file": file, "predicted": predicted})
                document.write(f'{between}{head[:-1]}, "probabilities": [{", ".join(digits)}]}}')
                between = ",\n"

            yield folder, write
            document.write(f'\n], "skipped": {json.dumps(skipped, indent=0)}}}\n')
            check_output(folder)
    except BaseException:
        if is_new:
            with suppress(OSError):  # another process may have written there too
                folder.rmdir()
        raise


def progress(items: Iterator[tuple[str, list[float] | str]], total: int) -> Iterator[tuple[str, list[float] | str]]:
    """Yield items, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *("Predicting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # a file is not redirected above the bar
        transient=True,
    )
    with bar:
        yield from bar.track(items, total=total)


def print_line(line: str) -> None:
    """Print a line; ignore it if the reader of a pipe exited, such as ``head``."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _skipped_suffixes(inputs: "FileList") -> str:
    from datamodules.reading.decode import printable

    if not inputs.passed_over:
        return ""
    return (
        f" ({len(inputs.passed_over)} files without an image suffix were skipped, such as "
        f"{printable(inputs.passed_over[0])})"
    )
