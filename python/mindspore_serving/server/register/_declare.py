"""Declaring the servable's models."""

from __future__ import annotations

import os

from mindspore_serving.server import _checks
from mindspore_serving.server.register._context import Context
from mindspore_serving.server.register._deprecated import note
from mindspore_serving.server.register._model import Model
from mindspore_serving.server.register._options import AclOptions, GpuOptions
from mindspore_serving.server.register._registry import ModelDeclaration, Registration, current_registration

_FORMATS = ("mindir", "om")
_LITE_FORMATS = ("mindir_lite", "mindir_opt")
_MAX_WAIT_MS = 10_000


def declare_model(
    model_file: str | list[str] | tuple[str, ...],
    model_format: str,
    with_batch_dim: bool = True,
    options: AclOptions | GpuOptions | None = None,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
    context: Context | None = None,
    config_file: str | None = None,
    *,
    max_batch_wait_ms: float = 0.0,
) -> Model:
    """Declare a model of the servable. A servable_config.py may declare any number of them; they share the worker.

    Args:
        model_file (Union[str, list[str], tuple[str]]): The model's file in the version directory. Several files are
            the sub-graphs of one model. A file belongs to one model.
        model_format (str): "MindIR" or "OM", in any spelling of upper and lower case.
        with_batch_dim (bool, optional): True: the first dimension of the model's inputs and outputs is the batch; a
            request's instances come without it, and instances of different requests run together. False: each
            instance is a run of its own. Default: True.
        options (Union[AclOptions, GpuOptions], optional): Options for the device; ignored if `context` is given.
            Default: None.
        without_batch_dim_inputs (Union[int, list[int], tuple[int]], optional): The indexes of inputs that have no
            batch dimension although `with_batch_dim` is True. Default: None.
        context (Context, optional): What the model is run with. Default: None.
        config_file (str, optional): A configuration file for mixed precision, absolute or relative to the directory
            of servable_config.py. It must exist. Default: None.
        max_batch_wait_ms (float, optional): How long, in milliseconds, a free model waits for a batch to fill, counted
            from the arrival of the batch's oldest instance: 0 to 10000. 0: it takes at once what is there. A batch that
            is full, or holds an instance whose deadline is nearer, does not wait. Default: 0.0.

    Returns:
        Model, to be given to `add_stage`.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or a file belongs to another model.

    Examples:
        >>> from mindspore_serving.server import register
        >>> add_model = register.declare_model(model_file="tensor_add.mindir", model_format="MindIR")
        >>> sub_model = register.declare_model(model_file="tensor_sub.mindir", model_format="MindIR")
        >>>
        >>> @register.register_method(output_names=["y"])
        >>> def predict(x1, x2, x3): # x1 + x2 - x3
        ...     y = register.add_stage(add_model, x1, x2, outputs_count=1)
        ...     y = register.add_stage(sub_model, y, x3, outputs_count=1)
        ...     return y
    """
    registration = current_registration("declare_model")
    if options is not None and not isinstance(options, (AclOptions, GpuOptions)):
        raise RuntimeError(
            f"Parameter 'options' should be AclOptions, GpuOptions or None, but a {type(options).__name__} was given"
        )
    if context is not None and not isinstance(context, Context):
        raise RuntimeError(f"Parameter 'context' should be Context or None, but a {type(context).__name__} was given")
    return declare(
        registration,
        ModelDeclaration(
            declared_by="declare_model",
            files=_checks.check_names("model_file", model_file),
            model_format=_check_format(model_format),
            with_batch_dim=_checks.check_bool("with_batch_dim", with_batch_dim),
            options=options,
            without_batch_dim_inputs=check_without_batch(without_batch_dim_inputs),
            context=context,
            config_file=None if config_file is None else _check_config_file(registration, config_file),
            max_batch_wait_ms=_checks.check_number("max_batch_wait_ms", max_batch_wait_ms, 0, _MAX_WAIT_MS),
        ),
    )


def declare_servable(
    servable_file: str | list[str] | tuple[str, ...],
    model_format: str,
    with_batch_dim: bool = True,
    options: AclOptions | GpuOptions | dict[str, str] | None = None,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
    *,
    max_batch_wait_ms: float = 0.0,
) -> Model:
    """Declare the model of the servable: once in a servable_config.py, before the methods that call it.

    Args:
        servable_file (Union[str, list[str], tuple[str]]): The model's file in the version directory. Several files are
            the sub-graphs of one model: a file's place in the list is its number for `call_servable`.
        model_format (str): "MindIR" or "OM", in any spelling of upper and lower case.
        with_batch_dim (bool, optional): True: the first dimension of the model's inputs and outputs is the batch; a
            request's instances come without it, and instances of different requests run together. False: each
            instance is a run of its own. Default: True.
        options (Union[AclOptions, GpuOptions, dict[str, str]], optional): Options for the device. Default: None.
        without_batch_dim_inputs (Union[int, list[int], tuple[int]], optional): The indexes of inputs that have no
            batch dimension although `with_batch_dim` is True. Default: None.
        max_batch_wait_ms (float, optional): How long, in milliseconds, a free model waits for a batch to fill, counted
            from the arrival of the batch's oldest instance: 0 to 10000. 0: it takes at once what is there. A batch that
            is full, or holds an instance whose deadline is nearer, does not wait. Default: 0.0.

    Returns:
        Model, for `add_stage` and for functions that call it; `call_servable` finds the model by itself.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or a model has been declared already.

    Examples:
        >>> from mindspore_serving.server import register
        >>> register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)
    """
    registration = current_registration("declare_servable")
    declaration = ModelDeclaration(
        declared_by="declare_servable",
        files=_checks.check_names("servable_file", servable_file),
        model_format=_check_format(model_format),
        with_batch_dim=_checks.check_bool("with_batch_dim", with_batch_dim),
        options=_check_options(options),
        without_batch_dim_inputs=check_without_batch(without_batch_dim_inputs),
        max_batch_wait_ms=_checks.check_number("max_batch_wait_ms", max_batch_wait_ms, 0, _MAX_WAIT_MS),
    )
    if any(model.declared_by == "declare_servable" for model in registration.models):
        raise RuntimeError(
            f"The model of servable '{registration.servable_name}' has been declared more than once: call "
            "declare_servable once, with a list of files if the model has several sub-graphs, or declare_model for "
            "each of several models"
        )
    return declare(registration, declaration)


def declare(registration: Registration, declaration: ModelDeclaration) -> Model:
    """Add a model to what a servable_config.py has registered.

    Raises:
        RuntimeError: It does not go together with what has been declared already.
    """
    for other in registration.models:
        if declaration.ranks is not None or other.ranks is not None:
            raise RuntimeError(
                f"Servable '{registration.servable_name}' declares a model by {declaration.declared_by} and another "
                f"by {other.declared_by}, but a distributed servable has one model: call distributed.declare_servable "
                "once, and nothing else that declares a model"
            )
        known = {os.path.normpath(file) for file in other.files}
        for file in declaration.files:
            if os.path.normpath(file) in known:
                raise RuntimeError(
                    f"The model file '{file}' of servable '{registration.servable_name}' belongs to model "
                    f"'{other.key}' already: declare a file once and use its Model in several stages"
                )
    registration.models.append(declaration)
    note(registration, declaration.declared_by)
    note(registration, type(declaration.options).__name__)
    return Model(declaration)


def _check_format(value: object) -> str:
    text = _checks.check_str("model_format", value).lower()
    if text in _LITE_FORMATS:
        raise RuntimeError(
            f"Parameter 'model_format' is '{value}', a format that MindSpore Lite alone runs; there is no session "
            "library for MindSpore Lite. Export the model with file_format=\"MINDIR\" and declare it as 'MindIR'"
        )
    if text not in _FORMATS:
        raise RuntimeError(
            f"Parameter 'model_format' should be 'MindIR' or 'OM', case ignored, but '{value}' was given"
        )
    return text


def check_without_batch(value: object) -> tuple[int, ...]:
    """Return `without_batch_dim_inputs` as a tuple."""
    return () if value is None else _checks.check_indexes("without_batch_dim_inputs", value)


def _check_config_file(registration: Registration, value: object) -> str:
    name = _checks.check_str("config_file", value)
    path = os.path.join(registration.directory, name)  # an absolute name stays as it is
    if not os.path.isfile(path):
        raise RuntimeError(
            f"Parameter 'config_file' should be a file, absolute or relative to '{registration.directory}', but "
            f"'{path}' is none"
        )
    return path


def _check_options(value: object) -> AclOptions | GpuOptions | dict[str, str] | None:
    if value is None or isinstance(value, (AclOptions, GpuOptions)):
        return value
    if not isinstance(value, dict):
        raise RuntimeError(
            f"Parameter 'options' should be AclOptions, GpuOptions, dict or None, but a {type(value).__name__} was "
            "given"
        )
    for name, item in value.items():
        _checks.check_str("a key of options", name)
        _checks.check_str(f"options['{name}']", item)
    return dict(value)
