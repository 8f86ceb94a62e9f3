"""Magnitude of the gradient and of the update of each layer."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from callbacks.base.log import LogSnapshot
from callbacks.base.steps import Step, StepCallback
from callbacks.tools.fonts import font
from callbacks.tools.layers import evenly
from callbacks.tools.pictures import LINE, rows_of_text

HEALTHY = 1e-3  # ratio of update to weight, a rule of thumb: Karpathy, 2022, "Building makemore part 3"
MOST_NAMES = 60  # names of layers on the axis
BLUE, ORANGE = "#1f77b4", "#ff7f0e"
WIDTH, HEIGHT, AXIS = 960, 240, 48  # pixels: of all bars at most, of a chart, of a bar at most and of the numbers


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
        names, gradients, ratios = magnitudes(step)
        moment = f"epoch {log.epoch}, step {step.number}"
        caption = f"Layers from input (left) to output, {moment}: RMS of the gradient; below, RMS of the update "
        caption += f"divided by that of the weight, with a line at the rule of thumb, {HEALTHY}"
        log.image("gradient_flow", draw_gradient_flow(names, gradients, ratios), caption)


def magnitudes(step: Step) -> tuple[list[str], list[float], list[float]]:
    """Return names of layers, root mean squares of their gradients, and those of updates divided by weights."""
    gradients = step.gradients()
    rms, ratios = [gradients[name].rms for name in step.layers], [step.update_ratio(name) for name in step.layers]
    return [name.removesuffix(".weight") for name in step.layers], rms, ratios


def draw_gradient_flow(names: Sequence[str], gradients: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Return a picture, uint8 ``(3, H, W)``, with a bar for each layer: gradients above, updates over weights below."""
    wide = min(max(WIDTH // max(len(names), 1), 1), AXIS)
    ticks = evenly(range(len(names)), MOST_NAMES)
    below = rows_of_text([names[tick] for tick in ticks], [wide * (tick + 0.5) for tick in ticks], wide * len(names))
    charts = [bars(gradients, wide, BLUE), bars(ratios, wide, ORANGE, HEALTHY)]
    canvas = Image.new("RGB", (charts[0].width, 2 * charts[0].height + below.width), "white")
    for number, chart in enumerate(charts):
        canvas.paste(chart, (0, number * chart.height))
    canvas.paste(below.transpose(Image.Transpose.ROTATE_90), (AXIS, 2 * charts[0].height))
    return pil_to_tensor(canvas)


def bars(values: Sequence[float], wide: int, colour: str, line: float | None = None) -> Image.Image:
    """Return a bar chart with a logarithmic axis; values that are not positive and finite have no bar."""
    powers = [math.log10(value) if 0 < value < math.inf else None for value in values]
    known = [power for power in (*powers, line and math.log10(line)) if power is not None]
    low = math.floor(min(known, default=0) - 0.25)  # the lowest bar is visible, too
    high = max(math.ceil(max(known, default=0)), low + 1)

    def y(power: float) -> float:
        return LINE / 2 + HEIGHT * (high - power) / (high - low)

    canvas = Image.new("RGB", (AXIS + wide * len(values), HEIGHT + LINE), "white")
    draw = ImageDraw.Draw(canvas)
    every = math.ceil((high - low) / 10)
    for power in range(low, high + 1, every):
        draw.line((AXIS, y(power), canvas.width, y(power)), "lightgrey")
        draw.text((AXIS - 4, y(power)), f"{10.0**power:.0e}", "black", font(), anchor="rm")
    for place, exponent in enumerate(powers):
        if exponent is not None:
            left = AXIS + wide * place
            draw.rectangle((left + wide // 6, y(exponent), left + wide - 1 - wide // 6, y(low)), colour)
    if line:
        draw.line((AXIS, y(math.log10(line)), canvas.width, y(math.log10(line))), "black")
    return canvas
