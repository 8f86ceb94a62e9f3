"""Copies of the template with another name, complete, without each part, and without all of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from make_it_yours import PACKAGE
from parts import CHOICES, PARTS, TEMPLATE, read

ROOT = Path(__file__).parents[2]
ADDED = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "--quiet", "--message=Start"]


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a Python module or script in a folder, and return its output."""
    options = ["-m"] if not command[0].endswith(".py") else []
    result = subprocess.run([sys.executable, *options, *command], cwd=folder, capture_output=True, text=True)
    assert result.returncode == code, f"{' '.join(command)}:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
    return result.stdout + result.stderr


def clone(folder: Path) -> Path:
    """Return a repository with the present files of this one."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = (
        subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.rstrip("\0").split("\0")
    )
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"], ADDED):
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"))


REFUSED = {
    "class": "'class' is a keyword of Python. Set --package.",
    "bird!": "Expected a name of letters, digits, '-', '_' and '.', but got 'bird!'.",
    "numpy": "Expected a name that is free, but a package numpy is installed.",
    "Birds --package Birds": "'Birds' is no lower-case identifier.",
    "birds --package 2birds": "'2birds' is no lower-case identifier.",
    "birds --package json": "'json' is a module of Python, of an installed package or of this template.",
    "birds --package torch": "'torch' is a module of Python, of an installed package or of this template.",
    "birds --package tests": "'tests' is a module of Python, of an installed package or of this template.",
    "birds --package callbacks": "'callbacks' is a module of Python, of an installed package or of this template.",
    "birds --package conftest": "'conftest' is a module of Python, of an installed package or of this template.",
    "birds --without airbanch": "but got 'airbanch'. Did you mean airbench?",
    "birds --without runs": "Expected --without runs,sweep, because sweep needs runs.",
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", REFUSED)
def test_a_mistake_is_refused_in_one_line(arguments: str, unchanged: Path) -> None:
    message = run(unchanged, "scripts/make_it_yours.py", *arguments.split(), code=2)
    assert message.count("\n") == 1
    assert REFUSED[arguments] in message


@pytest.mark.slow
def test_a_tree_with_changes_is_refused(tmp_path: Path) -> None:
    folder = clone(tmp_path)
    (folder / "mine.txt").write_text("not committed")
    message = run(folder, "scripts/make_it_yours.py", "birds", code=2)
    assert message == "error: Expected no uncommitted changes, but got 1, such as mine.txt. Commit them first.\n"


def check(folder: Path) -> None:
    """Lint, import, check configs and pages, and train for two steps."""
    run(folder, "ruff", "check", ".")
    run(folder, "ruff", "format", "--check", ".")
    own = ["tests/test_imports.py", "tests/test_configs.py", "tests/test_readme.py", "tests/test_security.py"]
    run(folder, "pytest", "-q", "-m", "not slow", *own, "tests/test_environments.py")


@pytest.mark.slow
@pytest.mark.parametrize(("without", "parts"), [("", []), ("all", CHOICES)])
def test_a_copy_has_its_own_name_and_works(without: str, parts: list[str], sample_root: Path, tmp_path: Path) -> None:
    folder = clone(tmp_path)
    who = ["--holder=Ada Finch", "--security-contact=security@birds.example"]
    printed = run(folder, "scripts/make_it_yours.py", "bird-watcher", "--package=birds", f"--without={without}", *who)
    assert int(re.findall(r"^Source +([\d,]+)", printed, re.MULTILINE)[0].replace(",", "")) > 5000
    assert f"Removed      {', '.join(parts) or 'no part'}\n" in printed
    assert "Not found" not in printed  # scripts/parts.toml describes the present files
    assert "Ada Finch" in (folder / "LICENSE").read_text()
    assert "write to security@birds.example." in (folder / "SECURITY.md").read_text()
    assert (folder / "README.md").read_text().startswith("# bird-watcher\n")
    assert 'name = "bird-watcher"' in (folder / "pyproject.toml").read_text()
    gone = ["project", "scripts/results", "scripts/parts.toml", "scripts/make_it_yours.py", "tests/project"]
    assert not [name for name in gone if (folder / name).exists()]
    for name in [name for part in parts for name in PARTS[part]["files"]]:
        assert not list(folder.glob(name))
    for path in [path for path in folder.rglob("*") if path.suffix in (".py", ".md", ".yaml", ".sh", ".toml")]:
        left = [line for line in path.read_text().splitlines() if PACKAGE.search(line)]
        assert left == [line for line in left if "pyproject" in line], path
    assert not [path for path in folder.glob("configs/*.yaml") if re.search(r"\d %|\d minutes", path.read_text())]
    check(folder)
    fit = ["birds", "fit", "--config=configs/resnet.yaml", "--config=configs/sample.yaml", "--model.network.depth=20"]
    limits = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
    run(folder, *fit, *limits, f"--data.root={sample_root}", "--data.num_workers=0")
    assert list(folder.glob("runs/*/*/checkpoints/best.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize("part", CHOICES)
def test_a_copy_works_without_a_part(part: str, tmp_path: Path) -> None:
    folder = clone(tmp_path)
    parts = ",".join([part, *PARTS[part].get("needed_by", [])])
    printed = run(folder, "scripts/make_it_yours.py", "birds", "--package=project", f"--without={parts}")
    assert "Not found" not in printed
    run(folder, "ruff", "check", ".")
    run(folder, "ruff", "format", "--check", ".")
    run(folder, "pytest", "-q", "--collect-only", "tests")
    run(folder, "pytest", "-q", "tests/test_imports.py", "tests/test_security.py")


def test_the_pages_name_every_part() -> None:
    page = (ROOT / "docs/options.md").read_text().partition("## Extras")[2]
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == {part: PARTS[part]["adds"] for part in CHOICES}


def test_every_cut_finds_what_it_cuts() -> None:
    for part in [TEMPLATE, *PARTS.values()]:
        for name, patterns in part.get("cut", {}).items():
            for text in map(read, ROOT.glob(name)):
                assert [pattern for pattern in patterns if not re.search(pattern, text, re.MULTILINE)] == [], name


def test_every_file_of_a_part_exists() -> None:
    assert not [name for part in PARTS.values() for name in part["files"] if not list(ROOT.glob(name))]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from project import COMMANDS", "from birds import COMMANDS"),
        ('ENTRYPOINT ["-m", "project"]', 'ENTRYPOINT ["-m", "birds"]'),
        ("[project/cli/cli.py](project/cli/cli.py)", "[birds/cli/cli.py](birds/cli/cli.py)"),
        ("import project.cli.cli", "import birds.cli.cli"),
        ("`python -m project fit`", "`python -m birds fit`"),
        ("torchrun -m -- project fit", "torchrun -m -- birds fit"),
        ("tests/project/cli/test_cli.py", "tests/birds/cli/test_cli.py"),
        ('shell_command("project", "fit")', 'shell_command("birds", "fit")'),
        ('include = ["callbacks*", "project*"]', 'include = ["callbacks*", "birds*"]'),
        ("class_path: project.trackers.build", "class_path: birds.trackers.build"),
        (r'r"project\.(runs|report)\b"', r'r"birds\.(runs|report)\b"'),
        *((same, same) for same in ("[project]", "[project.scripts]", 'toml["project"]["name"]', "of this project.")),
        *(
            (same, same)
            for same in ("project: image-classifiers", "self._project", "--trainer.logger.project", "a project is")
        ),
    ],
)
def test_only_the_package_is_renamed(before: str, after: str) -> None:
    assert PACKAGE.sub("birds", before) == after
