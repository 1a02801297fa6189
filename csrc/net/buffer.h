// Byte buffers that are used again and again. A fresh multi-megabyte allocation costs more in page faults than the
// bytes cost to move, so each event loop keeps the buffers that its requests leave behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/byte_budget.h"

namespace msserving {

class BufferPool;

// Growable bytes, not initialised. Move-only. Keeps kPadding readable bytes behind capacity (simdjson wants them).
class Buffer {
 public:
  static constexpr size_t kPadding = 64;

  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)),
        pool_(other.pool_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      if (data_ != nullptr) {
        Free();
      }
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      capacity_ = std::exchange(other.capacity_, 0);
      pool_ = other.pool_;
    }
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) {
      Free();
    }
  }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  bool empty() const { return size_ == 0; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  void Reserve(size_t capacity);
  // New bytes are not initialised.
  void Resize(size_t size);
  void Append(const void* bytes, size_t size);
  // Room for `size` more bytes; write there, then Commit() what was written.
  uint8_t* Prepare(size_t size);
  void Commit(size_t size) { size_ += size; }
  void Clear() { size_ = 0; }

 private:
  friend class BufferPool;
  void Free();

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
  BufferPool* pool_ = nullptr;  // where the memory goes back to
};

// Keeps up to `bytes_limit` of idle buffer memory, by size class. Must outlive its buffers. One thread only.
class BufferPool {
 public:
  explicit BufferPool(size_t bytes_limit = size_t{64} << 20);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;

  // An empty buffer with at least this capacity.
  Buffer Acquire(size_t capacity);
  size_t idle_bytes() const { return idle_bytes_; }
  // Frees the buffers that nobody has needed since the last call; returns their bytes. Call it now and then.
  size_t FreeUnused();

 private:
  friend class Buffer;
  void GiveBack(uint8_t* data, size_t capacity);
  static size_t ClassOf(size_t capacity);

  static constexpr size_t kClasses = 32;
  std::vector<uint8_t*> idle_[kClasses];
  size_t least_idle_[kClasses] = {};  // the fewest that were idle at any time since FreeUnused()
  size_t idle_bytes_ = 0;
  size_t bytes_limit_;
};

// What is written to a socket: encoded bytes, with slices of other memory (tensors in shared memory) between them.
// Sent in order: slice i goes out after the first slices[i].at bytes of `encoded`. Destroyed once all is sent or the
// stream is gone; `keep_alive` is released then.
class KeepAlive {
 public:
  virtual ~KeepAlive() = default;
};

struct OutgoingBody {
  struct Slice {
    size_t at;  // position in `encoded` before which the slice is inserted; ascending
    const uint8_t* data;
    size_t size;
  };

  Buffer encoded;
  std::vector<Slice> slices;
  std::unique_ptr<KeepAlive> keep_alive;  // may be null
  ByteCharge charge;                      // the server's: for all of it

  size_t TotalSize() const;
};

}  // namespace msserving
