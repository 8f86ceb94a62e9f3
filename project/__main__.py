"""Entry point of ``python -m project``. Handles --help and --version without importing torch, which takes seconds."""

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from project import COMMANDS, EXTRA_COMMANDS, __version__
from project.errors import RunError, debugging, did_you_mean
from project.runs.command_line import expand_homes

HELP = """\
usage: python -m project <command> [options]

Train and inspect image classifiers.

commands:
  fit       train:     python -m project fit --config configs/resnet.yaml
  validate  evaluate on the validation images: python -m project validate --run last
  test      evaluate on the test images:       python -m project test --run last
  prepare   prepare the images and print a summary: python -m project prepare --config configs/resnet.yaml
  preview   draw augmented training images:    python -m project preview --config configs/resnet.yaml
  report    write report.html of a run, or of two side by side: python -m project report last
  sweep     train with several settings:       python -m project sweep --config RECIPE --sweep configs/sweeps/lr.yaml
  find-lr   suggest a learning rate:           python -m project find-lr --config configs/resnet.yaml
  doctor    find faults before training, or in a run: python -m project doctor --config configs/resnet.yaml, --run last
  runs      list all runs, or compare two:     python -m project runs [compare last best]
  predict   classify images:                   python -m project predict --run last cat.png photos/
  export    write a classifier that runs without this project: python -m project export --run last --format onnx
  schema    print a JSON schema of recipes, for editors: python -m project schema > configs/schema.json

options:
  -h, --help      show this message; `python -m project <command> --help` lists all options of a command
  --version       show the version

Configs come first; later ones override earlier ones, and options after them override any value:
  python -m project fit --config configs/lenet.yaml --config configs/sample.yaml --trainer.max_epochs 3
To train offline on a small sample, add --config configs/sample.yaml after the recipe.
To train on several devices, add --config configs/ddp.yaml --trainer.devices 4 after the recipe.
Set PROJECT_DEBUG=1 to see full tracebacks.
"""


def main(args: Sequence[str] | None = None) -> Any:
    """Run one command.

    Args:
        args: Command and options. Default: ``sys.argv[1:]``.

    Returns:
        For fit, validate and test, the ``project.cli.cli.CLI`` with ``trainer``, ``model``, ``datamodule`` and
        ``output_dir``. For other commands, the result of their ``run``. None after --help and --version.

    Raises:
        SystemExit: After one line on stderr, with code 2 for a user error and 1 for other errors.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # characters that the terminal cannot encode must not raise
    args = expand_homes(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return None
    if args[0] == "--version":
        print(f"project {__version__}")
        return None
    known = (*COMMANDS, *EXTRA_COMMANDS)
    if args[0] not in known:
        hint = did_you_mean(args[0], known)
        print(f"error: Expected a command ({', '.join(known)}), but got {args[0]!r}.{hint}", file=sys.stderr)
        raise SystemExit(2)
    try:
        if args[0] in EXTRA_COMMANDS:
            return importlib.import_module(f"project.commands.{args[0].replace('-', '_')}").run(args[1:])
        if "torch" not in sys.modules and sys.stdout.isatty():
            print("Loading PyTorch Lightning, which takes some seconds ...", flush=True)
        from project.cli.cli import run

        return run(args)
    except BrokenPipeError:  # the reader of a pipe has exited, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise, Python's last flush fails
        raise SystemExit(1) from None
    except (RunError, OSError) as error:  # most commands that import torch report their own errors
        if debugging():
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:  # for example, while torch is imported
        print("\nInterrupted. Incomplete results were discarded. Run the command again.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
