#include "server/supervisor_state.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "tensor/exchange.h"

namespace msserving {
namespace {

// A worker is looked at so often, or ten times in its shortest time-out.
constexpr int64_t kWatchNs = kNanosPerSecond;
constexpr int64_t kWatchCloselyNs = 20 * kNanosPerMilli;

}  // namespace

void Supervisor::State::Worker::WatchProbe() {
  watch_timer = state->loop.AddTimer(state->loop.now_ns() + state->options.probe_ns, [this, probed = id] {
    watch_timer = 0;
    if (probed == id && phase == Phase::kProbing && !state->stopping) {
      End(0,
          "it was killed: it said that it was ready, but no probe came back through it within " +
              std::to_string(state->options.probe_ns / kNanosPerMilli) + " ms",
          SIGKILL);
    }
  });
}

void Supervisor::State::Worker::WatchFromNow() {
  state->loop.CancelTimer(std::exchange(watch_timer, 0));
  watch_every_ns = kWatchNs;
  const auto at_least_every = [this](int64_t ns) { watch_every_ns = std::clamp(ns, kWatchCloselyNs, watch_every_ns); };
  if (state->options.silence_ns > 0) {
    at_least_every(state->options.silence_ns / 4);
  }
  if (signature.shortest_timeout_s > 0) {
    at_least_every(static_cast<int64_t>(std::min(signature.shortest_timeout_s, 3600.0) * 1e8));
  }
  silent_ns = 0;
  LookAgain();
}

void Supervisor::State::Worker::LookAgain() {
  watch_timer = state->loop.AddTimer(state->loop.now_ns() + watch_every_ns, [this, looked_at = id] {
    watch_timer = 0;
    if (looked_at == id && phase == Phase::kRunning && !state->stopping) {
      Watch();
    }
  });
}

// Time is counted in looks, not by the clock: when this process itself was stopped, nobody is to blame for the gap.
void Supervisor::State::Worker::Watch() {
  const auto* board = reinterpret_cast<const WorkerBoard*>(board_memory.base() + ChannelLayout::kBoard);
  const int64_t now_ns = state->loop.now_ns();
  for (uint32_t slot = 0; slot < kTimedSlots; ++slot) {
    const int64_t limit_ns = board->limit_ns[slot].load(std::memory_order_relaxed);
    if (limit_ns != 0 && now_ns > limit_ns) {
      End(static_cast<uint8_t>(kFirstTimedMark + slot), "it was ended: a call took longer than its method's time-out",
          SIGTERM);
      return;
    }
  }
  const uint64_t now_beats = board->beats.load(std::memory_order_relaxed);
  silent_ns = std::exchange(beats, now_beats) == now_beats ? silent_ns + watch_every_ns : 0;
  if (state->options.silence_ns > 0 && silent_ns >= state->options.silence_ns) {
    End(0,
        "it was killed: its process showed no sign of life for " + std::to_string(silent_ns / kNanosPerSecond) +
            " s (stopped, or starved of memory)",
        SIGKILL);
    return;
  }
  LookAgain();
}

// What runs with the mark `running` is answered now, all else once the process is gone.
void Supervisor::State::Worker::End(uint8_t running, const std::string& why, int signal) {
  phase = Phase::kEnding;
  ended_because = why;
  given_up = running;
  state->front_end->GiveUp(id, running);
  process.Signal(signal);
  KillLater(Phase::kEnding);
  state->Publish();
}

void Supervisor::State::Worker::KillLater(Phase if_still) {
  state->loop.CancelTimer(watch_timer);
  watch_timer = state->loop.AddTimer(state->loop.now_ns() + state->options.terminate_ns, [this, if_still, ended = id] {
    watch_timer = 0;
    if (ended == id && phase == if_still) {
      process.Signal(SIGKILL);
    }
  });
}

}  // namespace msserving
