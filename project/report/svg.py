"""A Matplotlib figure as part of a page: its style's colours and font, no id twice, no address of a host."""

import io
import re

from matplotlib.figure import Figure

from project.report.markup import escape

# stand-ins, which no one draws with, for variables of the page's style
INK, GRID = "#00fe00", "#00fe01"
COLOURS = tuple(f"#00fe1{i}" for i in range(6))
VARIABLES = {INK: "--ink", GRID: "--grid"} | {colour: f"--series{i}" for i, colour in enumerate(COLOURS)}
GEOMETRY = r'\b(d|x|y|transform)="([^"]*)"'


def to_svg(figure: Figure, label: str, prefix: str) -> str:
    """Return an ``<svg>`` element.

    Args:
        figure: The figure; its text is to be kept as text (svg.fonttype none).
        label: What it shows, for who cannot see it.
        prefix: Begins the ids; to be unique within the page.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', text))
    text = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    text = re.sub(r'font-family:[^;"]*;?\s*', "", text)
    text = re.sub(GEOMETRY, lambda found: f'{found[1]}="{_rounded(found[2])}"', text)
    text = re.sub("|".join(VARIABLES), lambda found: f"var({VARIABLES[found[0]]})", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    opening = f'<svg class="chart" role="img" aria-label="{escape(label)}" {box[0]}>'
    return re.sub(r">\s+<", "><", opening + text[text.index(">") + 1 :]).strip()


def _rounded(numbers: str) -> str:
    """Return coordinates, in CSS pixels, by tenths: a third of the bytes."""
    return " ".join(re.sub(r"\d+\.\d{2,}", lambda found: f"{float(found[0]):.1f}", numbers).split())
