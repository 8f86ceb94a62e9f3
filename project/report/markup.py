"""Format text, tables and images as HTML. All escaping is done in this module."""

import base64
import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from project.report.events import Picture

SMALL, TALL = 200, 400  # maximum width and height of enlarged images, CSS pixels
CAPTION = 280  # minimum width of a caption, CSS pixels
TYPES = {b"\x89PNG": "image/png", b"GIF8": "image/gif", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


class Bar(NamedTuple):
    """A number in a table cell, with a bar in the background."""

    text: str
    share: float  # of the cell's width, 0 to 1


def escape(text: object) -> str:
    """Escape text for HTML, including attributes."""
    return html.escape(str(text), quote=True)


def number(value: float, metric: str = "") -> str:
    """Format an accuracy in percent, and other numbers with four digits."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{value:.2%}" if metric == "acc" else f"{value:.4g}"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; text in backticks is formatted as code."""
    parts = text.split("`")
    marked = "".join(f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(parts))
    return f"<p{_class(kind)}>{marked}</p>"


def details(summary: str, content: str) -> str:
    """Return collapsed content with a summary."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str | Bar]], kind: str = "") -> str:
    """Return a table in a scrollable box; the first cell of each row is the row header."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{_row(row)}</tr>" for row in rows)
    inner = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    label = f'tabindex="0" role="group" aria-label="{escape(caption)}"'  # it scrolls horizontally, also by keyboard
    box = f'<div class="scroll" {label}><table{_class(kind)}>{inner}</table></div>'
    return f'<figure class="numbers"><figcaption>{escape(caption)}</figcaption>{box}</figure>'


def image(picture: Picture, caption: str) -> str:
    """Return an embedded image with a caption, enlarged if it is small."""
    kind = next((name for magic, name in TYPES.items() if picture.data.startswith(magic)), "image/png")
    data = base64.b64encode(picture.data).decode()
    width = max(picture.width, 1)
    factor = max(min(SMALL // width, TALL // max(picture.height, 1)), 1)
    size = f'width="{width * factor}" height="{picture.height * factor}"'
    text = escape(caption)
    img = f'<img src="data:{kind};base64,{data}" alt="{text}" {size}{_class("enlarged" if factor > 1 else "")}>'
    style = f"width:min(100%,{max(width * factor, CAPTION)}px)"
    return f'<figure class="picture" style="{style}">{img}<figcaption>{text}</figcaption></figure>'


def columns(names: Sequence[str], contents: Sequence[str]) -> str:
    """Return the content of one run unchanged, or that of two runs in columns with their names."""
    if len(contents) == 1:
        return contents[0]
    halves = (f"<div><h3>{escape(name)}</h3>{content}</div>" for name, content in zip(names, contents, strict=True))
    return f'<div class="sides">{"".join(halves)}</div>'


def _row(row: Sequence[str | Bar]) -> str:
    name, *cells = row
    return f'<th scope="row">{escape(name)}</th>' + "".join(map(_cell, cells))


def _cell(cell: str | Bar) -> str:
    if isinstance(cell, Bar):
        return f'<td class="bar" style="--share:{min(max(cell.share, 0), 1):.1%}">{escape(cell.text)}</td>'
    return f"<td>{escape(cell)}</td>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
