import json
from pathlib import Path

import pytest
from command_line import check_that_it_changes_nothing, stop_of

from project.__main__ import main
from project.doctor.run import read_facts


def test_a_healthy_recipe_gets_a_clean_bill_and_only_a_result_is_written(fast, tmp_path: Path, capsys) -> None:
    path = main(["doctor", *fast, f"--runs_dir={tmp_path}"])
    out = capsys.readouterr().out
    assert "Healthy: none of " in out
    assert f"Result: {path}" in out
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    result = json.loads(path.read_text())
    assert result["verdict"] == "healthy"
    assert list(result) == ["verdict", "alarms", "alternatives", "notes", "not_checked", "version"]


def test_an_alarm_names_the_option_to_change(fast, tmp_path: Path, capsys) -> None:
    args = ["doctor", *fast, "--model.optimizer.lr=20", f"--runs_dir={tmp_path}"]
    result = json.loads(main(args).read_text())
    lines = capsys.readouterr().out
    assert result["alarms"][0]["cause"] == "lr_too_high"
    assert result["alarms"][0]["remedy"]["option"] == "model.optimizer.lr"
    assert f"--model.optimizer.lr {result['alarms'][0]['remedy']['value']}" in lines


def test_a_silenced_cause_is_no_alarm(fast, tmp_path: Path) -> None:
    args = ["doctor", *fast, "--model.lr_scheduler.pct_start=0.9", f"--runs_dir={tmp_path}"]
    assert json.loads(main(args).read_text())["alarms"][0]["cause"] == "peak_too_late"
    silenced = json.loads(main([*args, "--silence=peak_too_late"]).read_text())
    assert silenced["verdict"] == "healthy"
    assert "peak_too_late is silenced." in silenced["notes"]


def test_a_following_run_and_the_random_states_are_as_before(fast, tmp_path: Path) -> None:
    check_that_it_changes_nothing("doctor", fast, tmp_path)


@pytest.mark.parametrize("recipe", ["metric", "autoencoder"])
def test_modules_other_than_classifiers_get_no_alarm(recipe: str, fast, tmp_path: Path) -> None:
    configs = ["--config", f"configs/{recipe}.yaml", *fast[2:]]
    assert json.loads(main(["doctor", *configs, f"--runs_dir={tmp_path}"]).read_text())["verdict"] == "healthy"


def test_an_unknown_cause_and_a_run_are_rejected(fast, tmp_path: Path, capsys) -> None:
    code, err = stop_of(["doctor", *fast, "--silence=lr_to_high", f"--runs_dir={tmp_path}"], capsys)
    assert code == 2
    assert "'lr_to_high'. Did you mean lr_too_high?" in err
    code, err = stop_of(["doctor", *fast, "--model.optimizer.lrr=1", f"--runs_dir={tmp_path}"], capsys)
    assert code == 2
    assert "Did you mean lr?" in err
    assert not any(tmp_path.rglob("doctor.json"))


@pytest.mark.slow
def test_a_remedy_is_tried_without_leaving_anything_behind(fast, tmp_path: Path, capsys) -> None:
    args = ["doctor", *fast, "--model.optimizer.weight_decay=3", f"--runs_dir={tmp_path}", "--treat", "--minutes=0.3"]
    path = main(args)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    tried = json.loads(path.read_text())["alarms"][0]["tried"]
    assert tried["verdict"] in ("confirmed", "no difference")
    assert tried["says"] in capsys.readouterr().out


def test_a_finished_run_is_judged_from_its_files(finished_run: Path, capsys) -> None:
    path = main(["doctor", f"--run={finished_run}", "--silence=peak_too_late"])
    out = capsys.readouterr().out
    assert path == finished_run / "doctor.json"
    assert f"Result: {path}" in out
    assert "peak_too_late is silenced." in json.loads(path.read_text())["notes"]


def test_a_run_without_facts_and_an_unknown_cause_are_rejected(plain_run: Path, finished_run: Path, capsys) -> None:
    code, err = stop_of(["doctor", f"--run={plain_run}"], capsys)
    assert code == 2
    assert f"Expected {plain_run / 'doctor_facts.json'}, which the callback `doctor` writes" in err
    code, err = stop_of(["doctor", f"--run={finished_run}", "--silence=leek"], capsys)
    assert code == 2
    assert "'leek'. Did you mean leak?" in err


def test_facts_of_a_run_include_its_curves(finished_run: Path) -> None:
    facts = read_facts(finished_run)
    assert facts["epochs"] == facts["planned_epochs"] == len(facts["train_accs"]) == len(facts["val_losses"]) == 2
    assert facts["val_acc"] == pytest.approx(facts["val_accs"][-1])


@pytest.mark.parametrize(("action", "epochs"), [("warn", 2), ("stop", 1)])
def test_an_alarm_in_training_is_printed_once_and_only_stops_it_if_asked_to(
    action: str, epochs: int, fast, tmp_path: Path, capsys
) -> None:
    options = ["--callbacks=false", "--callbacks.doctor=true", f"--callbacks.doctor.action={action}"]
    late = "--model.lr_scheduler.pct_start=0.9"  # known before the first step
    run = main(["fit", *fast, *options, late, f"--runs_dir={tmp_path}"])
    assert capsys.readouterr().out.count("Alarm (") == 1
    assert json.loads((run.run_dir / "doctor.json").read_text())["alarms"][0]["cause"] == "peak_too_late"
    assert run.trainer.current_epoch == epochs
    assert run.trainer.global_step == (24 if action == "warn" else 1)
