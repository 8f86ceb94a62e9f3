"""``predict``: classify image files with a run's classifier."""

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
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
        RunError: The run does not exist.
        SystemExit: No image can be read.
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
    for name in NAMES if options.output is not None else ():
        if (options.output / name).exists():
            raise RunError(f"Expected a directory without results at --output, but {options.output} has {name}.")
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
    target = output or create_folder((folder or checkpoint.parent) / "predict")
    target.mkdir(parents=True, exist_ok=True)  # before hours of work
    images: list[dict[str, Any]] = []
    skipped = []
    for file, answer in itertools.chain(inputs.problems.items(), answers):
        if isinstance(answer, str):
            print(f"skipped: {printable(file)} {answer}", file=sys.stderr, flush=True)
            skipped.append({"file": file, "reason": answer})
            continue
        best = sorted(range(len(names)), key=answer.__getitem__, reverse=True)
        probabilities = [float(f"{share:.9g}") for share in answer]  # enough digits for every float32
        images.append({"file": file, "predicted": names[best[0]], "probabilities": probabilities})
        words = (f"{names[i]:<{width}} {answer[i]:6.1%}" for i in best[:top])
        print_line(f"{'  '.join(words)}  {printable(file)}")
    if not images:
        with suppress(OSError):  # it is not empty
            target.rmdir()
        raise RunError(f"Expected images, but of {len(skipped)} files none can be read.{passed_over}")
    content = {"checkpoint": str(checkpoint), "class_names": names, "images": images, "skipped": skipped}
    write_results(target, content)
    print_line(f"\nPredicted    {len(images)} images by {checkpoint}{passed_over}")
    if skipped:
        print_line(f"Skipped      {len(skipped)} files; the reasons are in {NAMES[1]}")
    print_line(f"Predictions  {target / NAMES[0]} and {NAMES[1]}")
    return target


def print_line(line: str) -> None:
    """Print a line; if the reader of a pipe has exited, such as ``head``, print nothing more."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def expand(paths: Iterable[str]) -> Iterator[str]:
    """Yield paths, with ``-`` replaced by the lines of stdin; file names need not be UTF-8."""
    for path in paths:
        if path == "-":
            yield from (os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line)
        else:
            yield path


def write_results(folder: Path, content: dict[str, Any]) -> None:
    """Write predictions as CSV and JSON.

    File names that are not UTF-8 are escaped with backslashes in the CSV, and with surrogates in the JSON, as
    ``os.fsencode`` accepts them.
    """
    rows = [["path", "predicted", "confidence", *content["class_names"]]]
    rows += [[x["file"], x["predicted"], max(x["probabilities"]), *x["probabilities"]] for x in content["images"]]
    with (
        write_atomically(folder / NAMES[0]) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file).writerows(rows)
    with write_atomically(folder / NAMES[1]) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
