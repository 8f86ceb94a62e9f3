from pathlib import Path

import pytest
import yaml
from lightning.pytorch.profilers import SimpleProfiler

from project.__main__ import main
from project.cli.profiler import NoProfiler


@pytest.mark.parametrize(("options", "kind"), [([], NoProfiler), (["--trainer.profiler=simple"], SimpleProfiler)])
def test_profiler_of_the_user_profiles(fast: list[str], tmp_path: Path, options: list[str], kind: type) -> None:
    cli = main(["fit", *fast, *options, "--trainer.fast_dev_run=true", f"--runs_dir={tmp_path}"])
    assert type(cli.trainer.profiler) is kind
    (config,) = tmp_path.rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["trainer"]["profiler"] == (options[0].split("=")[1] if options else None)
