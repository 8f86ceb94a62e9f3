"""Magnitude of the gradient and of the update of each layer."""

import math

from matplotlib.figure import Figure

from callbacks.base.log import LogSnapshot
from callbacks.base.steps import Step, StepCallback
from callbacks.tools.layers import evenly

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
    """

    def draw(self, log: LogSnapshot, step: Step) -> None:
        log.figure("gradient_flow", draw_gradient_flow(step, log.epoch))


def draw_gradient_flow(step: Step, epoch: int) -> Figure:
    """Return a figure of a step: gradients above, updates over weights below."""
    gradients, updates, weights = step.gradients(), step.updates(), step.weights()
    # without norms and biases, half of all parameters, whose updates have other magnitudes
    names = [name for name in gradients if step.dimensions[name] > 1] or list(gradients)
    figure = Figure(figsize=(min(max(5, 0.22 * len(names) + 2), 16), 6.5), layout="constrained", dpi=100)
    above, below = figure.subplots(2, sharex=True)
    places = range(len(names))
    above.bar(places, [_positive(gradients[name].rms) for name in names], color="tab:blue")
    title = f"From input (left) to output, epoch {epoch}, step {step.number}"
    above.set(yscale="log", ylabel="RMS of gradient", title=title)
    ratios = [_positive(updates[name].rms / (weights[name].rms or math.nan)) for name in names]
    below.bar(places, ratios, color="tab:orange")
    below.axhline(HEALTHY, color="grey", linestyle="--", linewidth=1)
    below.set(yscale="log", ylabel="RMS of update / of weight")
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 8}
    below.annotate("rule of thumb: 0.001 ", (1, HEALTHY), **place)
    below.margins(y=0.15)
    ticks = evenly(places, MOST_NAMES)
    below.set_xticks(ticks, [names[i].removesuffix(".weight") for i in ticks], rotation=90, fontsize=8)
    return figure


def _positive(value: float) -> float:
    """Return the value if a logarithmic axis can show it, or NaN."""
    return value if 0 < value < math.inf else math.nan
