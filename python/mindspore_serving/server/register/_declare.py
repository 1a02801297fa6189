"""Declaring the servable's model."""

from __future__ import annotations

from mindspore_serving.server import _checks
from mindspore_serving.server.register._model import Model
from mindspore_serving.server.register._options import AclOptions, GpuOptions
from mindspore_serving.server.register._registry import ModelDeclaration, current_registration


def declare_servable(
    servable_file: str | list[str] | tuple[str, ...],
    model_format: str,
    with_batch_dim: bool = True,
    options: AclOptions | GpuOptions | dict[str, str] | None = None,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
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

    Returns:
        Model: The model, for functions that call it themselves.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or a model has been declared already.

    Examples:
        >>> from mindspore_serving.server import register
        >>> register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)
    """
    registration = current_registration("declare_servable")
    declaration = ModelDeclaration(
        files=_checks.check_names("servable_file", servable_file),
        model_format=_check_format(model_format),
        with_batch_dim=_checks.check_bool("with_batch_dim", with_batch_dim),
        options=_check_options(options),
        without_batch_dim_inputs=(
            ()
            if without_batch_dim_inputs is None
            else _checks.check_indexes("without_batch_dim_inputs", without_batch_dim_inputs)
        ),
    )
    if registration.model is not None:
        raise RuntimeError(
            f"The model of servable '{registration.servable_name}' has been declared more than once: call "
            "declare_servable once, with a list of files if the model has several sub-graphs"
        )
    registration.model = declaration
    return Model(declaration)


def _check_format(value: object) -> str:
    text = _checks.check_str("model_format", value).lower()
    if text not in ("mindir", "om"):
        raise RuntimeError(
            f"Parameter 'model_format' should be 'MindIR' or 'OM', case ignored, but '{value}' was given"
        )
    return text


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
