"""A method that takes one millisecond of a processor an instance: its peak is known, and ten times as much can be
offered by one load generator."""

import time

from mindspore_serving.server import register

WORK_NS = 1_000_000


def work(x):
    until = time.thread_time_ns() + WORK_NS
    while time.thread_time_ns() < until:
        pass
    return x


@register.register_method(output_names=["y"])
def predict(x):
    y = register.add_stage(work, x, outputs_count=1)
    return y
