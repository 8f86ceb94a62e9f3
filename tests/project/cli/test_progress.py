from pathlib import Path
from unittest.mock import patch

from lightning.pytorch.callbacks import RichProgressBar

from project.__main__ import main
from project.cli.progress import Progress


def test_bar_is_updated_at_the_last_step_and_few_others(fast: list[str], tmp_path: Path) -> None:
    updated: list[int] = []

    def note(
        self: RichProgressBar, trainer: object, module: object, outputs: object, batch: object, index: int
    ) -> None:
        updated.append(index)

    with patch.object(RichProgressBar, "on_train_batch_end", note), patch("project.cli.progress.SECONDS", 1e9):
        options = [
            "--trainer.enable_progress_bar=true",
            "--trainer.limit_val_batches=0",
            "--checkpoint.monitor=train/acc",
        ]
        cli = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    assert isinstance(cli.trainer.progress_bar_callback, Progress)
    assert updated == [11, 11]  # of 12 steps in each of 2 epochs
