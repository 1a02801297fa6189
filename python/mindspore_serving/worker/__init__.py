"""The worker process: loads one version of a servable and runs its methods.

The package also has the names that start-up scripts and servable_config.py files of release 1.2 import from here:
`start_servable_in_master`, and `register`, which is `mindspore_serving.server.register`.
"""

from __future__ import annotations


def start_servable_in_master(
    servable_directory: str,
    servable_name: str,
    version_number: int = 0,
    device_type: str | None = None,
    device_id: int = 0,
) -> None:
    """Start one servable on one device: `server.start_servables` with one `ServableStartConfig`.

    Args:
        servable_directory (str): The directory that holds the servable's directory.
        servable_name (str): The servable's name.
        version_number (int, optional): The version to load; 0 means the newest. Default: 0.
        device_type (str, optional): "Ascend", "GPU", "CPU" or None; "Davinci" means "Ascend". Default: None.
        device_id (int, optional): The device. Default: 0.

    Raises:
        RuntimeError: As `ServableStartConfig` and `server.start_servables`.
    """
    # Worker processes import this package, and need no server.
    from mindspore_serving import server
    from mindspore_serving.server import _checks, _legacy, _server

    _legacy.warn("worker.start_servable_in_master", "server.start_servables")
    if isinstance(device_type, str) and device_type.lower() == "davinci":
        device_type = "Ascend"
    with _server.StopOnError():
        device = _checks.check_int("device_id", device_id)
        server.start_servables(
            server.ServableStartConfig(servable_directory, servable_name, device, version_number, device_type)
        )
