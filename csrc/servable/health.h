// What health checks ask, of whichever protocol.
#pragma once

#include <cstdint>
#include <string_view>

namespace msserving {

enum class ServableHealth { kServing, kNotServing, kUnknown };

// Every method on the event loop's thread; none blocks.
class HealthSource {
 public:
  // The process works; false asks for its restart.
  virtual bool live() = 0;
  // Requests would be served now; false asks for none.
  virtual bool ready() = 0;
  // The same for one servable; version 0 is any of them.
  virtual ServableHealth servable(std::string_view name, uint64_t version) = 0;

 protected:
  ~HealthSource() = default;
};

}  // namespace msserving
