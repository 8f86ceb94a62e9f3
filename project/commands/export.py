"""``export``: write a run's classifier to a file that runs without this project's code."""

from pathlib import Path

from project.commands.light_parser import LightParser, check_new, numbered
from project.runs.config import load_config, setting
from project.runs.folders import find_checkpoint

SUFFIXES = {"torch_export": ".pt2", "onnx": ".onnx"}  # of each format


def run(args: list[str]) -> Path:
    """Write the file, compare its output with the checkpoint's, and return its path.

    Raises:
        RunError: The run does not exist.
        SystemExit: Its network cannot be exported.
    """
    parser = LightParser(
        "export", "Write a run's classifier to a file that runs without this project.", with_checkpoint=True
    )
    parser.add_argument("--format", required=True, choices=SUFFIXES, metavar="FORMAT", help=" or ".join(SUFFIXES))
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="A new file. Default: export/model.* in the run directory."
    )
    options = parser.parse_args(args)
    folder, checkpoint = find_checkpoint(options.run, options.runs_dir, options.ckpt_path)
    home = folder or checkpoint.parent
    path: Path = options.output or numbered(home / "export" / f"model{SUFFIXES[options.format]}")
    check_new(path)
    from project.cli.error_handling import report_errors  # importing torch takes seconds

    with report_errors(["export", *args]):
        export(folder, checkpoint, options.format, path)
    return path


def export(folder: Path | None, checkpoint: Path, kind: str, path: Path) -> None:
    """Export a checkpoint, and print the inputs and outputs of the file."""
    from project.inference.export import BATCHES, INPUT, OUTPUT, TOLERANCE, export_classifier
    from project.inference.predict import check_exportable, load_classifier, reader_of

    classifier = load_classifier(folder, checkpoint)
    transforms = None if folder is None else setting(load_config(folder), "data.init_args.eval_transforms")
    if transforms:
        check_exportable(reader_of(folder, classifier, []), classifier)
    views, size, count = classifier.tta, classifier.hparams["image_size"], len(classifier.class_names)
    channels = len(classifier.mean)
    difference = export_classifier(classifier, kind, path)
    print(f"Export       {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"Checked      {sum(BATCHES)} random images in batches of {', '.join(map(str, BATCHES))} by {checkpoint}:")
    print(f"             largest difference of a probability {difference:.1e}, tolerance {TOLERANCE:.0e}")
    print(f"Takes        {INPUT}: uint8 (N, {channels}, {size}, {size}){', RGB' if channels == 3 else ''}, N >= 1")
    print(f"Returns      {OUTPUT}: float32 (N, {count})")
    if views:
        print(f"Views        {', '.join(views)}: averaged in the file")
    if transforms:
        names = ", ".join(entry["class_path"].rpartition(".")[2] for entry in transforms)
        print(f"Transforms   {names} are not included, except normalisation: apply them to the images first")
    print("To load      see docs/export.md: the class names are in the file")
