// A few bytes that must not leave this process by accident: a model's decryption key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/error.h"

namespace msserving {

// Lives in pages of its own that are locked (never swapped out), left out of core dumps and not given to forked
// children, and is wiped on destruction. Constant after it was made: any thread may read it.
class Secret {
 public:
  // The caller wipes what it copied from. Errors say what the system refused; a refused lock is only warned of, since
  // limits on locked memory are small.
  static Status Create(std::span<const uint8_t> bytes, std::shared_ptr<Secret>* secret);
  ~Secret();
  Secret(const Secret&) = delete;

  std::span<const uint8_t> bytes() const { return {memory_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(memory_), size_}; }

 private:
  Secret(uint8_t* memory, size_t mapped, size_t size) : memory_(memory), mapped_(mapped), size_(size) {}

  uint8_t* const memory_;
  const size_t mapped_;
  const size_t size_;
};

// Overwrites memory that is about to be given up, in a way that no compiler leaves out.
void Wipe(void* memory, size_t bytes);

}  // namespace msserving
