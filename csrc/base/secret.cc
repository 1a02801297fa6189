#include "base/secret.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/log.h"

namespace msserving {

Status Secret::Create(std::span<const uint8_t> bytes, std::shared_ptr<Secret>* secret) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t mapped = (bytes.size() + page) / page * page;
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Status(ErrorKind::kInternal, std::string("no memory for a key: ") + strerror(errno));
  }
  if (mlock(memory, mapped) != 0) {
    MSSERVING_LOG(kWarning,
                  "the memory of a key cannot be locked and may be swapped out; cause=\"" << strerror(errno) << "\"");
  }
  if (madvise(memory, mapped, MADV_DONTDUMP) != 0 || madvise(memory, mapped, MADV_WIPEONFORK) != 0) {
    const int why = errno;
    munmap(memory, mapped);
    return Status(ErrorKind::kInternal, std::string("the memory of a key cannot be protected: ") + strerror(why));
  }
  memcpy(memory, bytes.data(), bytes.size());
  secret->reset(new Secret(static_cast<uint8_t*>(memory), mapped, bytes.size()));
  return Status::Ok();
}

Secret::~Secret() {
  Wipe(memory_, mapped_);
  munmap(memory_, mapped_);
}

void Wipe(void* memory, size_t bytes) { explicit_bzero(memory, bytes); }

}  // namespace msserving
