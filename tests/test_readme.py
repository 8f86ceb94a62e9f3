"""Every command, option, snippet and link of README.md and docs/ works."""

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import archive_contents, write_archive
from PIL import Image
from test_configs import named, parse

import callbacks
import lightning_modules
from datamodules.preparation.cifar10_archive import ARCHIVE
from project.__main__ import main

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
TEXT = "\n".join(PAGES.values())
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE))

LAUNCHERS = ("python ", "make ", "source ", "torchrun ", "sbatch ", "kill ")
LINES = [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]
COMMANDS = list(dict.fromkeys([*LINES, *(span for span in SPANS if span.startswith(LAUNCHERS))]))
PROJECT = "python -m project "
DEVICES = [
    each for each in COMMANDS if "ddp.yaml" in each or each.startswith("sbatch scripts/slurm.sh ")
]  # several GPUs or machines
ELSEWHERE = {  # commands that need a network, a server or a shell, and what checks them
    "make fit": "tests/test_configs.py",
    "python -m project fit --config configs/finetune.yaml --data.root my_photos": "tests/test_finetune.py",
    "make .venv/installed-dev": "the installation that runs this test",
    "python -m pytest tests/test_gradient_norm.py": "test_callback_of_the_readme_logs",
    "python -m pip install onnx onnxscript onnxruntime": "pyproject.toml, extra export",
    "python -m pip install wandb mlflow": "pyproject.toml, extras wandb and mlflow",
    "python -m pip install tifffile": "tests/datamodules/reading/test_bands.py",
    "python -m pip install trackio": "tests/project/trackers/test_trackio_logger.py",
    "python -m pip install 'pillow>=13'": "pyproject.toml",
    "python scripts/make_it_yours.py NAME": "tests/scripts/test_make_it_yours.py",
    "python -m pip install jupyterlab": "tests/project/test_api.py",
    "python scripts/make_it_yours.py bird-classifier --package birds --without airbench,sweep,benchmarks": (
        "tests/scripts/test_make_it_yours.py"
    ),
    "python3 -m venv .venv": "Makefile",
    "python -m pip install torch torchvision": "pyproject.toml",
    "python -m pip install --editable .": "Makefile",
    "touch .venv/installed": "Makefile",
    "python -m pip install optuna": "pyproject.toml, extra sweep",
    "python -m project sweep --sweep_dir last": "tests/project/commands/test_sweep.py",
    "python -m tensorboard.main --logdir runs": "tests/test_tensorboard.py",
    "sbatch --array 0-3 scripts/slurm_sweep.sh --config configs/resnet.yaml --sweep configs/sweeps/lr.yaml": (
        "tests/scripts/test_kill_sweep.py"
    ),
    "source .venv/bin/activate": "a shell",
    "kill PID": "tests/project/resume/test_signals.py",
    "kill -9": "scripts/kill_fit.py",
}
RUN = [each for each in COMMANDS if each.startswith(PROJECT) and each not in (*DEVICES, *ELSEWHERE)]

OPTION = r"--(?:model|trainer|data|callbacks|checkpoint|config|seed_everything|test_after_fit)(?:[.+]\S+)?[ =].+"
OPTIONS = list(dict.fromkeys(span for span in SPANS if re.fullmatch(OPTION, span)))
NAMED = [option for option in OPTIONS if option.startswith("--callbacks.")]  # to train with several at once
NEEDY = ("devices", "compile", "pretrained DEFAULT", "normalize pretrained", "in1k", "IMAGENET1K")  # a network
UNTRIED = [option for option in OPTIONS if any(word in option for word in NEEDY)]

WORDS = {  # placeholders, and files that the commands need
    "FILE": "best.ckpt",
    "PATH": f"data/{ARCHIVE}",
    "HOST": "localhost",
}
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
SHORT += ["--trainer.limit_test_batches=1", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
SHORT += ["--data.num_workers=0", "--data.batch_size=4"]
QUIET = ["--callbacks=false"]  # other tests run them
SNIPPETS = (
    *("class SmallNetwork", "class FocalLoss", "class GradientNorm", "test_gradient_norm_is_logged"),
    *("classifier.predict", "run.metrics", "onnxruntime", "gradient_norm: callbacks", "ZooNetwork", "param_groups"),
    "model.network.width: {low",
)


def block(language: str, word: str) -> str:
    """Return the code block of the pages that contains a word."""
    return next(code for known, code in BLOCKS if known == language and word in code)


def files() -> dict[str, str]:
    """Return the Python files of the pages: each block by the path that the paragraph before it names."""
    result = {}
    for page in PAGES.values():
        for match in re.finditer(r"```python\n(.*?)```", page, re.DOTALL):
            paragraph = page[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
            if path := re.search(r"`([\w/]+\.py)`", paragraph):
                result[path[1]] = match[1]
    return result


def words_of(command: str) -> list[str]:
    return [WORDS.get(word, word) for word in shlex.split(command)]


def photo(path: Path, size: tuple[int, int] = (640, 480)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 90).convert("RGB").save(path)


@pytest.fixture(scope="module")
def template(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a working directory with everything that the commands of the pages need, and a finished run."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "data").mkdir()
    (folder / "data/sample").symlink_to(sample_root)
    write_archive(folder / "data" / ARCHIVE, archive_contents())
    for name in ("photo.jpg", "cat.png", "photos/1.jpg", "more/1.jpg"):
        photo(folder / name)
    for name in ("cat", "dog"):
        for number in range(12):
            photo(folder / "my_images" / name / f"{number}.jpg", (90 + number, 70))
            photo(folder / "my_photos" / f"{name}{number}.jpg", (90, 70))
    lines = [f"{name}{number}.jpg,{name},{number}" for name in ("cat", "dog") for number in range(12)]
    (folder / "my_photos/labels.csv").write_text("\n".join(["file,species,age", *lines]))
    (folder / "mine.yaml").write_text(block("yaml", "param_groups"))
    for path, code in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for package in (callbacks, lightning_modules, lightning_modules.networks):
            own = folder.joinpath(*package.__name__.split("."))
            patch.setattr(package, "__path__", [*package.__path__, str(own)])
        run = main(["fit", "--config=configs/lenet.yaml", *QUIET, "--callbacks.doctor=true", *SHORT]).run_dir
        shutil.copy(run / "checkpoints/best.ckpt", "best.ckpt")
        yield folder


@pytest.fixture
def desk(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a copy of the template."""
    folder = tmp_path / "desk"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("command", RUN)
def test_command_of_the_pages_runs(command: str, desk: Path) -> None:
    words = words_of(command.removeprefix(PROJECT))
    is_of_run = words[:2] == ["doctor", "--run"]  # it takes no options of fit
    if words[0] in ("fit", "test", "validate", "find-lr", "doctor") and "--help" not in words and not is_of_run:
        words += SHORT
    if words[0] == "sweep":
        words.append("--dry_run")
    if words[0] == "fit":
        words += QUIET if "--config" in words else ["--trainer.max_epochs=2"]  # one more than the run has
    with contextlib.suppress(SystemExit) if "--help" in words else contextlib.nullcontext():
        main(words)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in (*NAMED, *UNTRIED)])
def test_option_of_the_pages_trains(option: str, desk: Path) -> None:
    recipe = "resnet20" if "image_size" in option else "lenet"  # LeNet needs 32x32 pixels
    main(["fit", f"--config=configs/{recipe}.yaml", *words_of(option), *SHORT, *QUIET, "--report=false"])


def test_options_of_callbacks_train(desk: Path) -> None:
    main(["fit", "--config=configs/lenet.yaml", *words_of(" ".join(NAMED)), *SHORT, "--report=false"])


@pytest.mark.parametrize("line", [*DEVICES, *UNTRIED])
def test_line_for_other_hardware_is_accepted(line: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(re.sub(r"^.*project fit |^sbatch scripts/slurm.sh ", "", line))
    recipe = [] if "--config" in words else ["--config=configs/lenet.yaml"]
    with pytest.raises(SystemExit):  # --print_config would not check required arguments of classes
        main(["fit", *recipe, *words, "--trainer.accelerator=cpu", "--ckpt_path=gone.ckpt"])
    assert "gone.ckpt does not exist" in capsys.readouterr().err


def test_every_command_is_tested() -> None:
    assert RUN
    assert OPTIONS
    assert set(COMMANDS) <= {*RUN, *DEVICES, *ELSEWHERE}
    assert {language for language, _ in BLOCKS} == {"bash", "python", "yaml", "text"}


def test_every_snippet_is_tested() -> None:
    for language, code in BLOCKS:
        if language in ("python", "yaml"):
            assert len([word for word in SNIPPETS if word in code]) == 1, code


@pytest.mark.parametrize("line", [*COMMANDS, *OPTIONS])
def test_shells_pass_each_line_unchanged(line: str) -> None:
    assert not set("[](){}<>*?#&|;!$~\\") & set(re.sub(r"'[^']*'", "", line))


def test_torchrun_is_kept_from_the_options_of_fit() -> None:
    lines = [command for command in COMMANDS if command.startswith("torchrun")]
    assert lines
    assert all(" -m -- project " in line for line in lines)


@pytest.mark.parametrize("path", files())
def test_file_of_the_pages_passes_the_linter(path: str) -> None:
    for command in (["check"], ["format", "--check"]):
        args = [sys.executable, "-m", "ruff", *command, f"--stdin-filename={path}", "-"]
        done = subprocess.run(args, input=files()[path], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_files_of_the_pages_pass_the_type_checker(tmp_path: Path) -> None:
    paths = [path for path in files() if not path.startswith("tests/")]
    assert len(paths) == 3
    for path in paths:
        (tmp_path / Path(path).name).write_text(files()[path])
    args = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *map(str, tmp_path.iterdir())]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_callback_of_the_readme_logs(fast: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_test: dict[str, Any] = {}
    exec(block("python", "test_gradient_norm"), own_test)
    own_test["test_gradient_norm_is_logged"](fast, desk / "test")


@pytest.mark.parametrize(
    ("word", "changed"),
    [("GradientNorm", []), ("ZooNetwork", ["network"]), ("param_groups", ["param_groups", "initializers"])],
)
def test_yaml_of_the_pages_changes_what_it_names(word: str, changed: list[str], desk: Path) -> None:
    (desk / "mine.yaml").write_text(block("yaml", word))
    before, config = parse("--config=configs/lenet.yaml"), parse("--config=configs/lenet.yaml", "--config=mine.yaml")
    model = config["model"]["init_args"]
    assert {name for name in model if model[name] != before["model"]["init_args"][name]} == {*changed}
    assert named(config).keys() - named(before).keys() == ({"gradient_norm"} if word == "GradientNorm" else set())
    assert named(config).items() >= named(before).items()


def test_python_of_the_pages_names_the_class_that_predict_names(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", "--run=last", "photo.jpg", "--top=1"])
    predicted = capsys.readouterr().out.split()[0]
    exec(block("python", "classifier.predict"), {})
    assert capsys.readouterr().out.splitlines()[0].startswith(f"photo.jpg {predicted} ")


def test_python_of_the_pages_trains(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("python", "run.metrics"), {})
    assert re.search(r"^runs/lenet-sample/\S+ 0\.\d+ 0\.\d+ \d\.\d+$", capsys.readouterr().out, re.MULTILINE)


def test_pictures_and_pages_exist() -> None:
    for page, text in PAGES.items():
        for path, heading in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", text):
            assert (page.parent / path).is_file(), f"{page.name}: {path}"
            titles = re.findall(r"^#+ (.+)", (page.parent / path).read_text(), re.MULTILINE) if heading else [""]
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, f"{path}#{heading}"
    linked = re.findall(r"\]\((docs/\w+\.md)", README)
    assert {ROOT / path for path in linked} == set(PAGES) - {ROOT / "README.md"}


def test_figures_of_the_quick_start_are_those_of_the_recipes() -> None:
    (table,) = re.findall(r"^\| command \| trains .*?\n\n", README, re.DOTALL | re.MULTILINE)
    figures = re.findall(r"\d+\.\d+", table)
    assert len(figures) >= 6
    measured = (ROOT / "configs/README.md").read_text()
    assert [figure for figure in figures if figure not in measured] == []


def test_the_readme_stays_short() -> None:
    assert README.count("\n") <= 190
