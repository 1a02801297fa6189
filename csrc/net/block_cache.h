// Small blocks of memory, kept for the next user. For libraries in C that allocate and free the same few sizes for
// every request: a list of its own for each loop costs less than malloc in a process of many threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace msserving {

// One thread. Must outlive its blocks. Blocks are aligned for any type.
class BlockCache {
 public:
  // Keeps up to `bytes_limit` of idle blocks.
  explicit BlockCache(size_t bytes_limit = size_t{8} << 20) : bytes_limit_(bytes_limit) {}
  BlockCache(const BlockCache&) = delete;
  ~BlockCache();

  // Null if there is no memory.
  void* Allocate(size_t size);
  // From Allocate() or null.
  void Free(void* block);
  // As realloc().
  void* Reallocate(void* block, size_t size);

 private:
  struct alignas(16) Header {
    Header* next;
    size_t size;  // of the block behind it, as rounded up
  };
  static constexpr size_t kStep = 64;
  static constexpr size_t kLargest = 2048;  // beyond: malloc's

  Header* idle_[kLargest / kStep + 1] = {};
  size_t idle_bytes_ = 0;
  size_t bytes_limit_;
};

}  // namespace msserving
