#include "protocol/descriptors.h"

#include <algorithm>

namespace msserving {

const FileDescriptor* FindFile(std::string_view name) {
  for (const FileDescriptor& file : AllFileDescriptors()) {
    if (file.name == name) {
      return &file;
    }
  }
  return nullptr;
}

const FileDescriptor* FindFileWithSymbol(std::string_view full_name) {
  for (const FileDescriptor& file : AllFileDescriptors()) {
    if (std::find(file.symbols.begin(), file.symbols.end(), full_name) != file.symbols.end()) {
      return &file;
    }
  }
  return nullptr;
}

bool IsMessage(std::string_view full_name) {
  const FileDescriptor* file = FindFileWithSymbol(full_name);
  return file != nullptr && std::find(file->messages.begin(), file->messages.end(), full_name) != file->messages.end();
}

}  // namespace msserving
