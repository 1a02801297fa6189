// What health checks ask, of whichever protocol.
#pragma once

namespace msserving {

// Every method on the event loop's thread; neither blocks.
class HealthSource {
 public:
  // The process works; false asks for its restart.
  virtual bool live() = 0;
  // Requests would be served now; false asks for none.
  virtual bool ready() = 0;

 protected:
  ~HealthSource() = default;
};

}  // namespace msserving
