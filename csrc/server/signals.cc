#include "server/signals.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <atomic>
#include <mutex>

#include "base/clock.h"

namespace msserving {
namespace {

std::atomic<int> g_count{0};
std::atomic<int> g_last{0};
static_assert(std::atomic<int>::is_always_lock_free);

std::atomic<int> g_event{-1};  // an eventfd, made once and kept: the handler may write to it at any time

std::mutex g_mutex;  // guards the two below
bool g_installed = false;
struct sigaction g_before[2];

constexpr int kSignals[2] = {SIGINT, SIGTERM};

extern "C" void OnStopSignal(int number) {
  g_last.store(number);
  g_count.fetch_add(1);
  WakeSignalWaiters();
}

}  // namespace

void InstallStopSignals() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  if (g_installed) {
    return;
  }
  if (g_event < 0) {
    g_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  }
  g_count = 0;
  g_last = 0;
  eventfd_t seen;
  (void)eventfd_read(g_event, &seen);
  struct sigaction action {};
  action.sa_handler = OnStopSignal;
  action.sa_flags = SA_RESTART;
  for (int i = 0; i < 2; ++i) {
    sigaction(kSignals[i], &action, &g_before[i]);
  }
  g_installed = true;
}

void RestoreStopSignals() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  if (!g_installed) {
    return;
  }
  for (int i = 0; i < 2; ++i) {
    sigaction(kSignals[i], &g_before[i], nullptr);
  }
  g_installed = false;
}

bool StopSignalsInstalled() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  return g_installed;
}

void ForgetStopSignals() {
  g_count = 0;
  g_last = 0;
}

StopSignals SeenStopSignals() { return {g_count.load(), g_last.load()}; }

void WaitForStopSignal(int64_t timeout_ns) {
  pollfd wait{g_event.load(), POLLIN, 0};
  (void)poll(&wait, 1, static_cast<int>(timeout_ns / kNanosPerMilli));
}

void WakeSignalWaiters() {
  const int before = errno;
  (void)eventfd_write(g_event.load(), 1);
  errno = before;
}

}  // namespace msserving
