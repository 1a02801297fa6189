#include "protocol/reflection_service.h"

#include <string>

#include "protocol/descriptors.h"
#include "protocol/wire.h"

namespace msserving {
namespace {

// Fields of ServerReflectionRequest.
enum class Ask : uint32_t {
  kNothing = 0,
  kFileByName = 3,
  kFileWithSymbol = 4,
  kFileWithExtension = 5,
  kExtensionNumbers = 6,
  kServices = 7,
};

struct Request {
  std::span<const uint8_t> host;
  Ask ask = Ask::kNothing;
  std::string_view argument;
};

bool Parse(std::span<const uint8_t> bytes, Request* request) {
  for (wire::Reader reader(bytes); !reader.done();) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) {
      return false;
    }
    const uint32_t field = wire::FieldOf(tag);
    std::span<const uint8_t> value;
    if (wire::TypeOf(tag) != wire::Type::kBytes || field == 2 || field > 7) {
      if (!reader.Skip(tag)) {
        return false;
      }
    } else if (!reader.ReadBytes(&value)) {
      return false;
    } else if (field == 1) {
      request->host = value;
    } else {  // the last one of these counts
      request->ask = static_cast<Ask>(field);
      request->argument = wire::AsText(value);
    }
  }
  return true;
}

void AppendField(uint32_t field, std::string_view value, Buffer* to) {
  uint8_t* at = to->Prepare(1 + wire::VarintSize(value.size()) + value.size());
  to->Commit(static_cast<size_t>(wire::WriteBytes(at, field, value.data(), value.size()) - at));
}

void AppendField(uint32_t field, std::span<const uint8_t> value, Buffer* to) {
  AppendField(field, wire::AsText(value), to);
}

void AppendError(GrpcStatus status, std::string_view message, Buffer* to) {
  Buffer error;
  uint8_t* at = error.Prepare(2);
  error.Commit(static_cast<size_t>(wire::WriteNumber(at, 1, static_cast<uint64_t>(status)) - at));
  AppendField(2, message, &error);
  AppendField(7, error.bytes(), to);
}

void AppendFile(const FileDescriptor* file, std::string_view asked, Buffer* to) {
  if (file == nullptr) {
    AppendError(GrpcStatus::kNotFound, "not found: " + std::string(asked.substr(0, 256)), to);
    return;
  }
  Buffer files;
  AppendField(1, file->bytes, &files);
  AppendField(4, files.bytes(), to);
}

void AppendServices(Buffer* to) {
  Buffer list;
  for (const FileDescriptor& file : AllFileDescriptors()) {
    for (const std::string_view service : file.services) {
      Buffer entry;
      AppendField(1, service, &entry);
      AppendField(1, entry.bytes(), &list);
    }
  }
  AppendField(6, list.bytes(), to);
}

}  // namespace

bool ReflectionService::Answer(std::span<const uint8_t> bytes, Buffer* reply) {
  Request request;
  if (!Parse(bytes, &request)) {
    return false;
  }
  AppendField(1, request.host, reply);
  AppendField(2, bytes, reply);  // the request, for clients that have sent several
  switch (request.ask) {
    case Ask::kFileByName: AppendFile(FindFile(request.argument), request.argument, reply); break;
    case Ask::kFileWithSymbol: AppendFile(FindFileWithSymbol(request.argument), request.argument, reply); break;
    case Ask::kFileWithExtension: AppendError(GrpcStatus::kNotFound, "there are no extensions", reply); break;
    case Ask::kExtensionNumbers:
      if (IsMessage(request.argument)) {
        Buffer numbers;
        AppendField(1, request.argument, &numbers);
        AppendField(5, numbers.bytes(), reply);
      } else {
        AppendFile(nullptr, request.argument, reply);
      }
      break;
    case Ask::kServices: AppendServices(reply); break;
    default: AppendError(GrpcStatus::kInvalidArgument, "the request asks for nothing that is known", reply);
  }
  return true;
}

void ReflectionService::OnMessage(GrpcStream* stream, std::span<const uint8_t> message) {
  if (stream->context == nullptr) {
    if (streams_ >= kMaxStreams) {
      stream->Finish(GrpcStatus::kResourceExhausted,
                     "there are " + std::to_string(kMaxStreams) + " reflection calls already");
      return;
    }
    ++streams_;
    stream->context = this;
  }
  Buffer reply;
  if (!Answer(message, &reply)) {
    Leave(stream);
    stream->Finish(GrpcStatus::kInvalidArgument, "The request is not a well-formed ServerReflectionRequest message");
  } else if (!stream->Send(reply.bytes())) {
    Leave(stream);
    stream->Finish(GrpcStatus::kResourceExhausted, "too many replies have not been read");
  }
}

void ReflectionService::OnMessagesEnd(GrpcStream* stream) {
  Leave(stream);
  stream->Finish(GrpcStatus::kOk, {});
}

void ReflectionService::OnDrain(GrpcStream* stream) {
  Leave(stream);
  stream->Finish(GrpcStatus::kUnavailable, "the server is shutting down");
}

void ReflectionService::OnCancelled(GrpcStream* stream) { Leave(stream); }

void ReflectionService::Leave(GrpcStream* stream) {
  if (stream->context != nullptr) {
    stream->context = nullptr;
    --streams_;
  }
}

}  // namespace msserving
