#include "base/log_event.h"

#include <algorithm>

namespace msserving {

LogEvent::LogEvent(LogLevel level, std::string_view event) : level_(level) {
  if (level >= LogThreshold()) {
    line_.append("event=").append(event);
  }
}

LogEvent::~LogEvent() {
  if (!line_.empty()) {
    WriteLog(level_, line_);
  }
}

LogEvent& LogEvent::With(std::string_view key, std::string_view value) {
  if (line_.empty()) {
    return *this;
  }
  line_.append(1, ' ').append(key).append(1, '=');
  const bool plain = !value.empty() && std::none_of(value.begin(), value.end(), [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || c == '"' || c == '\\' || c == 0x7f;
  });
  if (plain) {
    line_.append(value);
    return *this;
  }
  line_.push_back('"');
  for (const char c : value) {
    if (c == '\n') {
      line_.append("\\n");
    } else if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) {
      line_.push_back(' ');
    } else {
      if (c == '"' || c == '\\') {
        line_.push_back('\\');
      }
      line_.push_back(c);
    }
  }
  line_.push_back('"');
  return *this;
}

}  // namespace msserving
