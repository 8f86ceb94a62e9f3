"""Start a sweep, or find one."""

from contextlib import suppress
from pathlib import Path

import yaml
from optuna.pruners import SuccessiveHalvingPruner

from project.errors import RunError
from project.runs.command_line import config_files, option_of, split_options
from project.runs.config import read_yaml
from project.runs.folders import create_folder
from project.runs.summary import shell_command
from project.sweep.plan import REPEATS, Plan, extremes, options_of, read_plan
from project.sweep.study import FILE, LOCK, Sweep, locked, read_sweep, write_sweep


def open_sweep(
    name: str | None, file: Path | None, runs_dir: Path, args: list[str], dry_run: bool = False
) -> tuple[Path, Sweep]:
    """Return the directory and the content of a sweep.

    Args:
        name: Directory of the sweep, which may exist; "last"; or None for a new directory in ``runs_dir``.
        file: The sweep file; None for a sweep that exists.
        runs_dir: Directory of all runs.
        args: Options of ``fit``.
        dry_run: Check and print commands of ``fit``, and write nothing.

    Raises:
        RunError: The sweep does not exist, or has other settings.
        SystemExit: A trial would fail.
    """
    folder = Path(name) if name not in (None, "last") else None
    if name == "last":
        sweeps = sorted(runs_dir.glob(f"sweeps/*/*/{FILE}"), key=lambda path: path.stat().st_mtime)
        if not sweeps:
            raise RunError(f"Expected a sweep in {runs_dir}/sweeps for `last`, but found none. Start one with --sweep.")
        folder = sweeps[-1].parent
    if file is None:
        if folder is None or not (folder / FILE).is_file():
            raise RunError(f"Expected --sweep FILE, or the --sweep_dir of a sweep, but got {name or 'neither'}.")
        if args:
            raise RunError(f"Expected the options that {folder} was started with, and no {args[0]}. Add --sweep.")
        return folder, read_sweep(folder)
    plan = read_plan(file)
    try:
        SuccessiveHalvingPruner(**plan.pruning or {})
    except (TypeError, ValueError) as error:
        raise RunError(
            f"Expected arguments of Optuna's SuccessiveHalvingPruner in {file}, but got: {error}."
        ) from error
    common = _common_options(plan, [*args, f"--runs_dir={runs_dir}"])
    if folder is not None and (folder / FILE).is_file():
        sweep = read_sweep(folder)
        if (sweep.plan, sweep.args) != (plan, common):
            raise RunError(f"Expected the settings that {folder} was started with. To resume it, set only --sweep_dir.")
        return folder, sweep
    from project.sweep.check import check  # imports torch, which takes seconds

    commands = [["fit", *common, *options_of(parameters)] for parameters in extremes(plan)]
    if dry_run:
        print("\n".join(shell_command("project", *command) for command in commands))
    sweep = Sweep(plan, common, *check(commands), str(Path.cwd()))
    if dry_run:
        return Path(), sweep
    folder = folder or create_folder(runs_dir / "sweeps" / file.stem)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK):
        if not (folder / FILE).is_file():  # of another process that started at the same time
            write_sweep(folder, sweep)
    return folder, read_sweep(folder)


def runs_dir_of(args: list[str]) -> Path:
    """Return the ``runs_dir`` of the configs of a command line, or else its default."""
    given = "runs"
    for file in config_files(args):
        with suppress(yaml.YAMLError, UnicodeDecodeError):  # ``fit`` reports them
            content = read_yaml(file.read_text(encoding="utf-8"), str(file))
            given = (isinstance(content, dict) and content.get("runs_dir")) or given
    return Path(given)


def _common_options(plan: Plan, args: list[str]) -> list[str]:
    """Return the options of ``fit`` that all trials share."""
    given = dict(map(option_of, split_options(args)))
    for option in ("run", "ckpt_path"):
        if option in given:
            raise RunError(f"Expected no --{option}, because each trial of a sweep is a new run.")
    metric = [] if plan.metric is None else [f"--checkpoint.monitor={plan.metric}"]
    # a test must not influence the choice of settings; repeats choose none
    untested = [] if set(plan.swept) <= set(REPEATS) else ["--test_after_fit=false"]
    return [*args, *metric, *untested]
