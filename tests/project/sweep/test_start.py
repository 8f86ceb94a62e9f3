from pathlib import Path

from project.sweep.start import runs_dir_of

CONFIGS = Path(__file__).parents[3] / "configs"


def test_runs_of_a_sweep_are_in_the_directory_of_its_config(tmp_path: Path) -> None:
    recipe, overlay = f"--config={CONFIGS}/lenet.yaml", f"--config={CONFIGS}/debug.yaml"
    assert runs_dir_of([recipe]) == Path("runs")
    assert runs_dir_of([recipe, overlay]) == runs_dir_of([overlay, recipe]) == Path("runs_debug")
    (tmp_path / "broken.yaml").write_text("a: [")
    assert runs_dir_of([overlay, f"--config={tmp_path}/broken.yaml"]) == Path("runs_debug")
