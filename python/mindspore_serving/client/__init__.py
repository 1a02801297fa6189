"""The client: calls the methods of servables over gRPC.

>>> from mindspore_serving.client import Client
>>> import numpy as np
>>>
>>> client = Client("127.0.0.1:5500", "tensor_add", "add_common")
>>> x1 = np.ones((2, 2), np.float32)
>>> client.infer([{"x1": x1, "x2": x1 + 1}])
[{'y': array([[3., 3.],
       [3., 3.]], dtype=float32)}]
"""

import os

# Read by gRPC when it is imported: without it, a process forked from one that has an open client would wait for ever in
# its first request.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")

from mindspore_serving.client._client import Client, PendingResult
from mindspore_serving.client._ssl import SSLConfig

__all__ = ["Client", "PendingResult", "SSLConfig"]
