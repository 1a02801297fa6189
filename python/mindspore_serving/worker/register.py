"""The name of release 1.2 for `mindspore_serving.server.register`, for servable_config.py files that import it."""

import logging

from mindspore_serving.server.register import *  # noqa: F403
from mindspore_serving.server.register import __all__ as __all__

logging.getLogger("mindspore_serving.register").warning(
    "mindspore_serving.worker.register is a name of release 1.2; mindspore_serving.server.register replaces it"
)
