// Memory that is written once and read in every run. Knows nothing of MindSpore.
#pragma once

#include <cstddef>
#include <memory>

namespace msserving::mindspore_session {

// Starts at a multiple of 64 bytes and is not initialized. Blocks of several megabytes lie in huge pages where the
// system gives such: the processor fetches ahead within a page alone. Throws std::bad_alloc.
std::shared_ptr<void> AllocateWeights(size_t bytes);

}  // namespace msserving::mindspore_session
