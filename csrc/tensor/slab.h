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
// size classes, four to a doubling, in O(1), most recently freed first; larger ones best-fit from merged extents, in
// O(log n). A run of small blocks that is entirely free goes back to the extents only when an extent is missing.
// One thread only.
class SlabAllocator {
 public:
  static constexpr uint64_t kNone = UINT64_MAX;
  static constexpr uint64_t kAlignment = 64;
  static constexpr uint64_t kSmallLimit = 64 << 10;

  explicit SlabAllocator(uint64_t size);

  // kNone when the cap is reached. Zero bytes take the smallest block.
  uint64_t Allocate(uint64_t bytes);
  // False, and nothing done, if `offset` is not the start of a block in use.
  bool Free(uint64_t offset);

  // Counting what rounding up takes.
  uint64_t used_bytes() const { return used_bytes_; }
  uint64_t blocks() const { return blocks_; }

 private:
  static constexpr int kClasses = 36;  // 64 bytes to 64 KiB
  static constexpr uint64_t kRunBytes = 256 << 10;

  // A stretch of kRunBytes cut into blocks of one class.
  struct Run {
    int size_class = -1;
    uint32_t in_use = 0;
    std::vector<bool> taken;
  };

  static int ClassOf(uint64_t bytes);
  static uint64_t ClassBytes(int size_class);
  bool AddRun(int size_class);
  bool GiveBackIdleRuns();
  uint64_t AllocateExtent(uint64_t bytes);
  void FreeExtent(uint64_t offset, uint64_t bytes);
  void EraseSize(uint64_t bytes, uint64_t offset);

  std::map<uint64_t, uint64_t> free_by_offset_;     // extent -> bytes
  std::multimap<uint64_t, uint64_t> free_by_size_;  // bytes -> extent
  std::unordered_map<uint64_t, uint64_t> large_;    // a large block in use -> bytes
  std::vector<Run> runs_;                           // by offset / kRunBytes; size_class -1: no run there
  std::array<std::vector<uint64_t>, kClasses> free_small_;
  uint64_t used_bytes_ = 0;
  uint64_t blocks_ = 0;
};

}  // namespace msserving
