"""Answer --help and --version at once; import torch, which takes seconds, only to do some work."""

import importlib
import io
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from project import COMMANDS, EXTRA_COMMANDS, __version__
from project.runs.command_line import expand_homes

HELP = """\
usage: python -m project <command> [options]

Train image classifiers and look inside them.

commands:
  fit       train:     python -m project fit --config configs/resnet.yaml
  validate  measure on the validation images:  python -m project validate --run last
  test      measure on the test images:        python -m project test --run last
  prepare   get the images ready and say what they hold: python -m project prepare --config configs/resnet.yaml
  preview   draw augmented training images:    python -m project preview --config configs/resnet.yaml
  report    write report.html of a run, or of two side by side: python -m project report last
  runs      list all runs, or tell what differs between two: python -m project runs [compare last best]
  export-scalars  write a run's curves as JSON: python -m project export-scalars last
  predict   say what images show:              python -m project predict --run last cat.png photos/
  export    write a classifier that needs none of this code: python -m project export --run last --format onnx

options:
  -h, --help      show this; `python -m project <command> --help` lists all options of a command
  --version       show the version

Configs come first and stack, later ones win; any value can be overridden behind them:
  python -m project fit --config configs/lenet.yaml --config configs/sample.yaml --trainer.max_epochs 3
Without a network, put --config configs/sample.yaml after the recipe: a small sample.
On several devices, put --config configs/ddp.yaml --trainer.devices 4 behind the recipe's.
Set PROJECT_DEBUG=1 to see whole tracebacks.
"""


def main(args: Sequence[str] | None = None) -> Any:
    """Run one command.

    Args:
        args: Command and options; by default those of the process.

    Returns:
        The ``project.cli.cli.CLI`` that ran, with ``trainer``, ``model``, ``datamodule`` and ``output_dir``; what the
        ``run`` of a further command returns; or None.

    Raises:
        SystemExit: With the reason in one line on stderr and code 2 for a mistake of the user, 1 for other errors.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name or a bar that a terminal cannot show must not end a command
    args = expand_homes(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return None
    if args[0] == "--version":
        print(f"project {__version__}")
        return None
    known = (*COMMANDS, *EXTRA_COMMANDS)
    if args[0] not in known:
        near = get_close_matches(args[0], known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"error: Expected a command ({', '.join(known)}), but got {args[0]!r}.{hint}", file=sys.stderr)
        raise SystemExit(2)
    try:
        if args[0] in EXTRA_COMMANDS:
            return importlib.import_module(f"project.commands.{args[0].replace('-', '_')}").run(args[1:])
        if "torch" not in sys.modules and sys.stdout.isatty():
            print("Loading PyTorch Lightning, which takes some seconds ...", flush=True)
        from project.cli.cli import run

        return run(args)
    except KeyboardInterrupt:  # while torch is imported, say
        print("\nInterrupted. What is half done does not count: start the command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
