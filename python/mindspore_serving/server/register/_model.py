"""A declared model, as users' functions call it."""

from __future__ import annotations

from typing import Any

from mindspore_serving.server import _checks
from mindspore_serving.server.register import _calls
from mindspore_serving.server.register._registry import ModelDeclaration


class Model:
    """A declared model, as `declare_model` and `declare_servable` return it: a stage for `add_stage`, and callable from
    the servable's Python functions.

    Attributes:
        model_key (str): The names of the model's files, joined by ";".

    Examples:
        >>> from mindspore_serving.server import register
        >>> model = register.declare_model(model_file="tensor_add.mindir", model_format="MindIR")
        >>> def add_three(x1, x2, x3):
        ...     return model.call(model.call(x1, x2), x3)
    """

    def __init__(self, declaration: ModelDeclaration) -> None:
        self.model_key = declaration.key
        self._declaration = declaration

    def __repr__(self) -> str:
        return f"Model('{self.model_key}')"

    def call(self, *args: Any, subgraph: int = 0) -> Any:
        """Run the model, from a Python function that the running servable has called.

        The instances run in the model's ordinary batches, together with those of other calls and requests.

        Args:
            args: The model's inputs for one instance; or one list or tuple of instances, each a list or tuple of the
                model's inputs. If the model has a batch dimension, an instance comes without it.
            subgraph (int, optional): Which of the model's files to run. Default: 0.

        Returns:
            For one instance its output, or a tuple of them if the model has several; for a list of instances a tuple
            with the tuple of outputs of each.

        Raises:
            RuntimeError: The servable is not running, the type or value of a parameter is invalid, an instance does
                not fit the model, or the model fails.
        """
        subgraphs = self._declaration.subgraphs
        _checks.check_int("subgraph", subgraph)
        if subgraphs is not None and subgraph >= subgraphs:
            raise RuntimeError(
                f"Parameter 'subgraph' should be less than {subgraphs}, the number of files of the model, but "
                f"{subgraph} was given"
            )
        if not args:
            raise RuntimeError("Model.call needs the model's inputs, but none was given")
        many = len(args) == 1 and isinstance(args[0], (list, tuple))
        instances = _read_instances(args[0]) if many else [args]
        outputs = _calls.running("Model.call").call_model(self._declaration, subgraph, instances)
        return tuple(outputs) if many else _calls.unwrap(outputs[0])


def _read_instances(values: list[Any] | tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if not values:
        raise RuntimeError("Model.call needs at least one instance, but the list of instances is empty")
    for i, value in enumerate(values):
        if not isinstance(value, (list, tuple)):
            raise RuntimeError(
                "The only argument of Model.call is a list of instances, each of which should be a list or tuple of "
                f"the model's inputs, but instance {i} is a {type(value).__name__}. To call the model with one input, "
                "make it an array"
            )
    return [tuple(value) for value in values]
