"""What produced a run, at the end of its report."""

import html
from pathlib import Path

import torch
from report_runs import write_config

from project.report.page import render
from project.report.read import read_run
from project.runs import record


def test_origin_holds_command_line_commit_versions_and_hardware(finished_run: Path) -> None:
    info = record.read(finished_run)
    page = html.unescape(render([read_run(finished_run)]))
    origin = page[page.index('id="origin"') :]
    for words in (
        "python -m project fit --config",
        str(info["git"]["commit"]),
        torch.__version__.partition("+")[0],
        info["hardware"]["cpu"],
        f"--config {finished_run}/config.yaml",
    ):
        assert words in origin, words


def test_origin_lists_the_commands_that_resumed_a_run(tmp_path: Path) -> None:
    run = write_config(tmp_path / "a/2026-11-21_10-00-00")
    for command in (["fit", "--config", "a b.yaml"], ["fit", "--run", "last"]):
        record.begin(run, command)
        record.end(run, "interrupted", 1.0)
    page = html.unescape(render([read_run(run)]))
    assert "python -m project fit --config 'a b.yaml'" in page
    assert f"resumed {record.read(run)['resumed'][0]['at']}" in page
    assert "python -m project fit --run last" in page


def test_origin_of_a_run_without_a_record_says_so(tmp_path: Path) -> None:
    assert "not recorded" in render([read_run(write_config(tmp_path / "a/2026-11-21_10-00-00"))])
