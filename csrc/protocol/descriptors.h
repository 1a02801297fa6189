// The compiled .proto files of every service that can be called: what reflection hands out. The tables are written by
// proto/generate.py, so that neither a build nor the core needs protobuf.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace msserving {

struct FileDescriptor {
  std::string_view name;                       // "grpc/health/v1/health.proto"
  std::span<const uint8_t> bytes;              // a FileDescriptorProto
  std::span<const std::string_view> symbols;   // full names of all it defines: messages, fields, enums, services …
  std::span<const std::string_view> services;  // of these, the services
  std::span<const std::string_view> messages;  // and the messages
};

std::span<const FileDescriptor> AllFileDescriptors();

// Null: there is none.
const FileDescriptor* FindFile(std::string_view name);
const FileDescriptor* FindFileWithSymbol(std::string_view full_name);
bool IsMessage(std::string_view full_name);

}  // namespace msserving
