"""Placeholders, and the record of what a method's body does with them."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, NoReturn

from mindspore_serving.server.register._registry import Stage, ValueRef

_HINT = (
    "The method's body only says how data flows; compute in a function given to add_stage, call_preprocess or "
    "call_postprocess"
)


class Placeholder:
    """Stands for a value of a later request. It can be handed on, and nothing else."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self!r} is a placeholder without attribute '{name}'. {_HINT}")


class InputValue(Placeholder):
    """A placeholder of one value: an input of the method, or one of several outputs of a stage."""

    def __init__(self, trace: Trace, ref: ValueRef, title: str) -> None:
        super().__init__(trace)
        self._ref = ref
        self._title = title

    def __repr__(self) -> str:
        return f"<{self._title}>"

    def __iter__(self) -> NoReturn:
        raise RuntimeError(f"{self!r} is one value and cannot be unpacked. {_HINT}")


class StageResult(Placeholder):
    """What a stage returns. How it is used says how many outputs the stage has: unpacked into names, as many as there
    are names; handed on as it is, one; returned alone, as many as the method has output names."""

    def __init__(self, trace: Trace, number: int, stage: Stage) -> None:
        super().__init__(trace)
        self._number = number
        self._stage = stage

    def __repr__(self) -> str:
        return f"<result of {self._stage.title}>"

    def __iter__(self) -> Iterator[Placeholder]:
        count = _unpack_count(sys._getframe(1)) or self._stage.outputs
        if not count:
            raise RuntimeError(
                f"How many outputs {self._stage.title} has is not known here: unpack its result into names, as in "
                "'a, b = ...'"
            )
        return iter(
            [InputValue(self._trace, ref, f"output {ref.index} of {self._stage.title}") for ref in self.resolve(count)]
        )

    def resolve(self, count: int) -> tuple[ValueRef, ...]:
        """Fix the number of outputs, or check that it is the one fixed before."""
        if not self._stage.outputs:
            self._stage.outputs = count
        elif self._stage.outputs != count:
            raise RuntimeError(
                f"The result of {self._stage.title} is used as {count} output(s) here and as {self._stage.outputs} "
                "before"
            )
        return tuple(ValueRef(self._number, index) for index in range(count))


class Trace:
    """One run of a method's body."""

    def __init__(self, method_name: str, inputs: tuple[str, ...]) -> None:
        self.method_name = method_name
        self.stages: list[Stage] = []
        self.inputs = [InputValue(self, ValueRef(0, i), f"input '{name}'") for i, name in enumerate(inputs)]

    def add(self, stage: Stage) -> StageResult:
        """Record a stage. How its result is used says how many outputs it has."""
        self.stages.append(stage)
        return StageResult(self, len(self.stages), stage)

    def add_counted(self, stage: Stage) -> InputValue | tuple[InputValue, ...]:
        """Record a stage with a known number of outputs; one output comes bare."""
        self.stages.append(stage)
        number = len(self.stages)
        values = tuple(
            InputValue(self, ValueRef(number, index), f"output {index} of {stage.title}")
            for index in range(stage.outputs)
        )
        return values[0] if len(values) == 1 else values

    def read(self, values: tuple[object, ...], reader: str) -> tuple[ValueRef, ...]:
        """The references of placeholders that are each used as one value.

        Args:
            values: What the user passed.
            reader: Who reads them, for messages.

        Raises:
            RuntimeError: Something is not a placeholder of this method.
        """
        return tuple(self._read_one(value, f"argument {i} of {reader}") for i, value in enumerate(values))

    def read_returns(self, result: object, output_names: tuple[str, ...]) -> tuple[ValueRef, ...]:
        """The references of what the body returned.

        Raises:
            RuntimeError: Its count does not match the output names, or something is not a placeholder.
        """
        expected = len(output_names)
        values = tuple(result) if isinstance(result, (list, tuple)) else (result,)
        if len(values) == 1 and isinstance(values[0], StageResult) and not isinstance(result, (list, tuple)):
            self._check_mine(values[0], "the returned value")
            count = values[0]._stage.outputs or expected
            if count == expected:
                return values[0].resolve(count)
            values = values * count
        if result is None or len(values) != expected:
            raise RuntimeError(
                f"Method '{self.method_name}' returns {0 if result is None else len(values)} value(s), which does not "
                f"match registered output_names count {expected} ({', '.join(output_names)})"
            )
        return tuple(self._read_one(value, f"returned value {i}") for i, value in enumerate(values))

    def _read_one(self, value: object, what: str) -> ValueRef:
        self._check_mine(value, what)
        if isinstance(value, StageResult):
            return value.resolve(1)[0]
        assert isinstance(value, InputValue)
        return value._ref

    def _check_mine(self, value: object, what: str) -> None:
        if not isinstance(value, Placeholder):
            text = repr(value)
            raise RuntimeError(
                f"{what[0].upper()}{what[1:]} should be an input of method '{self.method_name}' or a result of one of "
                f"its stages, but {text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__}) was given. "
                f"{_HINT}"
            )
        if value._trace is not self:
            raise RuntimeError(
                f"{what[0].upper()}{what[1:]} is {value!r} of another method '{value._trace.method_name}'"
            )


def _unpack_count(frame: FrameType) -> int:
    """How many names the instruction that is running in `frame` unpacks into; 0 if it is no plain unpacking."""
    return _unpack_counts(frame.f_code).get(frame.f_lasti, 0)


def _unpack_counts(code: CodeType) -> dict[int, int]:
    return {
        instruction.offset: instruction.arg or 0
        for instruction in dis.get_instructions(code)
        if instruction.opname == "UNPACK_SEQUENCE"
    }


def _refuse(name: str) -> Any:
    def refuse(self: Placeholder, *_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(f"{self!r} is a placeholder: '{name}' is not possible on it. {_HINT}")

    return refuse


# Python looks operators up on the type, past __getattr__. Equality and hashing stay, so that placeholders can be kept
# in containers.
for _name in (
    "bool len getitem setitem contains call int float index complex array lt le gt ge neg pos abs invert "
    "add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv rfloordiv ifloordiv mod rmod imod "
    "pow rpow ipow matmul rmatmul imatmul and rand iand or ror ior xor rxor ixor lshift rlshift rshift rrshift"
).split():
    setattr(Placeholder, f"__{_name}__", _refuse(f"__{_name}__"))
