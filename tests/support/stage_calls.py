"""Calls of Python functions as the native executor makes them, through the C entry point."""

from mindspore_serving.worker import _stage_runner, _stage_testing

# More bytes than are handed over as a copy: the function gets a view of the input memory.
LARGE = 100_000


class Stage:
    """One function behind the C entry point."""

    def __init__(self, function, directory="/nowhere"):
        self.runner = _stage_runner.StageRunner(str(directory))
        self.number = self.runner.add(function)
        self.capsule = self.runner.capsule()

    def __call__(self, instances, outputs=1, **options):
        return _stage_testing.call_capsule(self.capsule, self.number, instances, outputs, **options)


def run(function, instances, outputs=1, **options):
    """Outputs by instance, and failures by instance."""
    values, failures = Stage(function)(instances, outputs, **options)
    by_instance = {}
    for instance, output, value in values:
        assert output == len(by_instance.setdefault(instance, [])), "outputs come in order"
        by_instance[instance].append(value)
    assert all(len(outs) == outputs for outs in by_instance.values()), "all outputs of an instance or none"
    assert not set(by_instance) & {instance for instance, _ in failures}, "an instance has outputs or a failure"
    return by_instance, dict(failures)


def run_one(function, *inputs, outputs=1):
    """The outputs of one instance that must not fail; one output comes bare."""
    values, failures = run(function, [list(inputs)], outputs)
    assert not failures
    return values[0][0] if outputs == 1 else values[0]


def fail_one(function, *inputs, outputs=1):
    """The text with which one instance must fail."""
    values, failures = run(function, [list(inputs)], outputs)
    assert not values
    return failures[0]


DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
