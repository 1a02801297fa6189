#include "session/libraries/mindspore/weight_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace msserving::mindspore_session {

std::shared_ptr<void> AllocateWeights(size_t bytes) {
  constexpr size_t kLine = 64;
  constexpr size_t kHugePage = 2 << 20;
  const bool huge = bytes >= 2 * kHugePage;  // of less, too much would be lost by rounding
  const size_t alignment = huge ? kHugePage : kLine;
  const size_t rounded = std::max<size_t>((bytes + alignment - 1) / alignment, 1) * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  if (huge) madvise(memory, rounded, MADV_HUGEPAGE);  // a wish: without it the memory does as well
  return std::shared_ptr<void>(memory, std::free);
}

}  // namespace msserving::mindspore_session
