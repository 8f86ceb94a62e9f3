"""Magnitude of the gradient and of the update of each layer."""

import math

import numpy as np
from matplotlib.figure import Figure

from callbacks.base.log import LogSnapshot
from callbacks.base.steps import Step, StepCallback

HEALTHY = 1e-3  # ratio of update to weight, a rule of thumb: Karpathy, 2022, "Building makemore part 3"
MOST_NAMES = 60  # names of layers on the axis


class GradientFlow(StepCallback):
    """Draw the magnitude of gradients and updates from the network's input to its output, at the middle step of an
    epoch.

    Gradients that shrink towards the input indicate vanishing gradients. Layers whose updates are far below or far
    above a thousandth of their weights learn too slowly or may diverge.

    Tags: ``gradient_flow``: for each weight of two or more dimensions, the root mean square of its gradient in loss per
    parameter (above), and that of its update divided by that of its weights (below). Missing bars are zero or not
    finite.

    Args:
        every_n_epochs: Draw in every n-th epoch and the last planned one.
    """

    required_media = ("images",)

    def draw(self, log: LogSnapshot, step: Step) -> None:
        log.figure("gradient_flow", draw_gradient_flow(step, log.epoch))


def draw_gradient_flow(step: Step, epoch: int) -> Figure:
    """Return a figure of a step: gradients above, updates over weights below."""
    # without norms and biases, half of all parameters, whose updates have other magnitudes
    names = [name for name in step.gradients if step.dimensions[name] > 1] or list(step.gradients)
    gradients = [_positive(step.gradients[name].rms) for name in names]
    ratios = [_positive(step.updates[name].rms / (step.weights[name].rms or math.nan)) for name in names]
    figure = Figure(figsize=(min(max(5, 0.22 * len(names) + 2), 16), 6.5), layout="constrained", dpi=100)
    above, below = figure.subplots(2, sharex=True)
    places = np.arange(len(names))
    above.bar(places, gradients, color="tab:blue")
    title = f"From input (left) to output, epoch {epoch}, step {step.number}"
    above.set(yscale="log", ylabel="RMS of gradient", title=title)
    below.bar(places, ratios, color="tab:orange")
    below.axhline(HEALTHY, color="grey", linestyle="--", linewidth=1)
    below.set(yscale="log", ylabel="RMS of update / of weight")
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 8}
    below.annotate("rule of thumb: 0.001 ", (1, HEALTHY), **place)
    below.margins(y=0.15)
    ticks = places if len(names) <= MOST_NAMES else np.linspace(0, len(names) - 1, MOST_NAMES).round().astype(int)
    below.set_xticks(ticks, [names[i].removesuffix(".weight") for i in ticks], rotation=90, fontsize=8)
    return figure


def _positive(value: float) -> float:
    """Return the value if a logarithmic axis can show it, or NaN."""
    return value if math.isfinite(value) and value > 0 else math.nan
