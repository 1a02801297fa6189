// One line for one event of a server's life: event=worker_ready servable=add version=1 pid=4711.
#pragma once

#include <concepts>
#include <string>
#include <string_view>

#include "base/log.h"

namespace msserving {

// Written when it goes out of scope, if its level is logged at all. A value that is empty or has a space, a quote or a
// line break in it stands in double quotes, with \" \\ and \n for what could end it or the line.
//   LogEvent(LogLevel::kInfo, "worker_ready").With("servable", name).With("pid", pid);
// Not for a request's path.
class LogEvent {
 public:
  LogEvent(LogLevel level, std::string_view event);
  ~LogEvent();
  LogEvent(const LogEvent&) = delete;
  LogEvent& operator=(const LogEvent&) = delete;

  LogEvent& With(std::string_view key, std::string_view value);
  template <std::integral Number>
  LogEvent& With(std::string_view key, Number value) {
    return With(key, std::to_string(value));
  }

 private:
  LogLevel level_;
  std::string line_;  // empty: not logged
};

}  // namespace msserving
