"""Bar charts as SVG, without a library: one bar a row, the value beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _VALUE, _BAR, _GAP, _TOP = 420, 90, 18, 6, 56
_LETTER = 7.5  # how wide one is, bold, in the mean
_OURS, _OTHERS, _CEILING = "#1b7f5c", "#7a8699", "#c9ced6"
_KINDS = {"ours": (_OURS, "ours"), "other": (_OTHERS, "others"), "ceiling": (_CEILING, "ceilings")}


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    kind: str = "other"  # "ours", "other" or "ceiling"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _length(value: float, most: float, logarithmic: bool) -> float:
    """The share of the longest bar."""
    if logarithmic:
        return math.log10(max(1.0, value)) / math.log10(max(10.0, most))
    return value / most


def bars(title: str, rows: Sequence[Bar], *, logarithmic: bool = False) -> str:
    """The chart, rows from top to bottom; the longest bar is the largest value. Logarithmic ones begin at 1."""
    most = max((bar.value for bar in rows), default=0) or 1
    label = 16 + max((len(bar.label) for bar in rows), default=0) * _LETTER
    height = _TOP + len(rows) * (_BAR + _GAP) + 8
    width = max(label + _WIDTH + _VALUE, 16 + len(title) * 8)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width:.0f}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    at = label
    for colour, name in _KINDS.values():
        parts += [
            f'<circle cx="{at + 5:.0f}" cy="38" r="5" fill="{colour}"/>',
            f'<text x="{at + 14:.0f}" y="42">{name}</text>',
        ]
        at += 30 + len(name) * _LETTER
    for position, bar in enumerate(rows):
        y = _TOP + position * (_BAR + _GAP)
        length = max(1.0, _length(bar.value, most, logarithmic) * _WIDTH)
        weight = ' font-weight="bold"' if bar.kind == "ours" else ""
        parts += [
            f'<text x="{label - 8:.0f}" y="{y + 13}" text-anchor="end"{weight}>{escape(bar.label)}</text>',
            f'<rect x="{label:.0f}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{_KINDS[bar.kind][0]}"/>',
            f'<text x="{label + length + 6:.1f}" y="{y + 13}">{_number(bar.value)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
