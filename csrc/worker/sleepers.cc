#include "worker/sleepers.h"

#include <sys/epoll.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/clock.h"

namespace msserving {
namespace {

Status SystemError(const char* what) {
  return Status(ErrorKind::kInternal, std::string(what) + ": " + std::strerror(errno));
}

void WaitForEvent(int epoll, int64_t limit_ns) {
  epoll_event events[4];
  if (limit_ns == kNoDeadline) {
    epoll_wait(epoll, events, 4, -1);
    return;
  }
  const timespec timeout{limit_ns / kNanosPerSecond, limit_ns % kNanosPerSecond};
  if (epoll_pwait2(epoll, events, 4, &timeout, nullptr) < 0 && errno == ENOSYS) {
    epoll_wait(epoll, events, 4, static_cast<int>((limit_ns + kNanosPerMilli - 1) / kNanosPerMilli));
  }
}

}  // namespace

Status Sleepers::Open(UniqueFd doorbell) {
  doorbell_ = std::move(doorbell);
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!wake_ || !epoll_) {
    return SystemError("cannot make the worker's events");
  }
  // Edge-triggered: each ring wakes one thread, and nobody has to read the counters.
  for (const int fd : {doorbell_.get(), wake_.get()}) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return SystemError("cannot watch the worker's doorbell");
    }
  }
  return Status::Ok();
}

void Sleepers::Sleep(std::unique_lock<std::mutex>& lock, int64_t limit_ns) {
  ++sleeping_;
  lock.unlock();
  WaitForEvent(epoll_.get(), limit_ns);
  lock.lock();
  --sleeping_;
  waking_ = false;
}

}  // namespace msserving
