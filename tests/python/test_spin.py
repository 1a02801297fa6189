"""When a worker may look for requests without blocking: only beside a server that can run meanwhile."""

import os

import pytest

from mindspore_serving import _spin

SERVER = 4711


@pytest.fixture
def processors(monkeypatch):
    """What the two processes may run on; by process number, 0 is this one."""
    masks = {0: {0, 1}, SERVER: {0, 1}}

    def affinity(process):
        if process not in masks:
            raise ProcessLookupError
        return set(masks[process])

    monkeypatch.setattr(os, "getppid", lambda: SERVER)
    monkeypatch.setattr(os, "sched_getaffinity", affinity)
    monkeypatch.setenv(_spin.VARIABLE, "70")
    return masks


def test_WithSeveralProcessors_TheWorkerLooks(processors):
    assert _spin.worker_spin_microseconds() == 70


def test_OnOneProcessorEach_TheWorkerLooks(processors):
    processors.update({0: {1}, SERVER: {0}})
    assert _spin.worker_spin_microseconds() == 70


def test_OnTheServersOnlyProcessor_TheWorkerNeverLooks(processors):
    processors.update({0: {1}, SERVER: {1}})
    assert _spin.worker_spin_microseconds() == 0


def test_WithoutAServer_TheWorkerNeverLooks(processors):
    del processors[SERVER]
    assert _spin.worker_spin_microseconds() == 0
