// Hands out blocks of a fixed range of bytes, with a hard cap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

namespace msserving {

// Works on offsets and keeps all of its own records outside the range, so that a process that shares the memory
// cannot corrupt the allocator. Blocks start at multiples of kAlignment. Small blocks (up to kSmallLimit) come from
// size classes, four to a doubling, in O(1); larger ones best-fit from merged extents, in O(log n). Freed large
// extents are reported through TakeDiscardable() so that the owner can give the pages back. One thread only.
class SlabAllocator {
 public:
  static constexpr uint64_t kNone = UINT64_MAX;
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kSmallLimit = 64 << 10;

  explicit SlabAllocator(uint64_t size);

  // kNone when the cap is reached. Zero bytes take the smallest block.
  uint64_t Allocate(uint64_t bytes);
  // `offset` must come from Allocate() and be in use; false (and nothing done) if it is not.
  bool Free(uint64_t offset);

  // Counting the rounding up to size classes.
  uint64_t used_bytes() const { return used_bytes_; }
  uint64_t blocks() const { return blocks_; }

 private:
  static constexpr int kClasses = 48;
  static constexpr uint64_t kRunBytes = 256 << 10;  // a small class carves its blocks from runs of this size

  struct Run {
    int size_class = -1;
    uint32_t in_use = 0;
    std::vector<bool> taken;
  };

  static int ClassOf(uint64_t bytes);
  static uint64_t ClassBytes(int size_class);
  uint64_t AllocateSmall(int size_class);
  uint64_t AllocateExtent(uint64_t bytes);
  void FreeExtent(uint64_t offset, uint64_t bytes);

  std::map<uint64_t, uint64_t> free_by_offset_;         // extent -> bytes
  std::multimap<uint64_t, uint64_t> free_by_size_;      // bytes -> extent
  std::unordered_map<uint64_t, uint64_t> large_;        // offset -> bytes of a large block in use
  std::unordered_map<uint64_t, Run> runs_;              // offset / kRunBytes-aligned start -> run
  std::array<std::vector<uint64_t>, kClasses> free_small_;
  uint64_t used_bytes_ = 0;
  uint64_t blocks_ = 0;
};

}  // namespace msserving
