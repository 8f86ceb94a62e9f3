"""Draw distributions of weights, gradients, updates and activations over time and over the layers."""

import numpy as np

from project.report.charts import Charts
from project.report.events import Distribution
from project.report.legend import spread_evenly
from project.report.markup import details, paragraph
from project.report.read import Run

KINDS = {
    "weights": "Weights",
    "gradients": "Gradients",
    "updates": "Updates: change of the weights in one step",
    "activations": "Activations",
    "confidence": "Confidence of right and wrong predictions",
}
OPEN, FOLDED = 3, 6  # charts of a kind
MOST_TIMES = 60  # of a chart, evenly spaced
RULE = (
    "The dotted line is a rule of thumb: an update of about 1/1000 of the weight. Far above it, the learning rate may "
    "be too high; far below it, too low."
)
GUIDELINE = 1e-3  # Karpathy's for the ratio of update to weight: https://cs231n.github.io/neural-networks-3/#ratio


def distributions(run: Run, charts: Charts) -> str:
    """Return charts of distributions over time."""
    parts = []
    for kind, title in KINDS.items():
        tags = [tag for tag in run.events.histograms if tag.startswith(f"{kind}/")]
        if not tags:
            continue
        shown = spread_evenly(tags, OPEN)
        folded = spread_evenly([tag for tag in tags if tag not in shown], FOLDED)
        parts.append(f'<h3>{title}</h3><div class="grid">{_bands(run, charts, shown)}</div>')
        if folded:
            drawn = f'<div class="grid">{_bands(run, charts, folded)}</div>'
            count = len(tags) - len(shown)
            cut = f", {len(folded)} of them drawn" if len(folded) < count else ""
            parts.append(details(f"{count} more{cut}", drawn))
    return "".join(parts)


def gradient_flow(run: Run, charts: Charts) -> str:
    """Return charts of the RMS of gradients, and of the ratio of updates to weights, for each parameter."""
    gradients = {name: (series[0].rms, series[-1].rms) for name, series in _of(run, "gradients").items()}
    parts = [_flow(charts, "Gradient of each parameter, root mean square", gradients)]
    weights = _of(run, "weights")
    ratios = {
        name: (_ratio(series[0], weights[name][0]), _ratio(series[-1], weights[name][-1]))
        for name, series in _of(run, "updates").items()
        if name in weights
    }
    if ratios:
        parts.append(_flow(charts, "Update / weight of each parameter, root mean squares", ratios, GUIDELINE))
    content = "".join(parts)
    if not content:
        return ""
    rule = paragraph(RULE, "note") if ratios else ""
    return f'<div class="grid">{content}</div>{rule}'


def _bands(run: Run, charts: Charts, tags: list[str]) -> str:
    drawn = []
    for tag in tags:
        times = spread_evenly(run.events.histograms[tag], MOST_TIMES)
        epochs = run.epochs([distribution.step - 1 for distribution in times])
        x = np.array([distribution.step for distribution in times], float) if epochs is None else epochs
        spread = np.array([distribution.quantiles for distribution in times])
        drawn.append(charts.bands(tag.partition("/")[2], x, spread, "step" if epochs is None else "epoch"))
    return "".join(drawn)


def _of(run: Run, kind: str) -> dict[str, list[Distribution]]:
    """Return the histograms of a kind by parameter, in the order of the network."""
    histograms = run.events.histograms
    return {tag.partition("/")[2]: series for tag, series in histograms.items() if tag.startswith(f"{kind}/")}


def _ratio(update: Distribution, weight: Distribution) -> float:
    return update.rms / weight.rms if weight.rms else float("nan")


def _flow(charts: Charts, title: str, sizes: dict[str, tuple[float, float]], guideline: float | None = None) -> str:
    if not sizes:
        return ""
    first, last = zip(*sizes.values(), strict=True)
    return charts.dots(title, list(sizes), {"last": last, "first": first}, guideline)
