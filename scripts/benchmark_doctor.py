"""Plant faults into small trainings, and count how often `doctor` names their cause; healthy runs must get no alarm.

    python scripts/benchmark_doctor.py OUT.csv --networks lenet mlp --data digits shapes

Thresholds were set with lenet and mlp; the other networks are held back.
"""

import argparse
import csv
import logging
import time
import warnings
from pathlib import Path
from typing import Any

from doctor_cases import FAULTS, HEALTHY, NETWORKS, Case, applies, data_of, folder

from project.doctor.causes import CAUSES
from project.doctor.messages import report


def judge(network: str, data: str, change: Any, where: Path) -> tuple[dict[str, Any], float, Any]:
    """Return the diagnosis of a case, the seconds that it took, and the facts."""
    case = Case(NETWORKS[network], data_of(data, where))
    change(case)
    start = time.monotonic()
    doctor = case.preflight()
    return report(doctor.facts, doctor.failed, frozenset()), time.monotonic() - start, doctor


def main() -> None:
    """Write a row for each case, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", nargs="+", default=["lenet", "mlp"], choices=NETWORKS)
    parser.add_argument("--data", nargs="+", default=["digits", "shapes"], choices=["digits", "shapes"])
    parser.add_argument("--only", nargs="+", default=[*FAULTS, *(f"healthy_{name}" for name in HEALTHY)])
    parser.add_argument("--folder", type=Path, default=None, help="where the data is prepared")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    where = options.folder or folder()
    cases = [
        (name, expected if isinstance(expected, tuple) else (expected,), change)
        for name, (expected, change) in FAULTS.items()
    ]
    cases = [*((f"healthy_{name}", (), change) for name, change in HEALTHY.items()), *cases]
    rows = []
    for network in options.networks:
        for data in options.data:
            for name, expected, change in cases:
                if name not in options.only or not applies(name, network, data):
                    continue
                result, seconds, doctor = judge(network, data, change, where)
                alarm = next(iter(result["alarms"]), {"cause": "", "family": "", "confidence": ""})
                row = {"network": network, "data": data, "case": name, "expected": " ".join(expected)}
                row |= {key: alarm[key] for key in ("cause", "family", "confidence")}
                row["alternatives"] = " ".join(each["cause"] for each in result["alternatives"])
                row["failed"], row["seconds"] = " ".join(doctor.failed), f"{seconds:.1f}"
                rows.append(row)
                families = {CAUSES[each].family for each in expected}
                mark = "ok" if (alarm["cause"] in expected if expected else not alarm["cause"]) else "WRONG"
                mark = "family" if mark == "WRONG" and alarm["family"] in families else mark
                shown = f"{alarm['cause']:24}{row['alternatives']} {row['failed']} {row['seconds']}"
                print(f"{mark:7}{network:12}{data:7}{name:24}{shown}", flush=True)
                if mark != "ok":
                    print("       ", {k: v for k, v in doctor.facts.items() if k in KEYS}, doctor.failed, flush=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


KEYS = (
    "trial_progress",
    "adam_progress",
    "memorized",
    "lr_excess",
    "trial_steps",
    "lr_shortfall",
    "domain_auc",
    "permuted_labels",
    "channel_swap",
    "val_std_ratio",
    "val_mean_shift",
    "near_duplicates",
    "input_dependence",
    "signal_ratio",
    "first_loss_excess",
    "affinity",
    "no_gradient",
    "symmetric_layers",
    "decay_per_step",
    "rectified",
    "loss_range",
    "truth_gain",
    "trial_first_loss",
    "trial_last_loss",
    "batch_dependence",
    "pixel_coverage",
    "augmented_std_ratio",
    "pixel_std",
    "frozen_random",
    "repair_weight_decay",
    "repair_eps",
    "repair_clip",
)


if __name__ == "__main__":
    main()
