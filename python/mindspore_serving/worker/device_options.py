"""What a model was declared with for its device: what is done of it, and what is told of the rest.

docs/servable.md has the same as a table.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from mindspore_serving.server.register._context import DeviceInfo
from mindspore_serving.server.register._options import AclOptions, GpuOptions
from mindspore_serving.server.register._registry import ModelDeclaration
from mindspore_serving.worker import _mindspore

logger = logging.getLogger("mindspore_serving.worker")

# Names of CANN's graph engine for what AscendDeviceInfo and AclOptions call otherwise, and where they belong there.
_GRAPH_ENGINE = {
    "op_select_impl_mode": ("global", "ge.opSelectImplmode"),
    "fusion_switch_config_path": ("session", "ge.fusionSwitchFile"),
    "buffer_optimize_mode": ("session", "ge.bufferOptimize"),
}
_OF_THE_CONVERSION = "it belongs to the conversion of a model to OM, and a MindIR model has its own"
_ASCEND_WITHOUT_EFFECT = {
    "insert_op_cfg_path": "MindSpore has no AIPP for MindIR models; convert the model to OM with it",
    "input_format": _OF_THE_CONVERSION,
    "input_shape": _OF_THE_CONVERSION,
    "output_type": _OF_THE_CONVERSION,
}
_NO_MIXED_PRECISION = "MindSpore computes a MindIR model in the types it was exported with; export it in float16"
_ONE_AFTER_THE_OTHER = "operators run one after the other; thread_num is the number of threads that each may use"
_COMPILED = "an OM model was compiled with its options; give them to the conversion"
_NO_LITE = "it is a file of MindSpore Lite, which does not run the model here"


def bind_threads(models: Iterable[ModelDeclaration]) -> None:
    """Bind this thread, and with it all that are made from now on, to the processor cores that models ask for.

    The threads in which MindSpore's operators split their work and the worker's own, which run models and Python
    stages, are among them. A worker has them once: the cores of all models together.
    """
    contexts = [model.context for model in models if model.context is not None]
    wanted = {core for context in contexts for core in context.thread_affinity_core_list or ()}
    if not wanted:
        return
    available = os.sched_getaffinity(0)
    if missing := wanted - available:
        logger.warning(
            "thread_affinity_core_list names the processor cores %s, which this process may not use; it may use %s",
            sorted(missing),
            sorted(available),
        )
    if chosen := wanted & available:
        os.sched_setaffinity(0, chosen)
        logger.info("The worker's threads are bound to the processor cores %s", sorted(chosen))


class DeviceOptions:
    """The options of a worker's models. Process-wide ones are set by the first model that has them."""

    def __init__(self) -> None:
        self._ascend: dict[str, str] | None = None

    def apply(self, model: ModelDeclaration, device: str) -> None:
        """Do what the model was declared with for a device, and log what has no effect there and why.

        Args:
            model: The declaration.
            device: What a MindIR runs on, as MindSpore spells it; "OM" for an OM model.

        Raises:
            RuntimeError: MindSpore refuses an option.
        """
        for text, reason in self._ignored(model, device):
            logger.warning(
                "%s of %s for model '%s' has no effect on this device: %s", text, model.declared_by, model.key, reason
            )
        if device == "Ascend":
            self._set_ascend(model)

    def _set_ascend(self, model: ModelDeclaration) -> None:
        options = {name: value for name, value in _given(model).get("Ascend", {}).items() if _is_settable(name)}
        if self._ascend is not None:
            if options != self._ascend:
                logger.warning(
                    "Options for Ascend hold for all models of a worker: model '%s' runs with %s of the first one, not "
                    "with %s",
                    model.key,
                    self._ascend,
                    options,
                )
            return
        graph_engine: dict[str, dict[str, str]] = {}
        for name, value in options.items():
            if name in _GRAPH_ENGINE:
                level, engine_name = _GRAPH_ENGINE[name]
                graph_engine.setdefault(level, {})[engine_name] = value
        _mindspore.set_ascend_options(options.get("precision_mode"), graph_engine)
        self._ascend = options
        if options:
            logger.info("Options for Ascend: %s", options)

    @staticmethod
    def _ignored(model: ModelDeclaration, device: str) -> list[tuple[str, str]]:
        ignored: list[tuple[str, str]] = []
        context = model.context
        if context is not None:
            for info in context.device_infos.values():
                ignored += _ignored_of(info, info.device_type, device)
            if context.enable_parallel:
                ignored.append(("enable_parallel=True", _ONE_AFTER_THE_OTHER))
            if context.thread_num is not None and device != "CPU":
                ignored.append((f"thread_num={context.thread_num}", "operators run on the device"))
            if model.options is not None:
                ignored.append((f"{model.options!r}, beside a context,", "the context's device info counts"))
        elif isinstance(model.options, (AclOptions, GpuOptions)):
            ignored += _ignored_of(model.options, "Ascend" if isinstance(model.options, AclOptions) else "GPU", device)
        elif model.options is not None:
            ignored.append((f"options={model.options!r}", "give AclOptions or GpuOptions instead of a dict"))
        if model.config_file is not None:
            ignored.append((f"config_file '{model.config_file}'", _COMPILED if device == "OM" else _NO_LITE))
        return ignored


def _given(model: ModelDeclaration) -> Mapping[str, Mapping[str, str]]:
    """By device type, the options that count."""
    if model.context is not None:
        return {name: info.values for name, info in model.context.device_infos.items()}
    if isinstance(model.options, AclOptions):
        return {"Ascend": model.options.values}
    return {"GPU": model.options.values} if isinstance(model.options, GpuOptions) else {}


def _is_settable(name: str) -> bool:
    return name == "precision_mode" or name in _GRAPH_ENGINE


def _ignored_of(options: DeviceInfo | AclOptions | GpuOptions, of: str, device: str) -> list[tuple[str, str]]:
    if not options.values:
        return []
    if device == "OM" and of == "Ascend":
        return [(repr(options), _COMPILED)]
    if of != device:
        return [(repr(options), f"it is for {of}, and the model runs on {'Ascend' if device == 'OM' else device}")]
    if device == "Ascend":
        return [
            (f"{type(options).__name__}({name}={value!r})", _ASCEND_WITHOUT_EFFECT[name])
            for name, value in options.values.items()
            if name in _ASCEND_WITHOUT_EFFECT
        ]
    return [] if options.values.get("precision_mode") != "fp16" else [(repr(options), _NO_MIXED_PRECISION)]
