"""Runs a work's functions back to back, full batches, one thread, and prints instances a second.

usage: bare_function.py SECONDS WORK...; prints `WORK NUMBER` a line
"""

import sys
import time

from rival_work.functions import load
from rival_work.works import WORKS, random_inputs


def measure(name, seconds):
    work = WORKS[name]
    function = load(work)
    arrays = random_inputs(work, work.max_batch)
    function(arrays)
    runs = 0
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        for _ in range(8 if name != "resnet50" else 1):
            function(arrays)
            runs += 1
    return runs * work.max_batch / (time.perf_counter() - started)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        print(name, measure(name, float(sys.argv[1])), flush=True)
