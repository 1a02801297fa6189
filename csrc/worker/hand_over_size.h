// How many instances of a queue a stage is handed at once, so that the first one's answer does not wait for a long run
// of others.
#pragma once

#include <cstddef>
#include <cstdint>

namespace msserving {

// From `fewest` to `most`, as many as take `hand_over_ns` by the time that instances have taken. A Python stage begins
// with all of its max_batch. A model that runs one row at a time begins with one: its rows are run in turns, and what
// is done once for each hand-over is most of what a short run costs. Not thread-safe: the executor's lock guards it.
// Reads no clock, allocates nothing.
class HandOverSize {
 public:
  // No bound but the queue's own max_batch, always.
  HandOverSize() = default;
  // Begins with `first`, which may be more than `most`: that is kept until the first Adapt().
  HandOverSize(uint32_t first, uint32_t fewest, uint32_t most, int64_t hand_over_ns)
      : now_(first), fewest_(fewest), most_(most), hand_over_ns_(hand_over_ns) {}

  bool adapts() const { return fewest_ > 0; }
  uint32_t now() const { return now_; }
  // The most that it ever comes to by itself; 0 if it does not adapt.
  uint32_t most() const { return most_; }

  // `instances` have been run, in `run_ns` together. Down at once, up by doubling: one quick instance among slow ones
  // is no reason for a long run.
  void Adapt(size_t instances, int64_t run_ns);

 private:
  uint32_t now_ = UINT32_MAX;
  uint32_t fewest_ = 0;
  uint32_t most_ = 0;
  int64_t hand_over_ns_ = 0;
};

}  // namespace msserving
