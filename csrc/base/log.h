// Levelled log lines on standard error: "[LEVEL] SERVING(pid,thread):time text". GLOG_v: 0 debug, 1 info, 2 warning
// (default), 3 error; MS_SUBMODULE_LOG_v={SERVING:1} wins. Any thread; a line is written with one system call. Never on
// a request's path: what a client can cause is logged through a RateLimit.
#pragma once

#include <atomic>
#include <cstdint>
#include <sstream>
#include <string_view>

namespace msserving {

enum class LogLevel : int { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

LogLevel LogThreshold();
void SetLogThreshold(LogLevel level);
void WriteLog(LogLevel level, std::string_view text);

// Lines go to `sink` instead, without what stands before the text; null: to standard error again. A sink is called on
// any thread, on several at once, and may not call anything here. When this returns, the one before is not running.
using LogSink = void (*)(void* user, LogLevel level, std::string_view text);
void SetLogSink(LogSink sink, void* user);

// Lets one event a second through, and says how many it held back.
class RateLimit {
 public:
  // True if the caller should log now; *suppressed is the number of events since the last one that was let through.
  bool Allow(int64_t now_ns, uint64_t* suppressed);

 private:
  std::atomic<int64_t> next_ns_{0};
  std::atomic<uint64_t> suppressed_{0};
};

#define MSSERVING_LOG(level, expression)                                               \
  do {                                                                                 \
    if (::msserving::LogLevel::level >= ::msserving::LogThreshold()) {                 \
      std::ostringstream msserving_log_stream;                                         \
      msserving_log_stream << expression;                                              \
      ::msserving::WriteLog(::msserving::LogLevel::level, msserving_log_stream.str()); \
    }                                                                                  \
  } while (false)

// For what a client can cause: one line a second and `limit`, which says how many it held back.
#define MSSERVING_LOG_LIMITED(limit, now_ns, level, expression)                        \
  do {                                                                                 \
    uint64_t msserving_held_back = 0;                                                  \
    if (::msserving::LogLevel::level >= ::msserving::LogThreshold() &&                 \
        (limit).Allow((now_ns), &msserving_held_back)) {                               \
      std::ostringstream msserving_log_stream;                                         \
      msserving_log_stream << expression;                                              \
      if (msserving_held_back > 0) {                                                   \
        msserving_log_stream << " (" << msserving_held_back << " more of these)";      \
      }                                                                                \
      ::msserving::WriteLog(::msserving::LogLevel::level, msserving_log_stream.str()); \
    }                                                                                  \
  } while (false)

}  // namespace msserving
