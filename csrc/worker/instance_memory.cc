#include "worker/instance_memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

#include "tensor/exchange.h"

namespace msserving {

MemoryPool::~MemoryPool() {
  for (auto& list : free_) {
    for (uint8_t* data : list) {
      std::free(data);
    }
  }
}

size_t MemoryPool::ClassOf(size_t bytes) { return std::bit_width(std::max(bytes, kSmallest) - 1) - 12; }

MemoryPool::Block MemoryPool::Allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 4) {
    return {};
  }
  const size_t size_class = ClassOf(bytes);
  const size_t rounded = kSmallest << size_class;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto& list = free_[size_class];
    if (!list.empty()) {
      uint8_t* data = list.back();
      list.pop_back();
      kept_bytes_ -= rounded;
      return {data, rounded};
    }
  }
  return {static_cast<uint8_t*>(std::aligned_alloc(kTensorAlignment, rounded)), rounded};
}

void MemoryPool::Free(Block block) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (kept_bytes_ + block.bytes <= keep_bytes_) {
      kept_bytes_ += block.bytes;
      free_[ClassOf(block.bytes)].push_back(block.data);
      return;
    }
  }
  std::free(block.data);
}

uint8_t* InstanceMemory::Allocate(MemoryPool& pool, size_t bytes) {
  if (bytes > SIZE_MAX / 4) {
    return nullptr;
  }
  const size_t rounded = (bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  if (blocks_.empty() || rounded > blocks_.back().bytes - used_) {
    const MemoryPool::Block block = pool.Allocate(std::max<size_t>(rounded, MemoryPool::kSmallest));
    if (block.data == nullptr) {
      return nullptr;
    }
    blocks_.push_back(block);
    bytes_ += block.bytes;
    used_ = 0;
  }
  uint8_t* data = blocks_.back().data + used_;
  used_ += rounded;
  return data;
}

SharedRows* SharedRows::Create(MemoryPool& pool, size_t bytes, uint32_t users) {
  static_assert(sizeof(SharedRows) <= kHead && kHead % kTensorAlignment == 0);
  if (bytes > SIZE_MAX / 4) {
    return nullptr;
  }
  const MemoryPool::Block block = pool.Allocate(bytes + kHead);
  return block.data == nullptr ? nullptr : new (block.data) SharedRows(block.bytes, users);
}

void SharedRows::Drop(MemoryPool& pool) {
  if (users_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const MemoryPool::Block block{reinterpret_cast<uint8_t*>(this), bytes_};
    this->~SharedRows();
    pool.Free(block);
  }
}

void InstanceMemory::Share(SharedRows* rows) {
  shared_.push_back(rows);
  bytes_ += rows->share();
}

void InstanceMemory::Clear(MemoryPool& pool) {
  for (SharedRows* rows : shared_) {
    rows->Drop(pool);
  }
  shared_.clear();
  const bool keep = !blocks_.empty() && blocks_.front().bytes == MemoryPool::kSmallest;
  while (blocks_.size() > (keep ? 1 : 0)) {
    pool.Free(blocks_.back());
    blocks_.pop_back();
  }
  bytes_ = keep ? MemoryPool::kSmallest : 0;
  used_ = 0;
}

void InstanceMemory::Release(MemoryPool& pool) {
  Clear(pool);
  for (const MemoryPool::Block& block : blocks_) {
    pool.Free(block);
  }
  blocks_.clear();
  used_ = 0;
  bytes_ = 0;
}

bool InstanceMemory::Owns(const uint8_t* data) const {
  for (SharedRows* rows : shared_) {
    if (data >= rows->data() && data < rows->data() + rows->bytes()) {
      return true;
    }
  }
  return std::any_of(blocks_.begin(), blocks_.end(), [data](const MemoryPool::Block& block) {
    return data >= block.data && data < block.data + block.bytes;
  });
}

}  // namespace msserving
