"""``predict``: what a run takes images for."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from project.commands.light_parser import LightParser, positive, report_run_errors
from project.errors import RunError
from project.runs.folders import create_folder, find_checkpoint

if TYPE_CHECKING:
    from datamodules.reading.files import Found

NAMES = ("predictions.csv", "predictions.json")


def run(args: list[str]) -> Path:
    """Print the likeliest classes of images, write all probabilities, and return the folder that they are in.

    Raises:
        SystemExit: There is no such run, or no image.
    """
    parser = LightParser("predict", "Say what a run takes images for.", with_checkpoint=True)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="Image file, folder, glob in quotes, or - for a list of them on stdin. What is of another size "
        "or shape is brought to the run's as its data is (--data.resize): by default, the middle square is taken.",
    )
    parser.add_argument("--top", type=positive, default=3, help="Classes to print of each image.")
    parser.add_argument("--batch_size", type=positive, help="Images at a time; by default as in the run.")
    parser.add_argument("--output", type=Path, help="Folder without results; by default predict/<time> in the run's.")
    options = parser.parse_args(args)
    with report_run_errors():
        folder, checkpoint = find_checkpoint(options.run, Path(options.runs_dir), options.ckpt_path)
        if options.output is not None:
            check_output(options.output)
    from project.cli.error_handling import report_errors  # takes seconds, and a mistake so far none

    with report_errors(["predict", *args]):
        return predict(folder, checkpoint, options.paths, options.top, options.batch_size, options.output)


def predict(
    folder: Path | None, checkpoint: Path, paths: Sequence[str], top: int, batch_size: int | None, output: Path | None
) -> Path:
    """Do as ``run`` says; the folder is that of the checkpoint's run, if it lies in one."""
    from datamodules.reading.decode import printable
    from datamodules.reading.files import find_files
    from project.inference.predict import load_classifier, predict_files, reader_of

    found = find_files(expand(paths))
    if not found.files and not found.problems:
        raise RunError(f"Expected images in {', '.join(paths)}, but got none.{_passed_over(found)}")
    classifier = load_classifier(folder, checkpoint)
    answers = predict_files(classifier, reader_of(folder, classifier, found.files), batch_size)
    names = classifier.class_names
    width = max(map(len, names))
    skipped: list[dict[str, str]] = []

    def skip(file: str, reason: str) -> None:
        print(f"skipped: {printable(file)} {reason}", file=sys.stderr, flush=True)
        skipped.append({"file": file, "reason": reason})

    count = 0
    with results(output, folder or checkpoint.parent, checkpoint, names, skipped) as (target, write):
        for file, reason in found.problems.items():
            skip(file, reason)
        for file, answer in progress(answers, len(found.files)):
            if isinstance(answer, str):
                skip(file, answer)
                continue
            count += 1
            best = sorted(range(len(names)), key=answer.__getitem__, reverse=True)
            write(file, names[best[0]], answer)
            words = (f"{names[i]:<{width}} {answer[i]:6.1%}" for i in best[:top])
            say(f"{'  '.join(words)}  {printable(file)}")
        if not count:
            raise RunError(
                f"Expected images, but of {len(skipped)} files none can be read.{_passed_over(found)} Give others, or "
                "a folder of them."
            )
    say(f"\nPredicted    {count} images by {checkpoint}{_passed_over(found)}")
    if skipped:
        say(f"Skipped      {len(skipped)} files, with the reasons in {NAMES[1]}")
    say(f"Predictions  {target / NAMES[0]} and {NAMES[1]}")
    return target


def check_output(folder: Path) -> None:
    """Check that a folder for results holds none yet.

    Raises:
        RunError: It does, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"Expected a folder at --output, but {folder} is a file.")
    if there := [name for name in NAMES if (folder / name).exists()]:
        raise RunError(
            f"Expected a folder without results at --output, but {folder} holds {there[0]}. Give another, or remove it."
        )


def expand(paths: Iterable[str]) -> Iterator[str]:
    """Yield paths, and those that stdin lists in the place of ``-``, whatever bytes their names are made of."""
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
    """Yield a folder, and what writes an image's line into its CSV and JSON; these are there at the end or not at all.

    Names of files that are no UTF-8 have backslashes in the CSV, and are in the JSON as ``os.fsencode`` wants them.
    """
    made = output is None or not output.exists()
    folder = output or create_folder(parent / "predict")
    folder.mkdir(parents=True, exist_ok=True)
    partial = [folder / f"{name}.{os.getpid()}.partial" for name in NAMES]  # another process may write there too
    try:
        with (
            partial[0].open("w", encoding="utf-8", errors="backslashreplace", newline="") as table,
            partial[1].open("w", encoding="utf-8") as document,
        ):
            rows = csv.writer(table)
            rows.writerow(["path", "predicted", "confidence", *names])
            head = json.dumps({"checkpoint": str(checkpoint), "class_names": list(names)})
            document.write(f'{head[:-1]}, "images": [')
            between = "\n"

            def write(file: str, predicted: str, answer: list[float]) -> None:
                nonlocal between
                digits = [f"{share:.9g}" for share in answer]  # as many as tell all float32 apart
                rows.writerow([file, predicted, f"{max(answer):.9g}", *digits])
                head = json.dumps({"file": file, "predicted": predicted})
                document.write(f'{between}{head[:-1]}, "probabilities": [{", ".join(digits)}]}}')
                between = ",\n"

            yield folder, write
            document.write(f'\n], "skipped": {json.dumps(skipped, indent=0)}}}\n')
        check_output(folder)
        for path, name in zip(partial, NAMES, strict=True):
            os.replace(path, folder / name)
    except BaseException:  # an interruption too: half of the predictions would pass for all
        for path in partial:
            path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):  # another process may have written there too
                folder.rmdir()
        raise


def progress(items: Iterator[tuple[str, list[float] | str]], total: int) -> Iterator[tuple[str, list[float] | str]]:
    """Yield items, and show on a terminal how many there have been."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *("Predicting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # what goes into a file is no line above the bar
        transient=True,
    )
    with bar:
        yield from bar.track(items, total=total)


def say(line: str) -> None:
    """Print a line, unless whoever reads, as ``head``, has gone."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _passed_over(found: "Found") -> str:
    from datamodules.reading.decode import printable

    if not found.passed_over:
        return ""
    return (
        f" ({len(found.passed_over)} files in folders have no suffix of an image, as "
        f"{printable(found.passed_over[0])}: passed over)"
    )
