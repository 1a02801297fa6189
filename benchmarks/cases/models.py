"""Real models beside their own bare sessions: what is left of a model's throughput behind the server, and what the
server adds to the time of a single request."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cases.ceilings import bare_session
from harness import messages
from harness.case import FigureCase, LoadCase, Target
from harness.load import Load, Shape, load_generator
from harness.targets import ServingTarget

TARGET = "models"


@dataclass(frozen=True)
class Model:
    name: str
    title: str
    batch: int
    shape: Shape  # that keeps batches full: twice a batch in flight


MODELS = (
    Model("mlp", "MLP 784-512-10", 32, Shape(8, 8)),
    Model("lenet", "digits LeNet", 32, Shape(8, 8)),
    Model("resnet50", "ResNet-50, 64x64", 4, Shape(8)),
)


def targets(script: Path, work: Path, env: dict[str, str]) -> dict[str, Callable[[], ServingTarget]]:
    own = {**env, "BENCH_SERVABLES": ",".join(model.name for model in MODELS)}
    return {TARGET: lambda: ServingTarget(script, work, own)}


def _sample(servables: Path, name: str) -> tuple[list[messages.Instance], list[messages.Instance]]:
    """One instance, and what MindSpore itself made of it when the model was exported."""
    with np.load(servables / name / "sample.npz") as sample:
        return [{"x": sample["x"]}], [{"y": sample["y"]}]


def _grpc(servables: Path, model: Model, shape: Shape, polled_by: Path | None = None) -> Callable[[Target], Load]:
    def prepare(target: Target) -> Load:
        inputs, expected = _sample(servables, model.name)
        message = messages.predict_message(model.name, "predict", inputs)
        reply_bytes = messages.checked_grpc(target.grpc_address, message, expected, tolerance=1e-4)
        return Load(messages.GRPC_PATH, messages.grpc_body(message), reply_bytes, shape, polled_by=polled_by)

    return prepare


def _rest(servables: Path, model: Model, shape: Shape, polled_by: Path) -> Callable[[Target], Load]:
    def prepare(target: Target) -> Load:
        inputs, expected = _sample(servables, model.name)
        path, body = f"/model/{model.name}:predict", messages.rest_body(inputs)
        reply_bytes = messages.checked_rest(target.rest_address, path, body, expected, tolerance=1e-4)
        return Load(path, body, reply_bytes, shape, rest=True, polled_by=polled_by)

    return prepare


def cases(servables: Path, build: Path) -> list[LoadCase | FigureCase]:
    listed: list[LoadCase | FigureCase] = []
    polling = load_generator(build)
    for model in MODELS:
        name, title = model.name, model.title
        full, one = f"session-{name}", f"session-{name}-1"
        listed += [
            FigureCase(full, f"bare session back to back, {title} ({model.batch} rows a run)", "rows/s",
                       bare_session(servables, build, name, model.batch, model.batch)),
            FigureCase(one, f"bare session back to back, {title} (1 row a run)", "rows/s",
                       bare_session(servables, build, name, 1)),
            LoadCase(f"{name}-full", f"{title}, gRPC {model.shape}", TARGET, _grpc(servables, model, model.shape),
                     units=1, unit="rows/s", against=full, goal="≥ 95 % once a run takes 1 ms"),
            LoadCase(f"{name}-1x1", f"{title}, gRPC, one connection", TARGET,
                     _grpc(servables, model, Shape(1), polling), against=one, goal="p50: model + 60 µs"),
        ]  # fmt: skip
    mlp = MODELS[0]
    listed.append(
        LoadCase("mlp-rest-1x1", f"{mlp.title}, REST, one connection", TARGET, _rest(servables, mlp, Shape(1), polling),
                 against="session-mlp-1", goal="p50: model + 60 µs")
    )  # fmt: skip
    return listed
