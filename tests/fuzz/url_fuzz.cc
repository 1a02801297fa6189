// REST addresses: what is accepted has a servable and a version in range.
#include <cstdlib>
#include <string_view>

#include "protocol/rest_url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  msserving::RestUrl url;
  const std::string_view target(reinterpret_cast<const char*>(data), size);
  const msserving::Status status = msserving::ParseRestUrl(target, &url);
  if (status.ok() ? url.servable.empty() || url.method.empty() || url.version >= UINT32_MAX
                  : status.message().empty()) {
    std::abort();
  }
  return 0;
}
