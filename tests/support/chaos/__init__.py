"""Checked load, faults, floods and the books that are kept of them, for tests/e2e/chaos."""
