"""Why a rival is ahead in a case, and what would be done next. Shown when the run finds such a row."""

REASONS: dict[str, str] = {}
