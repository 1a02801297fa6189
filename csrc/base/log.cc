#include "base/log.h"

#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "base/clock.h"

namespace msserving {
namespace {

// "{SERVING:1}" or "{ME:2, SERVING:1}": the level of this module alone; -1 if it does not say.
int SubmoduleThreshold(const char* text) {
  constexpr std::string_view kName = "SERVING";
  const std::string_view all = text == nullptr ? "" : text;
  for (size_t at = all.find(kName); at != std::string_view::npos; at = all.find(kName, at + 1)) {
    const bool begins = at == 0 || std::string_view("{, ").find(all[at - 1]) != std::string_view::npos;
    size_t value = at + kName.size();
    while (value < all.size() && (all[value] == ' ' || all[value] == ':')) {
      ++value;
    }
    const bool ends = value + 1 >= all.size() || std::string_view("}, ").find(all[value + 1]) != std::string_view::npos;
    if (begins && ends && value < all.size() && all[value] >= '0' && all[value] <= '3') {
      return all[value] - '0';
    }
  }
  return -1;
}

int InitialThreshold() {
  if (const int own = SubmoduleThreshold(std::getenv("MS_SUBMODULE_LOG_v")); own >= 0) {
    return own;
  }
  const char* text = std::getenv("GLOG_v");
  if (text == nullptr || text[0] < '0' || text[0] > '3' || text[1] != '\0') {
    return static_cast<int>(LogLevel::kWarning);
  }
  return text[0] - '0';
}

std::atomic<int>& Threshold() {
  static std::atomic<int> threshold{InitialThreshold()};
  return threshold;
}

// Never destroyed: threads may log while the process ends.
struct Sink {
  std::shared_mutex mutex;  // shared by calls of the function
  LogSink function = nullptr;
  void* user = nullptr;
};
Sink& TheSink() {
  static Sink& sink = *new Sink;
  return sink;
}

}  // namespace

void SetLogSink(LogSink sink, void* user) {
  const std::unique_lock<std::shared_mutex> lock(TheSink().mutex);
  TheSink().function = sink;
  TheSink().user = user;
}

LogLevel LogThreshold() { return static_cast<LogLevel>(Threshold().load(std::memory_order_relaxed)); }

void SetLogThreshold(LogLevel level) { Threshold().store(static_cast<int>(level), std::memory_order_relaxed); }

void WriteLog(LogLevel level, std::string_view text) {
  {
    const std::shared_lock<std::shared_mutex> lock(TheSink().mutex);
    if (TheSink().function != nullptr) {
      TheSink().function(TheSink().user, level, text);
      return;
    }
  }
  static constexpr const char* kNames[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
  timeval now{};
  gettimeofday(&now, nullptr);
  tm local{};
  localtime_r(&now.tv_sec, &local);
  char head[128];
  const int n = std::snprintf(head, sizeof(head), "[%s] SERVING(%d,%ld):%04d-%02d-%02d-%02d:%02d:%02d.%03d ",
                              kNames[static_cast<int>(level)], getpid(), syscall(SYS_gettid), local.tm_year + 1900,
                              local.tm_mon + 1, local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec,
                              static_cast<int>(now.tv_usec / 1000));
  std::string line(head, static_cast<size_t>(n));
  line.append(text);
  line.push_back('\n');
  // A log line that cannot be written has nowhere to be reported.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

bool RateLimit::Allow(int64_t now_ns, uint64_t* suppressed) {
  int64_t next = next_ns_.load(std::memory_order_relaxed);
  if (now_ns < next || !next_ns_.compare_exchange_strong(next, now_ns + kNanosPerSecond, std::memory_order_relaxed)) {
    suppressed_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  *suppressed = suppressed_.exchange(0, std::memory_order_relaxed);
  return true;
}

}  // namespace msserving
