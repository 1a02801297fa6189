"""Says in the worker's log which calls of earlier releases a servable_config.py uses, and what replaces them."""

from __future__ import annotations

import logging

from mindspore_serving.server.register._registry import Registration

logger = logging.getLogger("mindspore_serving.register")

_BY_STAGE = "add_stage(function, ...)"
_REPLACEMENTS = {
    "declare_servable": "declare_model",
    "call_preprocess": _BY_STAGE,
    "call_preprocess_pipeline": "add_stage(function, ..., batch_size=n)",
    "call_servable": "add_stage(model, ...)",
    "call_postprocess": _BY_STAGE,
    "call_postprocess_pipeline": "add_stage(function, ..., batch_size=n)",
    "AclOptions": "Context with AscendDeviceInfo",
    "GpuOptions": "Context with GPUDeviceInfo",
}


def note(registration: Registration, name: str) -> None:
    """Log, once in a worker, that something of an earlier release is used. It works as it always has.

    Args:
        registration: Whose servable_config.py uses it.
        name: What is used; names without a replacement are let pass.
    """
    replacement = _REPLACEMENTS.get(name)
    if replacement is None or name in registration.noted:
        return
    registration.noted.add(name)
    logger.info(
        "Servable %s uses %s of earlier releases (deprecated): it is served as before; %s replaces it",
        registration.servable_name,
        name,
        replacement,
    )
