// How long a new request would wait for a worker: what is with the worker, times what an instance has taken of late.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace msserving {

// Fed by whoever hands the instances out and takes them back. One thread; no allocation, no clock of its own.
//
// A queue whose requests all expire before the worker comes to them gives no measurement at all. Then what they have
// waited is believed, until there is a measurement or the queue is empty: else an overload that once began, with a
// worker that stood still for a moment, would not end.
//
// Only time in which the worker had something to do counts, and only instances that it has really worked on: what was
// cancelled or expired in the queue says nothing about its pace. With nothing outstanding the wait is 0, whatever was
// measured before, so a worker that was slow once is always given another chance. And a pace is believed only for
// queues like the one it was measured with: a worker that takes 100 ms for one instance may take as long for a batch of
// 32, so of a queue that is suddenly much longer the wait is unknown until the next measurement.
class QueueEstimate {
 public:
  // A measurement is as long as this and has this many instances at least; it moves the estimate half of the way.
  static constexpr int64_t kWindowNs = 20 * kNanosPerMilli;
  static constexpr uint64_t kWindowInstances = 8;
  // A window that is this long ends with one instance.
  static constexpr int64_t kLongWindowNs = kNanosPerSecond;
  // A queue of up to so many times the longest one of the measurement is like it.
  static constexpr uint64_t kKnownFactor = 2;

  void OnGiven(uint64_t instances, int64_t now_ns) {
    if (outstanding_ == 0) {
      since_ns_ = now_ns;
    }
    outstanding_ += instances;
  }

  // `worked` of the `instances` that come back were worked on; they have been out for `out_ns`.
  void OnBack(uint64_t instances, uint64_t worked, int64_t now_ns, int64_t out_ns) {
    if (deepest_ > 0 && outstanding_ > kKnownFactor * deepest_) {
      busy_ns_ = 0;  // what was measured so far was another queue
      worked_ = 0;
    }
    deepest_ = deepest_ > outstanding_ ? deepest_ : outstanding_;
    outstanding_ -= instances < outstanding_ ? instances : outstanding_;
    busy_ns_ += now_ns - since_ns_;
    since_ns_ = now_ns;
    worked_ += worked;
    expired_after_ns_ = outstanding_ == 0 ? 0 : worked == 0 ? out_ns : expired_after_ns_;
    const bool enough = busy_ns_ >= kWindowNs && worked_ >= kWindowInstances;
    if (enough || (busy_ns_ >= kLongWindowNs && worked_ > 0)) {
      const int64_t measured_ns = busy_ns_ / static_cast<int64_t>(worked_);
      const bool comparable = instance_ns_ != 0 && deepest_ <= kKnownFactor * measured_depth_;
      instance_ns_ = comparable ? instance_ns_ + (measured_ns - instance_ns_) / 2 : measured_ns;
      measured_depth_ = deepest_;
      deepest_ = 0;
      busy_ns_ = 0;
      worked_ = 0;
      expired_after_ns_ = 0;
    }
  }

  // 0 if nothing is known of a queue like this one.
  int64_t WaitNs() const {
    if (outstanding_ > kKnownFactor * measured_depth_) {
      return expired_after_ns_;
    }
    // Neither factor is large enough for the product to overflow: an hour an instance, a million instances.
    return static_cast<int64_t>(outstanding_) * instance_ns_;
  }
  uint64_t outstanding() const { return outstanding_; }

 private:
  uint64_t outstanding_ = 0;
  int64_t since_ns_ = 0;
  int64_t busy_ns_ = 0;
  uint64_t worked_ = 0;
  uint64_t deepest_ = 0;  // of this window, and of the last measurement
  uint64_t measured_depth_ = 0;
  int64_t instance_ns_ = 0;
  int64_t expired_after_ns_ = 0;  // what came back last, if unworked and since the last measurement
};

}  // namespace msserving
