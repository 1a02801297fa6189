// The worker's own memory for the values of instances: pooled, so that the steady state allocates nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace msserving {

// Blocks at multiples of 64, in powers of two from kSmallest. Keeps at most `keep_bytes` of free blocks. Any thread;
// its lock is a leaf and held for a few instructions.
class MemoryPool {
 public:
  static constexpr size_t kSmallest = 4096;

  struct Block {
    uint8_t* data = nullptr;
    size_t bytes = 0;
  };

  explicit MemoryPool(size_t keep_bytes) : keep_bytes_(keep_bytes) {}
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;

  Block Allocate(size_t bytes);  // null data: no memory
  void Free(Block block);

 private:
  static constexpr size_t kClasses = 52;
  static size_t ClassOf(size_t bytes);

  const size_t keep_bytes_;
  std::mutex mutex_;
  size_t kept_bytes_ = 0;                             // guarded by mutex_
  std::array<std::vector<uint8_t*>, kClasses> free_;  // guarded by mutex_
};

// Memory in which several instances' values lie side by side. Each instance lets go of it in InstanceMemory::Clear(),
// on whichever thread it is then; the last gives it back.
class SharedRows {
 public:
  // 64-aligned, for `users` instances that must each take it with InstanceMemory::Share(). Null: no memory.
  static SharedRows* Create(MemoryPool& pool, size_t bytes, uint32_t users);
  uint8_t* data() { return reinterpret_cast<uint8_t*>(this) + kHead; }
  size_t bytes() const { return bytes_ - kHead; }
  size_t share() const { return share_; }
  void Drop(MemoryPool& pool);

 private:
  static constexpr size_t kHead = 64;
  SharedRows(size_t bytes, uint32_t users) : bytes_(bytes), share_(bytes / users), users_(users) {}

  const size_t bytes_;  // of the block that this begins
  const size_t share_;  // what each user accounts for
  std::atomic<uint32_t> users_;
};

// What one instance has taken. Not thread-safe: an instance is in one thread's hands at a time.
class InstanceMemory {
 public:
  // 64-aligned; null: no memory. Lives until Clear().
  uint8_t* Allocate(MemoryPool& pool, size_t bytes);
  // Takes over one user's part of `rows`.
  void Share(SharedRows* rows);
  // Keeps the first block if it is of the smallest size, for the next instance.
  void Clear(MemoryPool& pool);
  // Gives everything back.
  void Release(MemoryPool& pool);
  size_t bytes() const { return bytes_; }
  // `data` lies in one of the blocks, its own or shared.
  bool Owns(const uint8_t* data) const;

 private:
  std::vector<MemoryPool::Block> blocks_;
  std::vector<SharedRows*> shared_;
  size_t used_ = 0;   // of the last block
  size_t bytes_ = 0;  // of all blocks, and its share of shared ones
};

}  // namespace msserving
