// Memory that two processes share and that has no name: nothing to leak in /dev/shm, freed with its last process.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "base/unique_fd.h"

namespace msserving {

// A mapping of a memfd. Pages take memory only once touched. The size is sealed: no process can shrink it under
// another's feet. Move-only; unmaps on destruction.
class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  // `label` only shows up in /proc/PID/maps.
  static Status Create(const char* label, size_t bytes, SharedMemory* memory);
  // Maps what another process created. The descriptor must be sealed against shrinking.
  static Status Map(UniqueFd fd, SharedMemory* memory);

  uint8_t* base() const { return base_; }
  size_t size() const { return size_; }
  int fd() const { return fd_.get(); }
  // Gives the pages of [offset, offset + bytes) back to the system; they read as zero afterwards.
  void Discard(size_t offset, size_t bytes);

 private:
  uint8_t* base_ = nullptr;
  size_t size_ = 0;
  UniqueFd fd_;
};

}  // namespace msserving
