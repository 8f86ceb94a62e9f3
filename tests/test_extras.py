"""Each extra can be removed by deleting the files that docs/options.md lists."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/options.md").read_text().partition("## Extras")[2]
ROWS = re.findall(r"^\| (.+?) \| .+ \| (`.+`) \|$", PAGE, re.MULTILINE)
FILES = {extra: re.findall(r"`(.+?)`", files) for extra, files in ROWS}


def run(folder: Path, *command: str) -> None:
    """Run a Python module in a folder; fail with its output."""
    result = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of mypy that the copies share."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.slow
@pytest.mark.parametrize("extra", FILES)
def test_project_works_without_an_extra(extra: str, cache: Path, sample_root: Path, tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.rstrip("\0").split("\0"):
        if (ROOT / name).is_file() and not name.startswith("scripts/results/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for name in FILES[extra]:
        (shutil.rmtree if (tmp_path / name).is_dir() else Path.unlink)(tmp_path / name)

    run(tmp_path, "ruff", "check", ".")
    run(tmp_path, "ruff", "format", "--check", ".")
    run(tmp_path, "mypy", f"--cache-dir={cache}")
    recipe = ("--config=configs/resnet.yaml", "--config=configs/sample.yaml", "--model.network.depth=20")
    limits = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1")
    run(tmp_path, "project", "fit", *recipe, *limits, f"--data.root={sample_root}", "--data.num_workers=0")
    assert list(tmp_path.glob("runs/*/*/checkpoints/best.ckpt"))
    run(tmp_path, "project", "--help")
    run(tmp_path, "pytest", "--collect-only", "-q")
    run(tmp_path, "pytest", "-q", "tests/test_imports.py", "tests/test_configs.py")


def test_extras_are_listed_with_their_recipes() -> None:
    listed = {file for files in FILES.values() for file in files}
    assert all((ROOT / file).exists() for file in listed)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lightning_modules/extras").glob("*.py")}
    assert modules - {"lightning_modules/extras/__init__.py"} <= listed
