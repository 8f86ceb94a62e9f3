"""What fit, validate and test start from: which run, which checkpoint, and which settings have changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_modules.weights.safe_load import LoadError, load_safely
from project.errors import RunError
from project.resume.checkpoint import KEY
from project.runs import record
from project.runs.command_line import option_of, split_options
from project.runs.config import BEST, CONFIG, LAST, differences, load_config, setting
from project.runs.folders import all_runs, best_checkpoint, find_run, run_of_checkpoint
from project.runs.metrics import digest_of
from project.runs.options import OF_STARTING

FACTS = ("epoch", "global_step", "hyper_parameters")
# settings with which a finished run may be resumed, besides a larger limit
EXTENDING = ("trainer.max_time", "trainer.callbacks", "callbacks.")
LIMITS = ("trainer.max_epochs", "trainer.max_steps")
OF_TRAINER = ("loops", "optimizer_states", "lr_schedulers")  # what resuming needs
WEIGHTS = "To load only its weights, use --model.pretrained instead of --ckpt_path"


def expand_run(args: Sequence[str]) -> list[str]:
    """Replace ``--run``, or ``--ckpt_path`` without a config, with the options that load the run.

    ``fit`` resumes from last.ckpt; if it is missing, from best.ckpt, or else from scratch. Other commands use
    best.ckpt. With ``--run auto``, ``fit`` resumes the latest run of the same command line that is neither running nor
    finished, with the config files as they are now, and starts a new run if there is none.

    Raises:
        RunError: The run does not exist, or a command other than ``fit`` needs its best checkpoint and finds none.
    """
    command, groups = args[0], split_options(args[1:])
    options = dict(map(option_of, groups))
    for option in ("run", "ckpt_path"):
        if option in options and options[option] is None:
            raise RunError(f"Expected a value for --{option}, but got none.")
    name, checkpoint, runs_dir = options.get("run"), options.get("ckpt_path"), Path(options.get("runs_dir") or "runs")
    is_fit, run = command == "fit", None
    if is_fit and name == "auto":
        run = _latest_of(args, runs_dir)
    elif name is not None:
        run = find_run(name, runs_dir)
    elif not is_fit and checkpoint is not None and "config" not in options:
        run = run_of_checkpoint(Path(checkpoint))
    others: list[str] = []
    for group in groups:
        own = 0 if option_of(group)[0] != "run" else 1 if "=" in group[0] else 2  # --run and its value
        others += group[own:]
    if run is None:
        return [command, *others]
    config = [] if name == "auto" else ["--config", str(run / CONFIG)]  # the same command line has the same settings
    if checkpoint is None:
        files = [run / path for path in (LAST, BEST) if (run / path).is_file()] if is_fit else [best_checkpoint(run)]
        others += ["--ckpt_path", str(files[0])] if files else []
    return [command, *config, *others, "--run", str(run)]


def _latest_of(command: Sequence[str], runs_dir: Path) -> Path | None:
    """Return the latest run of a command line that is neither running nor finished."""
    for run in reversed(all_runs(runs_dir)):
        if record.read(run).get("command") == list(command) and record.state_of(run) not in ("running", "finished"):
            return run
    return None


class Resume:
    """The run and the checkpoint of a command, and the settings that differ from those of the checkpoint.

    Args:
        command: "fit", "validate" or "test".
        config: Its options, with ``run`` and ``ckpt_path`` as ``expand_run`` returns them.
        settings: The same options as they will be saved in config.yaml.

    Attributes:
        run: Directory of the run that ``fit`` resumes, or that the weights belong to; None for others.
        is_resumed: Whether ``fit`` continues in ``run``.
        file: The checkpoint; for ``validate`` and ``test``, it may also be a file of pretrained weights. None if
            training starts from scratch or from pretrained weights.
        digest: Digest of ``file`` for ``validate`` and ``test``, during which a training may replace it.
        epoch: Epoch of the checkpoint, from 1.
        step: Number of optimizer steps before the checkpoint was written.
        hyper_parameters: Arguments of the module that the checkpoint was trained with.
        state: What ``Checkpoint`` saved about the run; {} for a checkpoint of another program.
        settings: Settings of the run, without options that apply only to this start.
        changes: (dotted key, old value, new value) of each setting that differs from the one that the checkpoint was
            trained with. The run's config may differ from both, because it records starts that wrote no checkpoint.

    Raises:
        RunError: The run or the checkpoint is missing, invalid or in use, or cannot be resumed with these settings.
    """

    def __init__(self, command: str, config: Any, settings: dict[str, Any]) -> None:
        self.command = command
        self.run = Path(config.run) if config.run is not None else None
        self.is_resumed = command == "fit" and self.run is not None
        self.settings = {key: value for key, value in settings.items() if key not in OF_STARTING}
        self.file: str | None = config.ckpt_path
        self.digest: str | None = None
        if self.run is not None and self.is_resumed:
            record.check_not_running(self.run)
        if command != "fit":
            self.file = self.file or config.get("model.init_args.pretrained")
            if self.file is None:
                raise RunError(f"Expected weights to {command}. Set --run last, --ckpt_path or --model.pretrained.")
            if Path(self.file).is_file():  # before its content is read: a training may replace it
                self.digest = digest_of(Path(self.file))
        content: dict[str, Any] = {}
        if config.ckpt_path is not None:
            content = _read_checkpoint(config.ckpt_path, command == "fit", config.weights_only is not False)
            if command != "fit":
                self.run = self.run or run_of_checkpoint(Path(config.ckpt_path))
        elif self.file is not None:
            content = facts_of_weights(self.file)
        self.epoch: int | None = content["epoch"] + 1 if "epoch" in content else None
        self.step: int | None = content.get("global_step")
        self.hyper_parameters: dict[str, Any] = content.get("hyper_parameters") or {}
        self.state: dict[str, Any] = content.get(KEY) or {}
        self._content = content
        self.changes = self._compare() if command == "fit" else []

    def _compare(self) -> list[tuple[str, str, str]]:
        """Return ``changes``, after checking that the run can be resumed with them."""
        before = self.state.get("settings") or (load_config(self.run) if self.run is not None else None)
        if before is None:  # a new run, or a checkpoint without settings
            return []
        changes = [change for change in differences(before, self.settings) if change[0] not in OF_STARTING]
        for key, seed, now in changes:
            if key == "seed_everything" and self.file is not None:
                raise RunError(
                    f"Expected --seed_everything {seed} as before, because random states are restored, but got {now}. "
                    "Start a new run."
                )
        is_finished = self.run is not None and record.state_of(self.run) == "finished"
        old, new = ([_limit(config, key) for key in LIMITS] for config in (before, self.settings))
        is_longer = any(new_limit > old_limit for old_limit, new_limit in zip(old, new, strict=True))
        if is_finished and not is_longer and not any(key.startswith(EXTENDING) for key, *_ in changes):
            raise RunError(
                f"Expected an unfinished run, but {self.run} is finished. To resume it, increase --trainer.max_epochs "
                "or max_steps."
            )
        return changes

    def take_checkpoint(self) -> dict[str, Any]:
        """Return the content of the checkpoint for the trainer; it is read once, and not kept."""
        content, self._content = self._content, {}
        return content


def _limit(config: dict[str, Any], key: str) -> float:
    value = setting(config, key)
    return float("inf") if value in (None, -1) else float(value)


def facts_of_weights(file: str) -> dict[str, Any]:
    """Return epoch, step and hyperparameters of a file of weights that is a checkpoint of Lightning, or else {}."""
    try:
        loaded = load_safely(file)
    except LoadError:  # read_state_dict reports it
        return {}
    return {key: loaded[key] for key in FACTS} if isinstance(loaded, dict) and {*FACTS} <= loaded.keys() else {}


def _read_checkpoint(file: str, is_fit: bool, weights_only: bool) -> dict[str, Any]:
    """Return the content of a checkpoint.

    Raises:
        RunError: The file is missing or damaged, contains code, or is not a checkpoint of Lightning; or training would
            resume from it, and it holds only weights.
    """
    if not Path(file).is_file():
        raise RunError(f"Expected a checkpoint at --ckpt_path, but {file} does not exist.")
    expected = f"Expected a checkpoint of `fit` at --ckpt_path, but {file}"
    try:
        if weights_only:
            loaded = load_safely(file)
        else:
            rank_zero_warn(f"--weights_only false executes any code in {file}. Use it only with files that you trust.")
            loaded = torch.load(file, map_location="cpu", weights_only=False)
    except LoadError as error:
        needs_code = "needs code" in str(error)
        advice = ", or --weights_only false for a file of your own" if needs_code else ""
        raise RunError(f"{expected} {error}. Use RUN/checkpoints/last.ckpt or best.ckpt{advice}.") from error
    needed = ("state_dict", "pytorch-lightning_version", *(OF_TRAINER if is_fit else ()))
    missing = [key for key in needed if not isinstance(loaded, dict) or key not in loaded]
    if missing:
        raise RunError(f"{expected} has no {', '.join(missing)}. {WEIGHTS}.")
    return loaded
