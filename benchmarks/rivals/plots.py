"""Bar charts as SVG, without a library: one bar a row, the value beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_LABEL, _WIDTH, _VALUE, _BAR, _GAP, _TOP = 250, 420, 110, 18, 6, 34
_OURS, _OTHERS, _CEILING = "#1b7f5c", "#7a8699", "#c9ced6"


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    kind: str = "other"  # "ours", "other" or "ceiling"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def bars(title: str, rows: Sequence[Bar]) -> str:
    """The chart; longest bar is the largest value."""
    most = max((bar.value for bar in rows), default=0) or 1
    height = _TOP + len(rows) * (_BAR + _GAP) + 8
    width = _LABEL + _WIDTH + _VALUE
    colours = {"ours": _OURS, "ceiling": _CEILING}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for position, bar in enumerate(rows):
        y = _TOP + position * (_BAR + _GAP)
        length = max(1.0, bar.value / most * _WIDTH)
        colour = colours.get(bar.kind, _OTHERS)
        weight = ' font-weight="bold"' if bar.kind == "ours" else ""
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end"{weight}>{escape(bar.label)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{y + 13}">{_number(bar.value)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
