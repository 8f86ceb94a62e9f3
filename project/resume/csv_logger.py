"""metrics.csv of a run that goes on: its rows are kept up to the checkpoint, and it is never gone."""

import csv
import os
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from project.runs.metrics import METRICS


class Table(ExperimentWriter):
    """Lightning's writer of metrics.csv, which goes on in a file that is there, rather than to delete it."""

    def _check_log_dir_exists(self) -> None:
        pass


def open_table(logger: CSVLogger) -> Table:
    """Open metrics.csv of a run for further rows, and return what writes them."""
    logger._experiment = table = Table(log_dir=logger.log_dir)
    return table


def cut(table: Table, rows: int) -> None:
    """Leave in metrics.csv only the rows that came before a checkpoint."""
    path = Path(table.metrics_file_path)
    lines = path.read_bytes().splitlines(keepends=True)[: rows + 1] if rows and path.is_file() else []
    if not lines:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(".partial")
    partial.write_bytes(b"".join(lines))
    os.replace(partial, path)
    table.metrics_keys = next(csv.reader([lines[0].decode()]))  # a class name may contain a comma


def written_rows(trainer: Trainer) -> int:
    """Write all rows of metrics.csv, and return how many they are."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger) and trainer.is_global_zero:
            logger.save()
            path = Path(logger.log_dir) / METRICS
            if path.is_file():
                with path.open(newline="") as file:
                    return sum(1 for _ in csv.reader(file)) - 1
    return 0
