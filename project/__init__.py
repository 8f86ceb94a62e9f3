"""The command line of the template: ``python -m project <command>``."""

__version__ = "0.1.0"
COMMANDS = ("fit", "validate", "test")  # of Lightning's Trainer
# one module each in project/commands/
EXTRA_COMMANDS = ("prepare", "preview", "predict", "export", "report", "runs", "sweep", "find-lr", "doctor")
