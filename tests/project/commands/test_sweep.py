import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
from command_line import stop_of
from optuna.trial import TrialState

from project.__main__ import main
from project.sweep import results, worker
from project.sweep.plan import read_plan
from project.sweep.study import Sweep, Trials

ROOT = Path(__file__).parents[3]


@pytest.fixture
def sweep_of(fast: list[str], tmp_path: Path):
    """Return a function that returns the command line of a sweep."""

    def command(text: str, *options: str) -> list[str]:
        file = tmp_path / "plan.yaml"
        file.write_text(text)
        return ["sweep", *fast, f"--sweep={file}", f"--runs_dir={tmp_path / 'runs'}", *options]

    return command


class Finishes:
    """Stands for a process of ``fit`` that writes a run whose accuracy depends on the trial."""

    count, returncode = 0, 0

    def __init__(self, args, log) -> None:
        runs_dir = next(Path(arg.partition("=")[2]) for arg in args if arg.startswith("--runs_dir="))
        run = runs_dir / "fast" / str(Finishes.count)
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("seed_everything: 0\n")
        (run / "run.json").write_text(json.dumps({"state": "finished", "command": args}))
        (run / "metrics.csv").write_text(f"epoch,step,val/acc\n0,1,{0.5 + 0.1 * Finishes.count}\n")
        log.write(f"Run: {run}\n".encode())
        Finishes.count += 1

    def poll(self) -> int:
        return 0


class Fails(Finishes):
    """Stands for a process of ``fit`` that fails."""

    returncode = 2

    def __init__(self, args, log) -> None:
        log.write(f"error: Wrong: {args[-1]}\n".encode())

    def poll(self) -> int:
        return 2


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Finishes, "count", 0)
    monkeypatch.setattr(worker, "start", Finishes)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("model.optimizer.lrr: [0.1]", "'model.optimizer.lrr'. Did you mean lr?"),
        ("modle.optimizer.lr: [0.1]", "Did you mean --model.optimizer.lr?"),
        ("data.batch_size: [8, many]", "Expected PositiveInt for batch_size, but got many"),
        ("data.batch_size: {low: 0, high: 8}", "Expected PositiveInt for batch_size, but got 0"),
        ("model.network: [lightning_modules.networks.LeNet, lightning_modules.networks.LeNett]", "LeNet?"),
        ("data.folds: 5, data.fold: [0, 4, 5]", "Expected --data.folds of 2 or more, and a --data.fold below it"),
        ("data.fold: [0, 1]", "Expected --data.folds with --data.fold, but got none."),
        ("seed_everything: [0, 99999999999]", "numpy accepts from 0 to 4294967295. Change --seed"),
    ],
)
def test_a_wrong_option_is_reported_as_by_fit_before_any_trial(sweep_of, tmp_path, capsys, parameters, message) -> None:
    trials = "trials: 2\n" if "low:" in parameters else ""
    code, err = stop_of(sweep_of(f"{trials}parameters: {{{parameters}}}"), capsys)
    assert code == 2
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_each_trial_has_one_line_and_the_end_has_a_table_and_a_page(fake, sweep_of, tmp_path, capsys) -> None:
    folder = main(sweep_of("parameters: {model.optimizer.lr: [0.1, 0.01], seed_everything: [0, 1]}"))
    out = capsys.readouterr().out
    assert len(re.findall(r"^Trial \d of 4: lr 0.\d+, seed_everything \d \.\.\. val/acc \d+\.\d+%", out, re.M)) == 4
    assert re.search(r"^4 +0.01 +1 +80.00% .*finished", out, re.M)
    assert re.search(r"^0.01 +2 +75.00% ± 7.07%", out, re.M)
    assert folder.parent == tmp_path / "runs/sweeps/plan"
    commands = [json.loads(file.read_text())["command"] for file in (tmp_path / "runs").glob("fast/*/run.json")]
    assert all("--test_after_fit=false" in command for command in commands)
    page = (folder / "sweep.html").read_text()
    assert page.count('class="line"') == 4
    assert not re.search(r"https?://|src=|href=|<script", page)
    main(["sweep", "--sweep_dir=last", f"--runs_dir={tmp_path / 'runs'}"])
    assert Finishes.count == 4  # nothing was left to do
    assert "Trial" not in capsys.readouterr().out


def test_seeds_and_folds_end_in_mean_and_std_and_may_be_tested(fake, sweep_of, tmp_path, capsys) -> None:
    main(sweep_of("parameters: {seed_everything: [0, 1, 2]}", "--test_after_fit", "true"))
    assert re.search(r"^3 +60.00% ± 10.00%", capsys.readouterr().out, re.M)
    commands = [json.loads(file.read_text())["command"] for file in (tmp_path / "runs").glob("fast/*/run.json")]
    assert not any("--test_after_fit=false" in command for command in commands)


def test_if_all_trials_fail_the_first_reason_is_printed(fake, sweep_of, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(worker, "start", Fails)
    code, err = stop_of(sweep_of("parameters: {model.optimizer.lr: [0.1, 0.01]}"), capsys)
    assert code == 1
    assert err.splitlines()[-1] == "error: All 2 trials failed. The first: Wrong: --model.optimizer.lr=0.1"


def test_two_sweeps_of_one_file_do_not_disturb_each_other(fake, sweep_of) -> None:
    folders = [main(sweep_of("parameters: {model.optimizer.lr: [0.1]}")) for _ in range(2)]
    assert len({*folders}) == 2
    assert Finishes.count == 2


def test_a_sweep_with_a_directory_is_joined_with_the_same_settings_only(fake, sweep_of, tmp_path, capsys) -> None:
    options = (f"--sweep_dir={tmp_path / 'shared'}", "--data.batch_size=16")
    assert main(sweep_of("parameters: {model.optimizer.lr: [0.1]}", *options)) == tmp_path / "shared"
    assert main(sweep_of("parameters: {model.optimizer.lr: [0.1]}", *options)) == tmp_path / "shared"
    assert Finishes.count == 1
    code, err = stop_of(sweep_of("parameters: {model.optimizer.lr: [0.2]}", *options), capsys)
    assert code == 2
    assert "Expected the settings that" in err


def test_a_stopped_sweep_prints_how_to_resume_it(sweep_of, capsys, monkeypatch) -> None:
    monkeypatch.setattr(worker, "work", lambda trials: 2)
    code, err = stop_of(sweep_of("parameters: {model.optimizer.lr: [0.1]}"), capsys)
    assert code == 130
    assert re.search(r"Stopped. Resume:  .*-m project sweep --sweep_dir \S+/sweeps/plan/", err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Expected --sweep FILE, or the --sweep_dir of a sweep, but got neither."),
        (["--sweep_dir=last"], "for `last`, but found none. Start one with --sweep."),
        (["--sweep_dir=gone"], "but got gone."),
        (["--sweep=gone.yaml"], "No such file or directory: 'gone.yaml'"),
        (["--sweep=configs/sweeps/seeds.yaml", "--run=last"], "Expected no --run"),
        (["--sweep={tmp_path}/pruning.yaml"], "Expected arguments of Optuna's SuccessiveHalvingPruner in"),
    ],
)
def test_a_sweep_that_does_not_exist_is_reported(tmp_path, capsys, options, message) -> None:
    (tmp_path / "pruning.yaml").write_text("{parameters: {a: [0, 1]}, pruning: {min_resource: 0}}")
    options = [option.format(tmp_path=tmp_path) for option in options]
    code, err = stop_of(["sweep", *options, f"--runs_dir={tmp_path}"], capsys)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_without_optuna_the_command_that_installs_it_is_printed(capsys, monkeypatch) -> None:
    find = importlib.util.find_spec
    patched = lambda name: None if name == "optuna" else find(name)  # noqa: E731
    monkeypatch.setattr("project.commands.sweep.find_spec", patched)
    code, err = stop_of(["sweep", "--sweep=configs/sweeps/lr.yaml"], capsys)
    assert code == 2
    assert err == "error: Expected Optuna, but it is not installed. Run: python -m pip install optuna\n"


def test_metric_of_training_is_rejected(sweep_of, capsys) -> None:
    code, err = stop_of(sweep_of("{metric: train/loss, parameters: {model.optimizer.lr: [0.1]}}"), capsys)
    assert code == 2
    assert "Expected a metric of validation for a sweep" in err


def test_metric_of_the_sweep_selects_the_checkpoint(sweep_of, capsys, tmp_path) -> None:
    main(sweep_of("{metric: val/loss, parameters: {model.optimizer.lr: [0.1, 0.2]}}", "--dry_run"))
    lines = [line for line in capsys.readouterr().out.splitlines() if " fit " in line]
    assert len(lines) == 2
    assert "--checkpoint.monitor=val/loss" in shlex.split(lines[0])
    assert not (tmp_path / "runs").exists()


def test_page_shows_settings_results_and_failures(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "{method: random, trials: 8, parameters: {model.optimizer.lr: {low: 0.001, high: 1, log: true}, "
        "model.lr_scheduler: [lightning_modules.optim.OneCycle, '<b>'], data.batch_size: [32]}}"
    )
    sweep = Sweep(read_plan(file), [], "val/acc", "max", str(Path.cwd()))
    trials = Trials(tmp_path, sweep)
    for value in range(8):
        trial, log = trials.take()
        if value == 3:
            trials.end(trial, TrialState.FAIL, reason="<i>NaN</i>")
        else:
            trials.end(trial, TrialState.COMPLETE, 0.1 * value, run="runs/a", minutes=1.5)
        log.close()
    axes, lines = results.coordinates(trials)
    assert [axis[1] for axis in axes] == ["lr", "lr_scheduler", "val/acc"]
    assert {text for _, text in axes[1][2]} <= {"OneCycle", "<b>"}
    assert [rank for _, rank, _ in lines][-1] == 0  # the best is drawn last
    assert sum(results.importance(trials).values()) == pytest.approx(1)
    page = results.write_page(trials).read_text()
    assert "&lt;i&gt;NaN" in page
    assert "<b>" not in page
    assert "batch_size" not in page
