#!/usr/bin/env python3
"""Writes python/mindspore_serving/proto/ from proto/ms_service.proto.

Run it after every change of the .proto file, with grpcio-tools installed:

    python proto/generate.py            # writes
    python proto/generate.py --check    # only says whether what is there is up to date

The modules are committed, so that neither a build nor a user needs protoc. protoc's own Python output refuses every
protobuf runtime older than the protoc that wrote it, and grpcio-tools' refuses every older grpcio; what is written
here holds the same descriptor without these pins and works with protobuf 5 and later and any current grpcio.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto" / "ms_service.proto"
PACKAGE = ROOT / "python" / "mindspore_serving" / "proto"
# The name under which users' own generated code knows the file.
REGISTERED_NAME = "mindspore_serving/proto/ms_service.proto"
WIDTH = 88

PB2 = '''\
"""Messages of {name}. Written by proto/generate.py; do not edit."""

from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf.internal import builder as _builder

DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile(
{descriptor}
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
'''

PB2_GRPC_HEAD = '''\
"""Client and server classes of {name}. Written by proto/generate.py; do not edit."""

import grpc

from mindspore_serving.proto import ms_service_pb2
'''

SERVICE = '''

class {service}Stub:
    """Calls {full_name} over a channel."""

    def __init__(self, channel):
{stub_members}

class {service}Servicer:
    """What a server of {full_name} implements."""
{servicer_methods}

def add_{service}Servicer_to_server(servicer, server):
    """Has `server` answer {full_name} with `servicer`."""
    handlers = {{
{handlers}    }}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("{full_name}", handlers),))
'''

STUB_MEMBER = """\
        self.{method} = channel.unary_unary(
            "/{full_name}/{method}",
            request_serializer=ms_service_pb2.{input}.SerializeToString,
            response_deserializer=ms_service_pb2.{output}.FromString,
        )
"""

SERVICER_METHOD = '''
    def {method}(self, request, context):
        """{input} to {output}."""
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("{method} is not implemented")
        raise NotImplementedError("{method} is not implemented")
'''

HANDLER = """\
        "{method}": grpc.unary_unary_rpc_method_handler(
            servicer.{method},
            request_deserializer=ms_service_pb2.{input}.FromString,
            response_serializer=ms_service_pb2.{output}.SerializeToString,
        ),
"""

GRPC_STUBS_HEAD = """\
# Types of ms_service_pb2_grpc.py. Written by proto/generate.py; do not edit.
from typing import Any

import grpc

from mindspore_serving.proto import ms_service_pb2
"""

GRPC_STUBS_SERVICE = """
class {service}Stub:
    def __init__(self, channel: grpc.Channel) -> None: ...
{stub_members}
class {service}Servicer:
{servicer_methods}
def add_{service}Servicer_to_server(servicer: {service}Servicer, server: grpc.Server) -> None: ...
"""


GRPC_STUBS_MEMBER = "    {method}: grpc.UnaryUnaryMultiCallable\n"
GRPC_STUBS_METHOD = (
    "    def {method}(self, request: ms_service_pb2.{input}, context: Any) -> ms_service_pb2.{output}: ...\n"
)


def compile_proto(into: pathlib.Path) -> tuple[descriptor_pb2.FileDescriptorProto, str]:
    """Returns the file's descriptor and protoc's type stubs for the messages."""
    from grpc_tools import protoc

    descriptor_file = into / "descriptor.bin"
    arguments = [
        "protoc",
        # A virtual path: the directory appears under the name that the registered name needs.
        f"--proto_path={pathlib.PurePosixPath(REGISTERED_NAME).parent}={PROTO.parent}",
        f"--descriptor_set_out={descriptor_file}",
        f"--pyi_out={into}",
        REGISTERED_NAME,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc failed on {PROTO}")
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_file.read_bytes())
    (file,) = files.file
    for message in file.message_type:
        drop_json_names(message)
    stubs = (into / REGISTERED_NAME).with_name("ms_service_pb2.pyi").read_text()
    return file, stubs


def drop_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    """JSON names follow from the names; protoc leaves them out of its Python output as well."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        drop_json_names(nested)


def bytes_literal(data: bytes, indent: str = "    ") -> str:
    """`data` as adjacent bytes literals, one a line."""
    lines, line = [], b""
    for i in range(len(data)):
        longer = line + data[i : i + 1]
        if len(indent) + len(repr(longer)) > WIDTH:
            lines.append(indent + repr(line))
            longer = data[i : i + 1]
        line = longer
    return "\n".join([*lines, indent + repr(line)])


def grpc_modules(file: descriptor_pb2.FileDescriptorProto) -> tuple[str, str]:
    """The module with the stub and the servicer of each service, and its type stubs."""
    module = PB2_GRPC_HEAD.format(name=REGISTERED_NAME)
    stubs = GRPC_STUBS_HEAD
    for service in file.service:
        full_name = f"{file.package}.{service.name}"
        methods = []
        for method in service.method:
            if method.client_streaming or method.server_streaming:
                raise SystemExit(f"{full_name}/{method.name} streams; this generator knows unary calls only")
            methods.append(
                {
                    "full_name": full_name,
                    "method": method.name,
                    "input": method.input_type.rsplit(".", 1)[-1],
                    "output": method.output_type.rsplit(".", 1)[-1],
                }
            )
        module += SERVICE.format(
            service=service.name,
            full_name=full_name,
            stub_members="".join(STUB_MEMBER.format(**m) for m in methods),
            servicer_methods="".join(SERVICER_METHOD.format(**m) for m in methods),
            handlers="".join(HANDLER.format(**m) for m in methods),
        )
        stubs += GRPC_STUBS_SERVICE.format(
            service=service.name,
            stub_members="".join(GRPC_STUBS_MEMBER.format(**m) for m in methods),
            servicer_methods="".join(GRPC_STUBS_METHOD.format(**m) for m in methods),
        )
    return module, stubs


def generate() -> dict[pathlib.Path, str]:
    """The text of every file that belongs into the package."""
    with tempfile.TemporaryDirectory() as scratch:
        file, message_stubs = compile_proto(pathlib.Path(scratch))
    module, grpc_stubs = grpc_modules(file)
    descriptor = bytes_literal(file.SerializeToString(deterministic=True))
    return {
        PACKAGE / "ms_service_pb2.py": PB2.format(name=REGISTERED_NAME, descriptor=descriptor),
        PACKAGE / "ms_service_pb2.pyi": (
            "# Types of ms_service_pb2.py. Written by proto/generate.py; do not edit.\n" + message_stubs
        ),
        PACKAGE / "ms_service_pb2_grpc.py": module,
        PACKAGE / "ms_service_pb2_grpc.pyi": grpc_stubs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes python/mindspore_serving/proto/ from proto/ms_service.proto.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    files = generate()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"out of date: {path.relative_to(ROOT)} (run proto/generate.py)")
        else:
            path.write_text(files[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
