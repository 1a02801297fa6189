"""What one servable_config.py has registered. The worker reads it after importing the file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

CONFIG_FILE = "servable_config.py"


class StageKind(Enum):
    """What runs a stage; the values are the native worker's names."""

    PYTHON = "python"
    MODEL = "model"
    BUILTIN = "builtin"


@dataclass(frozen=True)
class ValueRef:
    """A value that flows in a method: an input (stage 0), or an output of stage 1, 2, ..."""

    stage: int
    index: int


@dataclass
class Stage:
    """One step of a method."""

    kind: StageKind
    title: str  # what messages call it, e.g. "call_preprocess(resize)"
    inputs: tuple[ValueRef, ...]
    function: Callable[..., Any] | None = None
    builtin: str = ""
    model: int = 0  # which of Registration.models
    subgraph: int = 0
    outputs: int = 0  # 0 until a use in the method's body has fixed it
    grouped: bool = False  # the function takes a tuple of instances, or stacked arrays
    stacked: bool = False  # the function takes stacked arrays
    alone: bool = False  # the worker hands over one instance at a time, and answers it before the next
    concurrency: int = 1  # so many batches of it may run at once, in threads
    batch_size: int | None = None  # of a grouped stage: the most instances of a call; 0: add_stage's own rule
    tag: str = ""
    failure: str = ""  # what a failure's text begins with; "": made of the tag


@dataclass(frozen=True)
class Method:
    """A registered method: what clients see of it, and its stages."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stages: tuple[Stage, ...]
    returns: tuple[ValueRef, ...]
    timeout_seconds: float | None = None  # of one call of a function or one run of a model


@dataclass(frozen=True)
class RankGroup:
    """What runs a distributed model."""

    rank_size: int
    stage_size: int
    enable_pipeline_infer: bool


@dataclass(frozen=True)
class ModelDeclaration:
    """The arguments of declare_model, declare_servable or distributed.declare_servable, checked."""

    declared_by: str  # the function's name
    files: tuple[str, ...]
    model_format: str  # "mindir" or "om"
    with_batch_dim: bool
    options: Any  # AclOptions, GpuOptions, dict of str to str, or None
    without_batch_dim_inputs: tuple[int, ...]
    context: Any = None  # Context or None
    config_file: str | None = None  # an absolute path
    max_batch_wait_ms: float = 0.0
    ranks: RankGroup | None = None  # of a distributed model, whose `files` is what messages call it

    @property
    def key(self) -> str:
        """What messages call the model."""
        return ";".join(self.files)

    @property
    def subgraphs(self) -> int | None:
        """How many there are; None: as many as the ranks load, which is not known here."""
        return len(self.files) if self.ranks is None else None

    def title_of(self, subgraph: int) -> str:
        """What messages call a sub-graph."""
        return self.files[subgraph] if self.ranks is None else f"{self.key}, subgraph {subgraph}"


@dataclass
class Registration:
    """Everything of one servable."""

    directory: str
    models: list[ModelDeclaration] = field(default_factory=list)
    methods: dict[str, Method] = field(default_factory=dict)
    pipelines: dict[str, Method] = field(default_factory=dict)  # if there are any, clients see them and no methods
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)  # by name, for use as a string
    function_counts: dict[int, tuple[int, int]] = field(default_factory=dict)  # by id(): inputs, outputs
    # By id(): the function itself, which keeps the number its own, and what it takes, in words.
    function_takes: dict[int, tuple[Callable[..., Any], str]] = field(default_factory=dict)
    # By model and subgraph: inputs, outputs.
    model_counts: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)  # calls of earlier releases that the log tells of

    @property
    def servable_name(self) -> str:
        """The servable is called what its directory is called."""
        return os.path.basename(self.directory)


_registrations: dict[str, Registration] = {}


def current_registration(caller: str) -> Registration:
    """The registration of the servable_config.py that is running, found by walking up the call stack.

    Args:
        caller: The register function that asks, for the message.

    Raises:
        RuntimeError: No servable_config.py is running.
    """
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.endswith(CONFIG_FILE):
            directory = os.path.dirname(os.path.realpath(path))
            return _registrations.setdefault(directory, Registration(directory))
        if frame.f_back is None:
            break
        frame = frame.f_back
    raise RuntimeError(f"{caller} should be called while a {CONFIG_FILE} is being imported, but none is")


def registration_of(directory: str) -> Registration:
    """What the servable_config.py in `directory` has registered so far."""
    real = os.path.realpath(directory)
    return _registrations.get(real) or Registration(real)


def forget_registrations() -> None:
    """Start from nothing, for tests."""
    _registrations.clear()
