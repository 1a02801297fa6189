// SIGINT and SIGTERM, taken natively so that they work whatever the main thread is doing.
#pragma once

#include <cstdint>

namespace msserving {

// Notes the signals from now on instead of what the process did with them before. Any thread; idempotent.
void InstallStopSignals();
// Back to what was there before.
void RestoreStopSignals();
// Whether they are noted now.
bool StopSignalsInstalled();
// Nothing has come so far. After RestoreStopSignals(), for processes that go on without.
void ForgetStopSignals();
// How often SIGINT or SIGTERM has come since InstallStopSignals(), and the last one's number (0: none).
struct StopSignals {
  int count;
  int last;
};
StopSignals SeenStopSignals();
// Sleeps until a signal has come, WakeSignalWaiters() was called, or the time is over. Any thread.
void WaitForStopSignal(int64_t timeout_ns);
void WakeSignalWaiters();

}  // namespace msserving
