#include "session/libraries/acl/options.h"

#include <charconv>
#include <stdexcept>
#include <string_view>

namespace msserving::acl {
namespace {

[[noreturn]] void Refuse(const std::string& key, const std::string& value, const std::string& why) {
  throw std::invalid_argument("acl session: option '" + key + "' = '" + value + "': " + why);
}

}  // namespace

Options ParseOptions(const MsServingOption* options, size_t count) {
  Options parsed;
  for (size_t i = 0; i < count; ++i) {
    const std::string key = options[i].key;
    const std::string value = options[i].value;
    if (key == "file") {
      parsed.file = value;
    } else if (key == "library") {
      parsed.library = value;
    } else if (key == "device_id") {
      const char* end = value.data() + value.size();
      const auto [stop, error] = std::from_chars(value.data(), end, parsed.device);
      if (error != std::errc() || stop != end || parsed.device < 0) Refuse(key, value, "not a device's number");
    } else {
      Refuse(key, value, "unknown option");
    }
  }
  if (parsed.file.empty()) throw std::invalid_argument("acl session: option 'file' is missing");
  return parsed;
}

}  // namespace msserving::acl
