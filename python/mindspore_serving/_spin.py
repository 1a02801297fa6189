"""How long threads of the server and of workers look for work before they block: one setting for all of them."""

import os

VARIABLE = "MSSERVING_SPIN_MICROSECONDS"
DEFAULT = 100
LARGEST = 1000


def spin_microseconds() -> int:
    """What MSSERVING_SPIN_MICROSECONDS says, in microseconds; 0 is never.

    Raises:
        RuntimeError: It is no whole number from 0 to 1000.
    """
    text = os.environ.get(VARIABLE, str(DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= LARGEST):
        raise RuntimeError(
            f"Environment variable {VARIABLE} should be a whole number of microseconds from 0 to {LARGEST}, 0 meaning "
            f"never, but is '{text}'"
        )
    return int(text)


def worker_spin_microseconds() -> int:
    """The same for a worker: 0 if the server has no processor besides, and could not answer meanwhile."""
    microseconds = spin_microseconds()
    processors = os.sched_getaffinity(0)
    try:
        processors |= os.sched_getaffinity(os.getppid())
    except ProcessLookupError:  # the server has gone
        return 0
    return microseconds if len(processors) > 1 else 0
