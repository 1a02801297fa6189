#include "tensor/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace msserving {
namespace {

Status Failed(const char* what) {
  return Status(ErrorKind::kInternal, std::string("shared memory: ") + what + ": " + std::strerror(errno));
}

}  // namespace

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), size_(std::exchange(other.size_, 0)), fd_(std::move(other.fd_)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  std::swap(fd_, other.fd_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (base_ != nullptr) {
    munmap(base_, size_);
  }
}

Status SharedMemory::Create(const char* label, size_t bytes, SharedMemory* memory) {
  UniqueFd fd(memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) {
    return Failed("memfd_create");
  }
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return Failed("ftruncate");
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return Failed("sealing");
  }
  return Map(std::move(fd), memory);
}

Status SharedMemory::Map(UniqueFd fd, SharedMemory* memory) {
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return Status(ErrorKind::kInternal, "shared memory: the descriptor is not sealed against shrinking");
  }
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    return Failed("fstat");
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (base == MAP_FAILED) {
    return Failed("mmap");
  }
  // A core dump or a forked child has no business with clients' tensors.
  madvise(base, size, MADV_DONTDUMP);
  SharedMemory made;
  made.base_ = static_cast<uint8_t*>(base);
  made.size_ = size;
  made.fd_ = std::move(fd);
  *memory = std::move(made);
  return Status::Ok();
}

void SharedMemory::Discard(size_t offset, size_t bytes) {
  // Advisory: on failure the pages simply stay.
  (void)fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(bytes));
}

}  // namespace msserving
