"""``export``: a run's classifier as a file that needs none of this project's code."""

from pathlib import Path

from project.commands.light_parser import LightParser, check_new, numbered, report_run_errors
from project.inference.formats import HOW, INSIDE, SUFFIXES, check_packages
from project.runs.config import load_config, setting
from project.runs.folders import find_checkpoint


def run(args: list[str]) -> Path:
    """Write the file, checked against the checkpoint, and return where it lies.

    Raises:
        SystemExit: There is no such run, or its network cannot be exported.
    """
    parser = LightParser(
        "export", "Write a run's classifier as a file that needs no code of here.", with_checkpoint=True
    )
    parser.add_argument("--format", required=True, choices=SUFFIXES, help="Kind of the file.")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="A new file; by default export/model.* in the run's folder."
    )
    parser.add_argument("--no_tta", action="store_true", help="Leave the views of model.tta out.")
    options = parser.parse_args(args)
    with report_run_errors():
        folder, checkpoint = find_checkpoint(options.run, Path(options.runs_dir), options.ckpt_path)
        if options.format == "onnx":
            check_packages()
        home = folder or checkpoint.parent
        path: Path = options.output or numbered(home / "export" / f"model{SUFFIXES[options.format]}")
        check_new(path)
    from project.cli.error_handling import report_errors  # takes seconds, and a mistake so far none

    with report_errors(["export", *args]):
        export(folder, checkpoint, options.format, path, options.no_tta)
    return path


def export(folder: Path | None, checkpoint: Path, kind: str, path: Path, no_tta: bool) -> None:
    """Do as ``run`` says, and say what is in the file."""
    from project.inference.export import BATCHES, INPUT, OUTPUT, TOLERANCE, export_classifier
    from project.inference.predict import check_exportable, load_classifier, reader_of

    classifier = load_classifier(folder, checkpoint)
    transforms = None if folder is None else setting(load_config(folder), "data.init_args.eval_transforms")
    if transforms:
        check_exportable(reader_of(folder, classifier, []), classifier)
    views, size, count = classifier.tta, classifier.hparams["image_size"], len(classifier.class_names)
    if no_tta:
        classifier.tta = []
    difference = export_classifier(classifier, kind, path)
    print(f"Export       {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"Checked      {sum(BATCHES)} random images in batches of {', '.join(map(str, BATCHES))} by {checkpoint}:")
    print(f"             greatest difference of a probability {difference:.1e}, tolerance {TOLERANCE:.0e}")
    print(f"Takes        {INPUT}: uint8 (N, 3, {size}, {size}), RGB, N from 1 on")
    print(f"Returns      {OUTPUT}: float32 (N, {count})")
    if views:
        print(f"Views        {', '.join(views)}: {'left out' if no_tta else 'their mean is inside'}")
    names = [one["class_path"].rpartition(".")[2] for one in transforms or []]
    if others := [name for name in names if name not in INSIDE]:
        print(f"Not inside   {', '.join(others)} of --data.eval_transforms: apply them before")
    print("To read it, and the names of the classes in it:")
    print("\n".join(f"  {line}" for line in HOW[kind].format(path=str(path)).splitlines()))
