// One ServerReflectionRequest, as a client may send it.
#include <cstdlib>

#include "protocol/reflection_service.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using msserving::ReflectionService;
  msserving::Buffer reply;
  const bool answered = ReflectionService::Answer({data, size}, &reply);
  // An answer holds the request; a refusal holds nothing.
  if (answered ? reply.size() < size : !reply.empty()) {
    std::abort();
  }
  return 0;
}
