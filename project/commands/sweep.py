"""``sweep``: train with several settings, each as a run of ``fit``, and compare the results."""

import sys
from importlib.util import find_spec
from pathlib import Path

from project.commands.light_parser import LightParser
from project.commands.runs import print_table
from project.errors import RunError
from project.runs.summary import shell_command


def run(args: list[str]) -> Path:
    """Start, join or resume a sweep, and return its directory.

    Raises:
        SystemExit: The sweep is invalid, or was stopped, or all its trials failed (code 1).
    """
    parser = LightParser("sweep", "Train with several settings. All other options are those of `fit`.")
    parser.add_argument("--sweep", type=Path, metavar="FILE", help="YAML file of options of fit, and their values.")
    parser.add_argument("--sweep_dir", metavar="DIR", help="Sweep to start, join or resume; `last` resumes the last.")
    parser.add_argument("--dry_run", action="store_true", help="Check the sweep, and print some of its commands.")
    parser.set_defaults(runs_dir=None)  # a config may have it
    options, fit_args = parser.parse_known_args(args)
    if find_spec("optuna") is None:
        raise RunError("Expected Optuna, but it is not installed. Run: python -m pip install optuna")
    from optuna.trial import TrialState

    from project.sweep import results, start, worker
    from project.sweep.study import Trials

    runs_dir = options.runs_dir or start.runs_dir_of(fit_args)
    folder, sweep = start.open_sweep(options.sweep_dir, options.sweep, runs_dir, fit_args, options.dry_run)
    resume = f"Resume:  {shell_command('project', 'sweep', '--sweep_dir', folder)}"
    if options.dry_run:
        return folder
    print(f"Sweep: {folder}", flush=True)
    trials = Trials(folder, sweep)
    if signal_number := worker.work(trials):
        print(f"\nStopped. {resume}", file=sys.stderr)
        raise SystemExit(128 + signal_number)
    print_table("", *results.trial_table(trials))
    if (means := results.mean_table(trials)) is not None:
        print_table("\nMean ± sample std (n - 1) over seeds and folds", *means)
    print(f"\nPage   {results.write_page(trials)}")
    if left := trials.having(TrialState.RUNNING):
        print(f"{len(left)} trials are run by other processes. If one is killed, its trial is resumed by the next.")
        print(resume)
    if reason := results.first_reason(trials):
        print(f"error: All {len(trials.study.trials)} trials failed. The first: {reason}", file=sys.stderr)
        raise SystemExit(1)
    return folder
