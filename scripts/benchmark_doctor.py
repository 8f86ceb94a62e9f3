"""Plant faults into small trainings, and count how often `doctor` names their cause; healthy runs must get no alarm.

    python scripts/benchmark_doctor.py rows.jsonl --half development --archive cifar-10-python.tar.gz --minutes 3
    python scripts/benchmark_doctor.py rows.jsonl --table
    python scripts/benchmark_doctor.py rows.jsonl --picture curves.png

Rows that the file has are skipped, so the command can be repeated until all are there. A fault counts only if it hurts:
if the accuracy on val or on untouched test images is worse than that of the healthy twins, or if val promises more than
test confirms. Thresholds were set on the development half.
"""

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from itertools import product, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from doctor_baselines import FAMILIES, Gradients, autotrainer, sagemaker
from doctor_cases import EPOCHS, FAULTS, HEALTHY, NETWORKS, QUIET, TRAINING, Case, applies, data_of, folder
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from PIL import Image

from callbacks import Doctor
from callbacks.finite_loss import TerminateOnNaN
from project.doctor.causes import CAUSES
from project.doctor.messages import report
from project.doctor.run import read_facts
from project.doctor.watch import examine

HALVES = {
    "development": [("lenet", "digits"), ("lenet", "shapes"), ("mlp", "digits"), ("mlp", "shapes")],
    "held_back": [("resnet20", "cifar"), ("wide_resnet", "cifar"), ("mobilenet", "cifar")],
}
MARGIN = 0.05  # of accuracy by which a fault must be worse than all twins
SEEDS = 3  # twins
SHOWN = {  # in the picture, of each cause that training shows: network, data and case
    "imbalance": "mlp digits imbalance",
    "shortcut": "lenet digits mark",
    "permuted_labels": "mlp digits swapped_val",
    "class_polluted": "mlp digits polluted",
    "random_labels": "resnet20 cifar random",
    "noisy_labels": "lenet digits noise_70",
    "augmentation_too_strong": "mlp digits noise_in_pixels",
    "init_too_large": "lenet shapes negative_bias",
    "saturation": "mlp shapes tanh_30",
    "vanishing_gradients": "mlp shapes sigmoid_10",
    "clip_too_tight": "mlp shapes clip_1e-3",
    "weight_decay_too_strong": "mlp shapes decay_.2",
    "updates_rounded_away": "lenet shapes bf16_weights",
    "lr_too_high": "mlp shapes dead_by_lr",
    "lr_too_low": "mlp shapes lr_1e-4",
    "dropout_too_high": "lenet digits dropout_95",
    "stale_batch_norm": "resnet20 cifar momentum_of_norms",
    "network_too_small": "mlp shapes two_units",
    "overfitting": "mlp shapes few_images",
}
Row = dict[str, Any]


def cases(mode: str) -> Iterator[tuple[str, tuple[str, ...], Callable[[Case], Any]]]:
    """Yield name, right causes and change of all cases, faults and healthy ones in turn; the latter have no cause."""
    faults: dict[str, Any] = TRAINING if mode == "training" else FAULTS
    ill = [(name, (each,) if isinstance(each, str) else each, change) for name, (each, change) in faults.items()]
    healthy = [(f"healthy_{name}", (), change) for name, change in HEALTHY.items()]
    yield from (case for pair in zip_longest(healthy, ill) for case in pair if case is not None)


def scores(case: Case, epochs: int, seed: int, *callbacks: Any, **options: Any) -> dict[str, float]:
    """Train, and return the accuracy on val and on untouched test images; 0 if the training fails."""
    try:
        with redirect_stdout(StringIO()):
            trainer, module = case.fit(*callbacks, TerminateOnNaN(), seed=seed, epochs=epochs, **options)
        tested = Trainer(accelerator="cpu", **QUIET).test(module, case.data, verbose=False)[0]
        return {"val": round(float(trainer.callback_metrics["val/acc"]), 3), "test": round(tested["test/acc"], 3)}
    except Exception as error:  # such as of a loss that is not finite, or has no gradient
        print(f"        {type(error).__name__}: {error}"[:150])
        return {"val": 0.0, "test": 0.0}


def hurts(row: Row, twins: list[dict[str, float]]) -> bool:
    """Return whether a fault is worse than all healthy twins."""
    worse = any(row["scores"][split] < min(twin[split] for twin in twins) - MARGIN for split in ("val", "test"))
    promise = max(twin["val"] - twin["test"] for twin in twins)
    return worse or row["scores"]["val"] - row["scores"]["test"] > promise + MARGIN


def run_row(mode: str, change: Callable[[Case], Any], make: Callable[[], Case], epochs: int) -> Row:
    """Return the last alarm that a case prints, at whatever time, its accuracies, and the rules that fire."""
    begin, case, own = time.monotonic(), make(), Gradients()
    change(case)
    if mode == "preflight":
        doctor = case.preflight()
        facts, results, row = (
            doctor.facts,
            [report(doctor.facts, doctor.failed, frozenset())],
            {"seconds": seconds(begin)},
        )
        case = make()
        change(case)
        row["scores"] = scores(case, epochs, 0)
    else:
        with TemporaryDirectory() as name:
            facts, results, row = {}, [], {}
            row["scores"] = scores(case, epochs, 0, watcher(facts, results), own, **logging_to(name))
        row |= {"seconds": seconds(begin), "autotrainer": autotrainer(facts, own.facts)}
        row["sagemaker"] = sagemaker(facts, own.facts)
    row["alarms"] = [each["alarms"][0]["cause"] if each["alarms"] else each["verdict"] for each in results]
    row["cause"] = printed(row["alarms"])
    row["family"] = CAUSES[row["cause"]].family if row["cause"] else ""
    row["alternatives"] = [each["cause"] for result in results[-1:] for each in result["alternatives"]]
    return row | {"facts": plain(facts)}


def printed(judgements: list[str]) -> str:
    """Return the last cause that a run prints: of the first or last judgement, or of two in a row; "" without one."""
    pairs = zip(["", *judgements[:-1]], judgements, strict=True)
    last = len(judgements) - 1
    shown = [b for number, (a, b) in enumerate(pairs) if b in CAUSES and (a == b or number in (0, last))]
    return shown[-1] if shown else ""


def watcher(facts: Row, results: list[Row]) -> Doctor:
    """Return the callback as ``fit`` prepares it, with a judge that appends its results."""
    doctor = Doctor()

    def judge(run: Path) -> tuple[None, list[str]]:
        facts.update(read_facts(run))
        results.append(report(facts, {}, frozenset()))
        return None, []

    doctor.examine, doctor.judge = examine, judge
    return doctor


def logging_to(run: str) -> Row:
    """Return the options with which a Trainer writes metrics.csv to a folder."""
    return {"default_root_dir": run, "logger": CSVLogger(run, name="", version="")}


def seconds(begin: float) -> float:
    """Return the seconds since a time."""
    return round(time.monotonic() - begin, 1)


def plain(facts: Row) -> Row:
    """Return the facts that are numbers, texts or short lists, in four digits."""
    text = json.dumps({key: value for key, value in facts.items() if not isinstance(value, dict)}, default=str)
    return dict(json.loads(text, parse_float=lambda number: float(f"{float(number):.4g}")))


def wilson(hits: int, count: int) -> str:
    """Return a share with its 95 % interval (Wilson, 1927)."""
    if not count:
        return "no cases"
    share, z = hits / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5 / (1 + z * z / count)
    return f"{hits} of {count}, {share:.0%} [{max(middle - half, 0):.0%}, {middle + half:.0%}]"


def table(rows: list[Row]) -> list[str]:
    """Return the table: shares with 95 % intervals."""
    lines = ["| half | mode | tool | detected | family | top-1 cause | false alarms |", "|" + "---|" * 7]
    for half, mode in product(HALVES, ("preflight", "training")):
        some = [row for row in rows if (row["half"], row["mode"]) == (half, mode)]
        faults, healthy = [r for r in some if r["expected"] and r["hurts"]], [r for r in some if not r["expected"]]
        for tool in ("doctor", "autotrainer", "sagemaker")[: 0 if not some else 3 if mode == "training" else 1]:
            families = sum(bool(_families(r, tool) & {CAUSES[c].family for c in r["expected"]}) for r in faults)
            causes = sum(r["cause"] in r["expected"] for r in faults)
            cells = [wilson(sum(bool(_families(r, tool)) for r in faults), len(faults)), wilson(families, len(faults))]
            cells += [wilson(causes, len(faults)) if tool == "doctor" else "it names none"]
            cells += [wilson(sum(bool(_families(r, tool)) for r in healthy), len(healthy))]
            lines.append(f"| {half} | {mode} | {tool} | {' | '.join(cells)} |")
    harmless = sorted(
        f"{r['case']} ({r['network']}, {r['data']})" for r in rows if r.get("expected") and not r["hurts"]
    )
    return [*lines, "", f"Not counted, because they do not hurt: {', '.join(harmless) or 'none'}."]


def _families(row: Row, tool: str) -> set[str]:
    """Return the families that a tool reports."""
    own = {row["family"]} - {""}
    return own if tool == "doctor" else set().union(*(FAMILIES[rule] for rule in row[tool]))


def draw(rows: dict[tuple[str, ...], Row], file: Path) -> None:
    """Draw the accuracies of one fault for each cause next to those of its healthy twin; of overfitting, the losses."""
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    panels = figure.subplots(4, 5).flat
    for number, ((cause, shown), panel) in enumerate(zip(SHOWN.items(), panels, strict=False)):
        network, data, fault = shown.split()
        kind, top = ("losses", 5) if cause == "overfitting" else ("accs", 1)
        for label, case, color in (("healthy", "healthy_plain", "tab:gray"), ("fault", fault, "tab:red")):
            facts = rows[network, data, "training", case]["facts"]
            for split, style in (("train", ":"), ("val", "-")):
                curve = facts[f"{split}_{kind}"]
                times = [epoch / (len(curve) - 1) for epoch in range(len(curve))]
                panel.plot(times, curve, style, color=color, label=f"{label}, {split}")
        panel.set_title(cause if kind == "accs" else f"{cause}: loss, 0 to {top}", fontsize=8.5)
        panel.set(xticks=(), ylim=(0, 1.02 * top), yticks=(0, top / 2, top))
        panel.set_yticklabels(("0", ".5", "1") if number % 5 == 0 else (), fontsize=8.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[len(SHOWN)].axis("off")
    panels[len(SHOWN)].legend(*panel.get_legend_handles_labels(), loc="center", frameon=False, fontsize=9)
    figure.supylabel("accuracy", fontsize=10)
    figure.supxlabel("training, from the first epoch to the last", fontsize=10)
    figure.savefig(file, dpi=200)
    Image.open(file).convert("RGB").quantize(64).save(file)


def main() -> None:
    """Write the rows that are missing until the time is over, or show them as a table or picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file of the rows")
    parser.add_argument("--half", default="development", choices=HALVES)
    parser.add_argument("--mode", default="training", choices=["training", "preflight"])
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=NETWORKS)
    parser.add_argument("--data", nargs="+", default=[*EPOCHS], choices=EPOCHS)
    parser.add_argument("--only", nargs="+", help="cases; their rows are written again")
    parser.add_argument("--minutes", type=float, default=1e9, help="time after which no further row begins")
    parser.add_argument("--archive", type=Path, help="CIFAR-10's archive")
    parser.add_argument("--folder", type=Path, default=None, help="where the data is prepared")
    parser.add_argument("--table", action="store_true", help="print the table of all rows")
    parser.add_argument("--picture", type=Path, help="draw curves of both halves to this PNG file")
    options = parser.parse_args()
    rows = read(options.out)
    if options.table:
        print("\n".join(table([*rows.values()])))
        return
    if options.picture:
        draw(rows, options.picture)
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    where, begin = options.folder or folder(), time.monotonic()
    for network, data in HALVES[options.half]:
        if network not in options.networks or data not in options.data:
            continue

        def make(network: str = network, data: str = data) -> Case:
            return Case(NETWORKS[network], data_of(data, where, options.archive))

        common = {"half": options.half, "network": network, "data": data}
        if (twins := rows.get((network, data, "twins", "twins"))) is None:
            accuracies = [scores(make(), EPOCHS[data], seed) for seed in range(SEEDS)]
            twins = write(options.out, common | {"mode": "twins", "case": "twins", "scores": accuracies})
            print(f"twins   {network:12}{data:7}{accuracies}", flush=True)
        for name, expected, change in cases(options.mode):
            wanted = name in options.only if options.only else (network, data, options.mode, name) not in rows
            if not wanted or not applies(name, network, data):
                continue
            if time.monotonic() - begin > 60 * options.minutes:
                print("Time is over; run the command again for the other rows.")
                return
            row = common | {"mode": options.mode, "case": name, "expected": expected}
            row |= run_row(options.mode, change, make, EPOCHS[data])
            row["hurts"] = bool(expected) and hurts(row, twins["scores"])
            write(options.out, row)
            ok = row["cause"] in expected if expected else not row["cause"]
            mark = "ok" if ok else "WRONG" if row["hurts"] or not expected else "no harm"
            shown = f"{row['cause']:24}{' '.join(row['alternatives'])} {row['scores']} {row['seconds']}"
            print(f"{mark:8}{network:12}{data:7}{name:24}{shown}", flush=True)


def read(file: Path) -> dict[tuple[str, ...], Row]:
    """Return the rows of a file; the last of several for one case."""
    rows = map(json.loads, file.read_text().splitlines()) if file.is_file() else ()
    return {(row["network"], row["data"], row["mode"], row["case"]): row for row in rows}


def write(file: Path, row: Row) -> Row:
    """Append a row to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    return row


if __name__ == "__main__":
    main()
