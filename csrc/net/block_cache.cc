#include "net/block_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace msserving {

BlockCache::~BlockCache() {
  for (Header* list : idle_) {
    while (list != nullptr) {
      std::free(std::exchange(list, list->next));
    }
  }
}

void* BlockCache::Allocate(size_t size) {
  if (size > SIZE_MAX - sizeof(Header) - kStep) {
    return nullptr;
  }
  const size_t rounded = size > kLargest ? size : (size + kStep - 1) / kStep * kStep;
  if (rounded <= kLargest) {
    if (Header*& list = idle_[rounded / kStep]; list != nullptr) {
      Header* header = std::exchange(list, list->next);
      idle_bytes_ -= rounded;
      return header + 1;
    }
  }
  auto* header = static_cast<Header*>(std::malloc(sizeof(Header) + rounded));
  if (header == nullptr) {
    return nullptr;
  }
  header->size = rounded;
  return header + 1;
}

void BlockCache::Free(void* block) {
  if (block == nullptr) {
    return;
  }
  Header* header = static_cast<Header*>(block) - 1;
  const size_t size = header->size;
  if (size > kLargest || idle_bytes_ + size > bytes_limit_) {
    std::free(header);
    return;
  }
  header->next = std::exchange(idle_[size / kStep], header);
  idle_bytes_ += size;
}

void* BlockCache::Reallocate(void* block, size_t size) {
  if (block == nullptr) {
    return Allocate(size);
  }
  const size_t old_size = (static_cast<Header*>(block) - 1)->size;
  if (size <= old_size && size > 0) {
    return block;
  }
  void* larger = Allocate(size);
  if (larger != nullptr) {
    std::memcpy(larger, block, std::min(old_size, size));
    Free(block);
  }
  return larger;
}

}  // namespace msserving
