"""The options of fit, validate and test that are not those of Lightning's classes."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser

from project import COMMANDS
from project.cli.named_callbacks import default_callbacks
from project.cli.parser import LINKED
from project.resume.checkpoint import Checkpoint

USAGE = "python -m project {} [--config FILE ...] [--option VALUE ...]"
ORDER = "Options of the model and the data, then of the run, callbacks, checkpoints and the Trainer."
PARSERS = {name: {"usage": USAGE.format(name), "description": ORDER} for name in COMMANDS}


def add_options(
    parser: LightningArgumentParser, callbacks: Sequence[str], trained: Callable[[], dict[str, Any]]
) -> None:
    """Add options for run directories, callbacks and checkpoints, and link arguments of the data to the module.

    ``trained`` returns properties of the data that a checkpoint was trained on, which replace those of the data.
    """
    assert parser.groups is not None
    for name in ("model", "data"):  # instead of the first lines of the docstrings of Lightning's base classes
        parser.groups[name].title = f"Class of the {name}"
    parser.add_argument("--runs_dir", type=str, default="runs", help="Directory of all runs.")
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="Run directory, its name in runs_dir, `last` or `best`. validate, test: use its best checkpoint. "
        "fit: resume it; `auto` resumes the latest unfinished run of this command line, or starts a new one.",
    )
    parser.add_argument("--name", type=str | None, default=None, help="fit: name that ends the run directory's.")
    parser.add_argument("--test_after_fit", type=bool, default=False, help="fit: test the best checkpoint at the end.")
    parser.add_argument(
        "--report", type=bool, default=True, help="fit, test: write report.html in the run directory at the end."
    )
    parser.add_argument(
        "--auto_precision",
        type=bool,
        default=False,
        help="Without --trainer.precision, use bf16-mixed if it is faster on this processor.",
    )
    group = parser.add_argument_group(
        "Callbacks by name",
        "--callbacks.NAME.ARGUMENT VALUE, --callbacks.NAME false, or --callbacks.NAME CLASS for your own; "
        "--callbacks.NAME.help CLASS lists arguments, and --callbacks false switches all off. Names: "
        f"{', '.join(callbacks)}.",
    )
    defaults = default_callbacks()
    for name in callbacks:
        group.add_argument(f"--callbacks.{name}", type=Callback | Literal[False] | None, default=defaults.get(name))
    group._group_actions.clear()  # the help has one paragraph for all; jsonargparse saves no hidden options
    parser.add_lightning_class_args(Checkpoint, "checkpoint")
    parser.set_defaults(
        {
            "checkpoint.monitor": "val/acc",
            "checkpoint.mode": "max",
            "checkpoint.filename": "best",
            "checkpoint.save_last": True,
            "checkpoint.auto_insert_metric_name": False,
            "checkpoint.enable_version_counter": False,
        }
    )
    trainer = parser.groups["trainer"]
    # the help ends with the longest group
    parser._action_groups = sorted(parser._action_groups, key=lambda group: group is trainer)
    for name in LINKED:

        def prefer_trained(value: Any, name: str = name) -> Any:
            trained_value = trained().get(name)
            return value if trained_value is None else trained_value

        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", prefer_trained, apply_on="instantiate")
