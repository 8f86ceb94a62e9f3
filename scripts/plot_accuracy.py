"""Plot val accuracy over time for directories of results, and print the time to reach given accuracies.

python scripts/plot_accuracy.py scripts/results/A scripts/results/B --output curve.png --reach 80 85
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmark_accuracy import Row, numbers, read_rows
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

CLOCKS = {"training_seconds": "training only", "seconds": "whole command"}


def plot(folders: Sequence[Path], output: Path, reach: Sequence[float]) -> None:
    """Plot val accuracy over the minutes of both clocks, one line per seed, and print the time to reach accuracies."""
    figure = Figure(figsize=(11, 4.5), layout="constrained", dpi=150)
    panels = figure.subplots(1, 2, sharey=True)
    print(f"| results | clock | {' | '.join(f'minutes to {share:g} %' for share in reach)} | n |")
    print(f"|---|---|{'---|' * len(reach)}---|")
    for number, folder in enumerate(folders):
        curves = [read_rows(path) for path in sorted(folder.glob("seed_*.csv"))]
        if not curves:
            raise SystemExit(f"error: Expected a directory of results with seed_0.csv, but got {folder}.")
        for panel, (key, clock) in zip(panels, CLOCKS.items(), strict=True):
            for i, curve in enumerate(curves):
                minutes, val = [x / 60 for x in numbers(curve, key)], [100 * y for y in numbers(curve, "val_acc")]
                label = f"{folder.name}, n = {len(curves)}" if i == 0 else None
                panel.plot(minutes, val, ".-", color=f"C{number}", linewidth=1, markersize=4, label=label)
            cells = [minutes_to(curves, key, share / 100) for share in reach]
            print(f"| {folder.name} | {clock} | {' | '.join(cells)} | {len(curves)} |")
    for panel, clock in zip(panels, CLOCKS.values(), strict=True):
        panel.set(xlabel=f"minutes, {clock}")
        panel.set_xlim(left=0)
        panel.yaxis.set_major_locator(MultipleLocator(5))
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="val accuracy, %")
    panels[0].legend(loc="lower right")
    figure.suptitle("Val accuracy at every validation, one line per seed")
    figure.savefig(output)


def minutes_to(curves: Sequence[list[Row]], key: str, share: float) -> str:
    """Return the median time of the first validation at ``share`` or above, or the number of seeds that reached it."""
    first = [next((float(row[key]) for row in curve if float(row["val_acc"]) > share - 1e-6), None) for curve in curves]
    times = [seconds / 60 for seconds in first if seconds is not None]
    return f"{statistics.median(times):.2f}" if len(times) == len(curves) else f"{len(times)} of {len(curves)} seeds"


def main(args: Sequence[str] | None = None) -> None:
    """Plot the curves and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="directories that benchmark_accuracy.py wrote")
    parser.add_argument("--output", type=Path, default=Path("curve.png"), help="image file to write")
    parser.add_argument("--reach", type=float, nargs="+", default=[80, 85, 90], help="accuracies, in %%")
    options = parser.parse_args(args)
    plot(options.folders, options.output, options.reach)


if __name__ == "__main__":
    main()
