#include "server/signals.h"

#include <signal.h>

#include <atomic>
#include <mutex>

namespace msserving {
namespace {

std::atomic<int> g_count{0};
std::atomic<int> g_last{0};
static_assert(std::atomic<int>::is_always_lock_free);

std::mutex g_mutex;  // guards the two below
bool g_installed = false;
struct sigaction g_before[2];

constexpr int kSignals[2] = {SIGINT, SIGTERM};

extern "C" void OnStopSignal(int number) {
  g_last.store(number);
  g_count.fetch_add(1);
}

}  // namespace

void InstallStopSignals() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  if (g_installed) {
    return;
  }
  g_count = 0;
  g_last = 0;
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

StopSignals SeenStopSignals() { return {g_count.load(), g_last.load()}; }

}  // namespace msserving
