// Memory at a multiple of 64 that grows and is reused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "tensor/exchange.h"

namespace msserving {

inline bool IsAligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % kTensorAlignment == 0; }

// Owns its memory. Not thread-safe.
class AlignedBuffer {
 public:
  // At least `bytes` of room; what was in it is lost if it had to grow. Null: no memory.
  uint8_t* Reserve(size_t bytes) {
    if (bytes > size_ || data_ == nullptr) {
      const size_t rounded = (bytes / kTensorAlignment + 1) * kTensorAlignment;
      data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kTensorAlignment, rounded)));
      size_ = data_ != nullptr ? rounded : 0;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t[], Free> data_;
  size_t size_ = 0;
};

}  // namespace msserving
