"""Loads OM models: through the acl session library, which runs them on Ascend without MindSpore."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.session_library import TensorInfo, find_library

if TYPE_CHECKING:
    from mindspore_serving._core import Worker

logger = logging.getLogger("mindspore_serving.worker")

LIBRARY_NAME = "libmsserving_session_acl.so"


def load_om_model(
    worker: Worker,
    model_file: str,
    *,
    with_batch_dim: bool,
    without_batch_dim_inputs: tuple[int, ...] = (),
    device_type: str | None = None,
    device_id: int = 0,
) -> tuple[LoadedModel, int]:
    """Load an OM model onto an Ascend device.

    Args:
        worker: The native worker; the session is opened in it.
        model_file: The OM file.
        with_batch_dim: The leading dimension of its inputs and outputs is the batch.
        without_batch_dim_inputs: Positions of inputs that have none all the same.
        device_type: "Ascend" in any case, or None.
        device_id: Which of them.

    Returns:
        The model, and the number of its session.

    Raises:
        RuntimeError: AscendCL is not there, or does not load the file, or it cannot be served as declared.
    """
    if device_type is not None and device_type.lower() != "ascend":
        raise RuntimeError(
            f"device_type '{device_type}' is inconsistent with current running environment: {model_file} is an OM "
            "model, which runs on Ascend alone. Give 'Ascend' or None as device_type"
        )
    library = find_library(LIBRARY_NAME)
    if library is None:
        raise RuntimeError(f"Load model failed, {model_file}: this installation has no {LIBRARY_NAME}, which runs OM")
    options = {"file": model_file, "device_id": str(device_id)}
    try:
        session = worker.open_session(str(library), options)
    except RuntimeError as error:
        raise RuntimeError(f"Load model failed, {model_file}: {error}") from error
    info = worker.session_info(session)
    inputs, outputs = ([TensorInfo(*_described(one)) for one in info[what]] for what in ("inputs", "outputs"))
    model = LoadedModel(
        model_file,
        inputs,
        outputs,
        way=info["way"],
        session_library=library,
        session_options=options,
        without_batch=without_batch_dim_inputs,
    )
    model.find_batch_size(with_batch_dim)
    if model.batch_size > 0:
        model.batch_sizes = list(info["batch_sizes"]) or [model.batch_size]
        _check_outputs(model)
    logger.info("%s: %s, batch sizes %s, on device %d", model_file, model.way, model.batch_sizes, device_id)
    return model, session


def _described(info: tuple[str, int, list[int] | None]) -> tuple[str, int, tuple[int, ...] | None]:
    name, dtype, dims = info
    return name, dtype, None if dims is None else tuple(dims)


def _check_outputs(model: LoadedModel) -> None:
    if any(output.dims is None or output.dims[:1] != (model.batch_size,) for output in model.outputs):
        shapes = ", ".join(str(list(output.dims or ())) for output in model.outputs)
        raise RuntimeError(
            f"Load model failed, {model.model_file}: with_batch_dim is True and the batch size of its inputs is "
            f"{model.batch_size}, but its outputs are of {shapes}"
        )
