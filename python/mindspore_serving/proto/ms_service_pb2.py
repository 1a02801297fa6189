"""Messages of mindspore_serving/proto/ms_service.proto. Written by proto/generate.py; do not edit."""

from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf.internal import builder as _builder

DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile(
    b'\n(mindspore_serving/proto/ms_service.proto\x12\x17mindspore.serving.proto"\x84'
    b'\x01\n\x0ePredictRequest\x12<\n\rservable_spec\x18\x01 \x01(\x0b2%.mindspore.serv'
    b'ing.proto.ServableSpec\x124\n\tinstances\x18\x02 \x03(\x0b2!.mindspore.serving.pr'
    b'oto.Instance"\xbe\x01\n\x0cPredictReply\x12<\n\rservable_spec\x18\x01 \x01(\x0b2%'
    b'.mindspore.serving.proto.ServableSpec\x124\n\tinstances\x18\x03 \x03(\x0b2!.minds'
    b'pore.serving.proto.Instance\x124\n\terror_msg\x18\x04 \x03(\x0b2!.mindspore.servi'
    b'ng.proto.ErrorMsgJ\x04\x08\x02\x10\x03"I\n\x0cServableSpec\x12\x0c\n\x04name\x18'
    b'\x01 \x01(\t\x12\x13\n\x0bmethod_name\x18\x02 \x01(\t\x12\x16\n\x0eversion_number'
    b'\x18\x03 \x01(\x04"\x9c\x01\n\x08Instance\x12;\n\x05items\x18\x01 \x03(\x0b2,.min'
    b'dspore.serving.proto.Instance.ItemsEntry\x1aM\n\nItemsEntry\x12\x0b\n\x03key\x18'
    b'\x01 \x01(\t\x12.\n\x05value\x18\x02 \x01(\x0b2\x1f.mindspore.serving.proto.Tenso'
    b'r:\x028\x01J\x04\x08\x02\x10\x03"\x96\x01\n\x06Tensor\x123\n\x05shape\x18\x01 '
    b'\x01(\x0b2$.mindspore.serving.proto.TensorShape\x120\n\x05dtype\x18\x02 \x01(\x0e'
    b'2!.mindspore.serving.proto.DataType\x12\x0c\n\x04data\x18\x03 \x01(\x0c\x12\x11\n'
    b'\tbytes_val\x18\x04 \x03(\x0cJ\x04\x08\x05\x10\x06"\x1b\n\x0bTensorShape\x12\x0c'
    b'\n\x04dims\x18\x01 \x03(\x03"1\n\x08ErrorMsg\x12\x12\n\nerror_code\x18\x01 \x01('
    b'\x03\x12\x11\n\terror_msg\x18\x02 \x01(\x0c"\x1e\n\x0bPingRequest\x12\x0f\n\x07ad'
    b'dress\x18\x01 \x01(\t"\x1e\n\x0bPongRequest\x12\x0f\n\x07address\x18\x01 \x01(\t"'
    b'\x1c\n\tPingReply\x12\x0f\n\x07address\x18\x01 \x01(\t"\x1c\n\tPongReply\x12\x0f'
    b'\n\x07address\x18\x01 \x01(\t*\xe6\x01\n\x08DataType\x12\x0e\n\nMS_UNKNOWN\x10'
    b'\x00\x12\x0b\n\x07MS_BOOL\x10\x01\x12\x0b\n\x07MS_INT8\x10\x02\x12\x0c\n\x08MS_UI'
    b'NT8\x10\x03\x12\x0c\n\x08MS_INT16\x10\x04\x12\r\n\tMS_UINT16\x10\x05\x12\x0c\n'
    b'\x08MS_INT32\x10\x06\x12\r\n\tMS_UINT32\x10\x07\x12\x0c\n\x08MS_INT64\x10\x08\x12'
    b'\r\n\tMS_UINT64\x10\t\x12\x0e\n\nMS_FLOAT16\x10\n\x12\x0e\n\nMS_FLOAT32\x10\x0b'
    b'\x12\x0e\n\nMS_FLOAT64\x10\x0c\x12\r\n\tMS_STRING\x10\r\x12\x0c\n\x08MS_BYTES\x10'
    b"\x0e2h\n\tMSService\x12[\n\x07Predict\x12'.mindspore.serving.proto.PredictRequest"
    b'\x1a%.mindspore.serving.proto.PredictReply"\x00b\x06proto3'
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
