#include "tensor/slab.h"

#include <algorithm>
#include <bit>

namespace msserving {
namespace {

constexpr uint64_t RoundUp(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

// Sizes in steps of a quarter of the power of two below them, all multiples of 64.
constexpr uint64_t kSizes[] = {64,    128,   192,   256,   320,   384,   448,   512,   640,   768,   896,   1024,
                               1280,  1536,  1792,  2048,  2560,  3072,  3584,  4096,  5120,  6144,  7168,  8192,
                               10240, 12288, 14336, 16384, 20480, 24576, 28672, 32768, 40960, 49152, 57344, 65536};
constexpr int kSizesCount = sizeof(kSizes) / sizeof(kSizes[0]);

}  // namespace

SlabAllocator::SlabAllocator(uint64_t size) {
  // Runs are found by dividing, so extents are handed out in multiples of a page and runs at multiples of their size.
  const uint64_t usable = size / kRunBytes * kRunBytes;
  runs_.resize(usable / kRunBytes);
  if (usable > 0) {
    FreeExtent(0, usable);
  }
}

int SlabAllocator::ClassOf(uint64_t bytes) {
  static_assert(kSizesCount <= kClasses);
  if (bytes <= 512) {
    return bytes <= 64 ? 0 : static_cast<int>((bytes + 63) / 64) - 1;
  }
  const int log = 63 - std::countl_zero(bytes - 1);  // 2^log < bytes <= 2^(log+1)
  const auto quarter = static_cast<int>(((bytes - 1) >> (log - 2)) & 3);
  return 8 + (log - 9) * 4 + quarter;
}

uint64_t SlabAllocator::ClassBytes(int size_class) { return kSizes[size_class]; }

uint64_t SlabAllocator::Allocate(uint64_t bytes) {
  if (bytes > kSmallLimit) {
    const uint64_t rounded = RoundUp(bytes, 4096);
    if (rounded < bytes) {
      return kNone;
    }
    uint64_t offset = AllocateExtent(rounded);
    if (offset == kNone && GiveBackIdleRuns()) {
      offset = AllocateExtent(rounded);
    }
    if (offset != kNone) {
      large_.emplace(offset, rounded);
      used_bytes_ += rounded;
      ++blocks_;
    }
    return offset;
  }
  const int size_class = ClassOf(bytes);
  auto& free = free_small_[size_class];
  if (free.empty() && !AddRun(size_class) && !(GiveBackIdleRuns() && AddRun(size_class))) {
    return kNone;
  }
  const uint64_t offset = free.back();
  free.pop_back();
  Run& run = runs_[offset / kRunBytes];
  run.taken[(offset % kRunBytes) / ClassBytes(size_class)] = true;
  ++run.in_use;
  used_bytes_ += ClassBytes(size_class);
  ++blocks_;
  return offset;
}

bool SlabAllocator::Free(uint64_t offset) {
  if (const auto large = large_.find(offset); large != large_.end()) {
    const uint64_t bytes = large->second;
    large_.erase(large);
    used_bytes_ -= bytes;
    --blocks_;
    FreeExtent(offset, bytes);
    return true;
  }
  const uint64_t index = offset / kRunBytes;
  if (index >= runs_.size() || runs_[index].size_class < 0) {
    return false;
  }
  Run& run = runs_[index];
  const uint64_t bytes = ClassBytes(run.size_class);
  const uint64_t within = offset % kRunBytes;
  if (within % bytes != 0 || within / bytes >= run.taken.size() || !run.taken[within / bytes]) {
    return false;
  }
  run.taken[within / bytes] = false;
  --run.in_use;
  free_small_[run.size_class].push_back(offset);
  used_bytes_ -= bytes;
  --blocks_;
  return true;
}

bool SlabAllocator::AddRun(int size_class) {
  // Ask for enough to find an aligned run inside; the rest goes straight back.
  uint64_t offset = kNone;
  for (const auto& [start, bytes] : free_by_offset_) {
    const uint64_t aligned = RoundUp(start, kRunBytes);
    if (aligned + kRunBytes <= start + bytes) {
      offset = aligned;
      const uint64_t extent_start = start;
      const uint64_t extent_bytes = bytes;
      EraseSize(extent_bytes, extent_start);
      free_by_offset_.erase(extent_start);
      if (aligned > extent_start) {
        FreeExtent(extent_start, aligned - extent_start);
      }
      if (aligned + kRunBytes < extent_start + extent_bytes) {
        FreeExtent(aligned + kRunBytes, extent_start + extent_bytes - aligned - kRunBytes);
      }
      break;
    }
  }
  if (offset == kNone) {
    return false;
  }
  Run& run = runs_[offset / kRunBytes];
  const uint64_t bytes = ClassBytes(size_class);
  const uint64_t count = kRunBytes / bytes;
  run.size_class = size_class;
  run.in_use = 0;
  run.taken.assign(count, false);
  auto& free = free_small_[size_class];
  free.reserve(free.size() + count);
  for (uint64_t i = count; i-- > 0;) {
    free.push_back(offset + i * bytes);
  }
  return true;
}

bool SlabAllocator::GiveBackIdleRuns() {
  bool any = false;
  for (uint64_t i = 0; i < runs_.size(); ++i) {
    Run& run = runs_[i];
    if (run.size_class < 0 || run.in_use > 0) {
      continue;
    }
    auto& free = free_small_[run.size_class];
    const uint64_t start = i * kRunBytes;
    free.erase(
        std::remove_if(free.begin(), free.end(), [start](uint64_t o) { return o >= start && o < start + kRunBytes; }),
        free.end());
    run.size_class = -1;
    run.taken.clear();
    FreeExtent(start, kRunBytes);
    any = true;
  }
  return any;
}

uint64_t SlabAllocator::AllocateExtent(uint64_t bytes) {
  const auto found = free_by_size_.lower_bound(bytes);
  if (found == free_by_size_.end()) {
    return kNone;
  }
  const uint64_t have = found->first;
  const uint64_t offset = found->second;
  free_by_size_.erase(found);
  free_by_offset_.erase(offset);
  if (have > bytes) {
    free_by_offset_.emplace(offset + bytes, have - bytes);
    free_by_size_.emplace(have - bytes, offset + bytes);
  }
  return offset;
}

void SlabAllocator::EraseSize(uint64_t bytes, uint64_t offset) {
  for (auto [it, end] = free_by_size_.equal_range(bytes); it != end; ++it) {
    if (it->second == offset) {
      free_by_size_.erase(it);
      return;
    }
  }
}

void SlabAllocator::FreeExtent(uint64_t offset, uint64_t bytes) {
  auto next = free_by_offset_.lower_bound(offset);
  if (next != free_by_offset_.end() && offset + bytes == next->first) {
    bytes += next->second;
    EraseSize(next->second, next->first);
    next = free_by_offset_.erase(next);
  }
  if (next != free_by_offset_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      EraseSize(before->second, before->first);
      free_by_offset_.erase(before);
    }
  }
  free_by_offset_.emplace(offset, bytes);
  free_by_size_.emplace(bytes, offset);
}

}  // namespace msserving
