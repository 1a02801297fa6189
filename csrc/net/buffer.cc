#include "net/buffer.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace msserving {
namespace {

// The smallest class; below it a class would not be worth its list.
constexpr int kSmallestClassBits = 8;

uint8_t* Allocate(size_t capacity) {
  if (capacity > SIZE_MAX - Buffer::kPadding) {
    throw std::bad_alloc();
  }
  auto* data = static_cast<uint8_t*>(std::malloc(capacity + Buffer::kPadding));
  if (data == nullptr) {
    throw std::bad_alloc();
  }
  return data;
}

}  // namespace

void Buffer::Free() {
  if (pool_ != nullptr) {
    pool_->GiveBack(data_, capacity_);
  } else {
    std::free(data_);
  }
  data_ = nullptr;
}

void Buffer::Reserve(size_t capacity) {
  if (capacity <= capacity_) {
    return;
  }
  if (pool_ != nullptr) {
    Buffer larger = pool_->Acquire(capacity);
    if (size_ > 0) {
      std::memcpy(larger.data_, data_, size_);
    }
    larger.size_ = size_;
    *this = std::move(larger);
    return;
  }
  if (capacity > SIZE_MAX - kPadding) {
    throw std::bad_alloc();
  }
  auto* data = static_cast<uint8_t*>(std::realloc(data_, capacity + kPadding));
  if (data == nullptr) {
    throw std::bad_alloc();
  }
  data_ = data;
  capacity_ = capacity;
}

void Buffer::Resize(size_t size) {
  Reserve(size);
  size_ = size;
}

void Buffer::Append(const void* bytes, size_t size) {
  if (size == 0) {
    return;
  }
  std::memcpy(Prepare(size), bytes, size);
  size_ += size;
}

uint8_t* Buffer::Prepare(size_t size) {
  if (size > capacity_ - size_) {
    if (size > SIZE_MAX / 2 - size_) {
      throw std::bad_alloc();
    }
    const size_t doubled = capacity_ * 2;
    Reserve(doubled > size_ + size ? doubled : size_ + size);
  }
  return data_ + size_;
}

BufferPool::BufferPool(size_t bytes_limit) : bytes_limit_(bytes_limit) {}

BufferPool::~BufferPool() {
  for (auto& list : idle_) {
    for (uint8_t* data : list) {
      std::free(data);
    }
  }
}

// Class k holds 2^(k + kSmallestClassBits) bytes.
size_t BufferPool::ClassOf(size_t capacity) {
  if (capacity <= (size_t{1} << kSmallestClassBits)) {
    return 0;
  }
  return static_cast<size_t>(std::bit_width(capacity - 1) - kSmallestClassBits);
}

Buffer BufferPool::Acquire(size_t capacity) {
  const size_t size_class = ClassOf(capacity);
  Buffer buffer;
  buffer.pool_ = this;
  if (size_class >= kClasses) {  // beyond half a terabyte; malloc will say no
    buffer.data_ = Allocate(capacity);
    buffer.capacity_ = capacity;
    return buffer;
  }
  const size_t class_capacity = size_t{1} << (size_class + kSmallestClassBits);
  auto& list = idle_[size_class];
  if (list.empty()) {
    buffer.data_ = Allocate(class_capacity);
  } else {
    buffer.data_ = list.back();
    list.pop_back();
    idle_bytes_ -= class_capacity;
    least_idle_[size_class] = std::min(least_idle_[size_class], list.size());
  }
  buffer.capacity_ = class_capacity;
  return buffer;
}

void BufferPool::GiveBack(uint8_t* data, size_t capacity) {
  const size_t size_class = ClassOf(capacity);
  if (size_class >= kClasses || capacity > bytes_limit_ - idle_bytes_) {
    std::free(data);
    return;
  }
  idle_[size_class].push_back(data);
  idle_bytes_ += capacity;
}

size_t BufferPool::FreeUnused() {
  size_t freed = 0;
  for (size_t size_class = 0; size_class < kClasses; ++size_class) {
    auto& list = idle_[size_class];
    // The last ones in are the first ones out: the unused are at the front.
    const size_t unused = std::min(least_idle_[size_class], list.size());
    std::for_each(list.begin(), list.begin() + static_cast<ptrdiff_t>(unused), std::free);
    list.erase(list.begin(), list.begin() + static_cast<ptrdiff_t>(unused));
    freed += unused << (size_class + kSmallestClassBits);
    least_idle_[size_class] = list.size();
  }
  idle_bytes_ -= freed;
  return freed;
}

size_t OutgoingBody::TotalSize() const {
  size_t total = encoded.size();
  for (const Slice& slice : slices) {
    total += slice.size;
  }
  return total;
}

}  // namespace msserving
