"""Calls one method of one servable."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from mindspore_serving.client import _codec
from mindspore_serving.client._checks import check_str, check_version
from mindspore_serving.client._ssl import SSLConfig
from mindspore_serving.client._tensors import fill_tensor, value_of
from mindspore_serving.proto import ms_service_pb2, ms_service_pb2_grpc

_LOG = logging.getLogger("mindspore_serving.client")
# Largest message in either direction: what a server can be set to at most.
_MAX_MESSAGE_BYTES = 512 * 1024 * 1024

Instance = Mapping[str, Any]
Result = list[dict[str, Any]] | dict[str, str]


class Client:
    """Calls one method of one servable over gRPC.

    The connection is made by the first call and made anew when it was lost. One client may be used by several
    threads at once.

    Args:
        address (str): Address of the server, {ip}:{port} or unix:{unix_domain_file_path}.
        servable_name (str): The name of the servable.
        method_name (str): The name of the method of the servable.
        version_number (int, optional): The version number of the servable, 0 means the newest that runs. Default: 0.
        ssl_config (SSLConfig, optional): The client's ssl_config, if None, disabled ssl. Default: None.

    Raises:
        RuntimeError: The type or value of the parameters are invalid.
        OSError: A file of `ssl_config` cannot be read.

    Examples:
        >>> from mindspore_serving.client import Client
        >>> import numpy as np
        >>> client = Client("localhost:5500", "add", "add_cast")
        >>> instances = [{"x1": np.ones((2, 2), np.int32), "x2": np.ones((2, 2), np.int32)}]
        >>> result = client.infer(instances)
        >>> print(result)
    """

    def __init__(
        self,
        address: str,
        servable_name: str,
        method_name: str,
        version_number: int = 0,
        ssl_config: SSLConfig | None = None,
    ) -> None:
        check_str("address", address)
        check_str("servable_name", servable_name)
        check_str("method_name", method_name)
        check_version("version_number", version_number)
        if ssl_config is not None and not isinstance(ssl_config, SSLConfig):
            raise RuntimeError(
                f"Parameter 'ssl_config' should be a mindspore_serving.client.SSLConfig or None, "
                f"but is of {type(ssl_config)}"
            )
        self.address = address
        self.servable_name = servable_name
        self.method_name = method_name
        self.version_number = version_number
        options = [
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ]
        if ssl_config is None:
            self.channel: Any = grpc.insecure_channel(address, options=options)
        else:
            self.channel = grpc.secure_channel(address, ssl_config.channel_credentials(), options=options)
        self.stub: Any = ms_service_pb2_grpc.MSServiceStub(self.channel)
        # Bytes both ways: the codec is ours.
        self._predict: Any = self.channel.unary_unary("/mindspore.serving.proto.MSService/Predict")

    def infer(self, instances: Instance | Sequence[Instance]) -> Result:
        """Sends instances and waits for their results.

        Args:
            instances (Union[dict, list[dict], tuple[dict]]): One instance or several, each a dict of input name to
                value. A value is a numpy array or number (sent with its dtype and shape), an int, float or bool
                (sent as int64, float64 or bool of shape [1]), a str or bytes.

        Returns:
            A list with one dict per instance, in their order: output name to value, i.e. a read-only numpy array, str
            or bytes; for an instance that failed alone {"error": text}. If the whole request failed, one dict
            {"error": text}. Failures of the transport are such a dict too: {"error": "Grpc Error, (code, name),
            details"}.

        Raises:
            RuntimeError: The type or value of `instances` is invalid, or the reply is inconsistent.

        Examples:
            >>> client = Client("localhost:5500", "lenet", "predict")
            >>> with open("seven.png", "rb") as image:
            ...     print(client.infer({"image": image.read()}))
        """
        request = self._request(instances)
        try:
            reply = self._predict(request)
        except grpc.RpcError as error:
            return _transport_error(error)
        return _parse_reply(reply)

    def infer_async(self, instances: Instance | Sequence[Instance]) -> PendingResult:
        """Sends instances and returns at once.

        Args:
            instances (Union[dict, list[dict], tuple[dict]]): As in `infer`.

        Returns:
            PendingResult, whose result() waits for what `infer` would have returned.

        Raises:
            RuntimeError: The type or value of `instances` is invalid.

        Examples:
            >>> client = Client("localhost:5500", "add", "add_common")
            >>> pending = [client.infer_async({"x1": 1.0, "x2": float(i)}) for i in range(8)]
            >>> results = [one.result() for one in pending]
        """
        return PendingResult(self._predict.future(self._request(instances)))

    def close(self) -> None:
        """Closes the connection; calls still under way end with an error. The client cannot be used again."""
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, instances: Instance | Sequence[Instance]) -> bytes:
        if isinstance(instances, dict):
            instances = (instances,)
        elif not isinstance(instances, (list, tuple)):
            raise RuntimeError(
                f"instance should be a map: 'instances' should be a dict or a list or tuple of dicts, "
                f"but is of {type(instances)}"
            )
        message = _codec.encode(instances, self.servable_name, self.method_name, self.version_number)
        if message is not None:
            return message
        # Something is unusual, or wrong and worth a good error.
        request = ms_service_pb2.PredictRequest()
        request.servable_spec.name = self.servable_name
        request.servable_spec.method_name = self.method_name
        request.servable_spec.version_number = self.version_number
        for index, instance in enumerate(instances):
            if not isinstance(instance, dict):
                raise RuntimeError(f"instance should be a map of input name to value, but {index} is {type(instance)}")
            items = request.instances.add().items
            for name, value in instance.items():
                if not isinstance(name, str):
                    raise RuntimeError(f"Input name of instance {index} should be str, but is {name!r} of {type(name)}")
                fill_tensor(name, value, items[name])
        encoded: bytes = request.SerializeToString()
        return encoded


class PendingResult:
    """A request that `Client.infer_async` has sent."""

    def __init__(self, call: Any) -> None:
        self._call = call
        _PENDING.add(self)
        if _ending:
            _keep_for_good(call)

    def _cancel(self) -> threading.Event:
        """Cancels the request if it is still under way. The event says that gRPC's thread has let go of it."""
        let_go = threading.Event()
        self._call.add_done_callback(lambda _: let_go.set())
        self._call.cancel()
        return let_go

    def result(self) -> Result:
        """Waits for the reply.

        Returns:
            What `Client.infer` returns, failures of the transport included.

        Raises:
            RuntimeError: The reply is inconsistent.
        """
        try:
            reply = self._call.result()
        except (grpc.RpcError, grpc.FutureCancelledError):
            return _transport_error(self._call)
        return _parse_reply(reply)


# The requests that are not collected yet. When the interpreter exits, gRPC's daemon thread may be stopped for good,
# holding the lock of a request on which the request's finalizer would wait for ever. So requests are ended at the exit,
# and never finalized from then on.
_PENDING: weakref.WeakSet[PendingResult] = weakref.WeakSet()
_PROCESS = os.getpid()
_EXIT_SECONDS = 5.0
_ending = False


def _keep_for_good(call: Any) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))


def _pending_now() -> list[PendingResult]:
    while True:
        try:
            return list(_PENDING)
        except RuntimeError:  # another thread has added one meanwhile; none does so for long, as we are ending
            continue


def _end_pending() -> None:
    global _ending
    _ending = True
    pending = _pending_now()
    for one in pending:
        _keep_for_good(one._call)
    if os.getpid() != _PROCESS:
        return  # gRPC's thread is not in a forked child, and may have had any lock when that was made
    deadline = time.monotonic() + _EXIT_SECONDS
    for let_go in [one._cancel() for one in pending]:
        let_go.wait(max(0.0, deadline - time.monotonic()))


atexit.register(_end_pending)


def _transport_error(error: Any) -> dict[str, str]:
    code, name = error.code().value
    _LOG.warning("%s", error.details())
    return {"error": f"Grpc Error, ({code}, {name!r}), {error.details()}"}


def _parse_reply(message: bytes) -> Result:
    result = _codec.decode(message)
    if result is not None:
        return result
    # Something is unusual, or wrong and worth a good error.
    reply: Any = ms_service_pb2.PredictReply()
    try:
        reply.ParseFromString(message)
    except DecodeError as error:
        raise RuntimeError(f"The reply is not a PredictReply message: {error}") from error
    errors = reply.error_msg
    if len(errors) == 1 and not reply.instances:
        return {"error": _text(errors[0])}
    if errors and len(errors) != len(reply.instances):
        raise RuntimeError(
            f"The reply has {len(errors)} errors for {len(reply.instances)} instances: it should have none, "
            "one for the whole request, or one per instance"
        )
    results: list[dict[str, Any]] = []
    for index, instance in enumerate(reply.instances):
        if errors and errors[index].error_code != 0:
            results.append({"error": _text(errors[index])})
        else:
            results.append({name: value_of(name, tensor) for name, tensor in instance.items.items()})
    return results


def _text(error: Any) -> str:
    message: bytes = error.error_msg
    return message.decode("utf-8", errors="replace")
