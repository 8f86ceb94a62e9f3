"""Convert a Matplotlib figure to SVG for a page, with the page's colours and font, and unique ids."""

import io
import re

from matplotlib.figure import Figure

from project.report.markup import escape

# placeholders for the CSS variables of the page
INK, GRID = "#00fe00", "#00fe01"
COLOURS = tuple(f"#00fe1{i}" for i in range(6))
VARIABLES = {INK: "--ink", GRID: "--grid"} | {colour: f"--series{i}" for i, colour in enumerate(COLOURS)}
GEOMETRY = r'\b(d|x|y|transform)="([^"]*)"'


def to_svg(figure: Figure, label: str, prefix: str) -> str:
    """Return an ``<svg>`` element.

    Args:
        figure: The figure, drawn with svg.fonttype none, so that text remains text.
        label: Description for screen readers.
        prefix: Prefix of the ids, unique within the page.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', text))
    text = re.sub(r' id="([\w.-]+)"', lambda match: f' id="{prefix}-{match[1]}"' if match[1] in used else "", text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    text = re.sub(r'font-family:[^;"]*;?\s*', "", text)
    text = re.sub(GEOMETRY, lambda match: f'{match[1]}="{_rounded(match[2])}"', text)
    text = re.sub("|".join(VARIABLES), lambda match: f"var({VARIABLES[match[0]]})", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    opening = f'<svg class="chart" role="img" aria-label="{escape(label)}" {box[0]}>'
    return re.sub(r">\s+<", "><", opening + text[text.index(">") + 1 :]).strip()


def _rounded(numbers: str) -> str:
    """Round coordinates to 0.1 CSS pixels, which reduces the size to a third."""
    return " ".join(re.sub(r"\d+\.\d{2,}", lambda match: f"{float(match[0]):.1f}", numbers).split())
