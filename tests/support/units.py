"""Unit files of systemd, as tests of the deployment examples read them."""

from pathlib import Path


def unit_values(unit: Path) -> dict[str, list[str]]:
    """What a unit file sets: of each key all values, in their order."""
    values: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values
