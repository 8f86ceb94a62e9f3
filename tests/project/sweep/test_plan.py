from pathlib import Path

import pytest

from project.errors import RunError
from project.runs.config import short_names
from project.sweep.plan import extremes, grid_point, options_of, read_plan

CONFIGS = sorted((Path(__file__).parents[3] / "configs/sweeps").glob("*.yaml"))
RANGE = "parameters: {model.optimizer.lr: {low: 0.1, high: 1}}"


def plan_of(tmp_path: Path, text: str):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return read_plan(file)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.name)
def test_sweep_of_the_project_can_be_read_and_names_its_command(config: Path) -> None:
    assert read_plan(config).swept
    assert f"#   python -m project sweep --config configs/lenet.yaml --sweep configs/sweeps/{config.name}" in (
        config.read_text()
    )


def test_sweep_file_of_the_pages_can_be_read(tmp_path: Path) -> None:
    page = (CONFIGS[0].parents[2] / "docs/sweeps.md").read_text()
    plan = plan_of(tmp_path, page.partition("```yaml\n")[2].partition("```")[0])
    assert (plan.method, plan.trials, len(plan.swept)) == ("tpe", 20, 3)


def test_a_grid_has_each_combination_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "parameters: {a: [1, 2, 3], b.c: [x, {d: 1}], e: true}")
    points = [options_of(grid_point(plan, number)) for number in range(plan.trials)]
    assert (plan.method, plan.trials, plan.swept) == ("grid", 6, ["a", "b.c"])
    assert points[:2] == [["--a=1", "--b.c=x", "--e=true"], ["--a=1", '--b.c={"d": 1}', "--e=true"]]
    assert len(set(map(str, points))) == 6


def test_extremes_contain_every_value_and_both_ends_of_a_range(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "{trials: 9, parameters: {a: {low: 0.1, high: 2.5}, b: [x, y, z]}}")
    assert plan.method == "tpe"
    assert extremes(plan) == [{"a": 0.1, "b": "x"}, {"a": 2.5, "b": "y"}, {"a": 2.5, "b": "z"}]


def test_short_names_differ() -> None:
    keys = ["model.optimizer.lr", "other.optimizer.lr", "data.fold", "seed_everything"]
    assert list(short_names(keys).values()) == ["model.optimizer.lr", "other.optimizer.lr", "fold", "seed_everything"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected `parameters:` with lines such as"),
        ("parameters: {}", "Expected `parameters:` with lines such as"),
        ("a: [", "Expected a sweep file at --sweep, but got: while parsing"),
        ("{a: 1, a: 2}", "Expected each key once"),
        (f"metod: random\n{RANGE}", "but got metod (did you mean method?)."),
        (f"method: bayes\n{RANGE}", "Expected method grid or random or tpe"),
        (f"method: grid\n{RANGE}", "because a parameter is a range, in"),
        (RANGE, "Expected a positive number of trials"),
        (f"trials: many\n{RANGE}", "but got many"),
        (f"{{trials: 2, seed: -1, {RANGE}}}", "Expected a seed of 0 or more"),
        (f"{{trials: 2, metric: test/acc, {RANGE}}}", "Expected a metric of validation"),
        (f"{{trials: 2, pruning: true, {RANGE}}}", "Expected arguments of pruning"),
        ("{trials: 3, parameters: {a: [1, 2]}}", "because a grid has all 2, in"),
        ("parameters: {a: []}", "Expected different a in"),
        ("parameters: {a: [1, 2, 1]}", "Expected different a in"),
        ("parameters: {a: {low: 2, high: 1}}", "Expected a with low < high"),
        ("parameters: {a: {low: 0, high: 1, log: true}}", "above 0 if log is true"),
        ("parameters: {a: {low: 1, high: 2, lgo: true}}", "Expected a with low < high"),
        ("parameters: {a: {low: 1}}", "Expected a with low < high"),
        ("parameters: {a: {low: x, high: 2}}", "Expected a with low < high"),
        ("parameters: {runs_dir: [a, b]}", "but got runs_dir, which is the same for all"),
    ],
)
def test_a_wrong_file_is_rejected_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RunError, match="Expected") as error:
        plan_of(tmp_path, text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
