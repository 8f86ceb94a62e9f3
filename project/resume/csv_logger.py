"""Append to metrics.csv of a resumed run, after removing rows that were written after the checkpoint."""

import csv
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from atomic_files import write_atomically
from project.runs.metrics import METRICS


class Table(ExperimentWriter):
    """Lightning's writer of metrics.csv, except that it appends to an existing file instead of deleting it."""

    def _check_log_dir_exists(self) -> None:
        pass


def open_table(logger: CSVLogger) -> Table:
    """Open metrics.csv of a run for appending, and return its writer."""
    logger._experiment = table = Table(log_dir=logger.log_dir)
    return table


def truncate(table: Table, rows: int) -> None:
    """Keep only the first ``rows`` rows of metrics.csv: those written before a checkpoint."""
    path = Path(table.metrics_file_path)
    lines = path.read_bytes().splitlines(keepends=True)[: rows + 1] if rows and path.is_file() else []
    if not lines:
        path.unlink(missing_ok=True)
        return
    with write_atomically(path) as partial:
        partial.write_bytes(b"".join(lines))
    table.metrics_keys = next(csv.reader([lines[0].decode()]))  # a class name may contain a comma


def written_rows(trainer: Trainer) -> int:
    """Flush metrics.csv, and return its number of rows."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger) and trainer.is_global_zero:
            logger.save()
            path = Path(logger.log_dir) / METRICS
            return len(path.read_bytes().splitlines()) - 1 if path.is_file() else 0
    return 0
