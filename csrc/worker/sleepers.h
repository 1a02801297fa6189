// Where an executor's threads block, and how one of them is woken: the server's doorbell and an event of the worker's
// own, in one epoll that all of them share.
#pragma once

#include <sys/eventfd.h>

#include <cstdint>
#include <mutex>

#include "base/error.h"
#include "base/unique_fd.h"

namespace msserving {

// Open() comes once, without a lock, before Sleep() and beside nothing but WakeOne(), which does nothing while nobody
// sleeps. All the rest is called under one mutex of the owner's, which Sleep() gives up while it blocks.
// Bounds. A ring of the doorbell wakes one thread, and so does WakeOne(), which rings again only after some thread has
// come back: however often it is called, one wake-up of ours is under way. A ring before anybody blocks is not lost:
// the next Sleep() returns at once. So a Sleep() may return without cause, never miss one.
// Nothing is allocated, and no system call is made but to block and to ring.
class Sleepers {
 public:
  // `doorbell`: the eventfd that the server rings; kept until the end, and never read.
  Status Open(UniqueFd doorbell);

  // Blocks until somebody rings, for `limit_ns` at most; kNoDeadline: for as long as it takes. `lock` holds the
  // mutex, before and after.
  void Sleep(std::unique_lock<std::mutex>& lock, int64_t limit_ns);

  // Some thread blocks, or is on its way out of it.
  bool any() const { return sleeping_ > 0; }

  void WakeOne() {
    if (sleeping_ > 0 && !waking_) {
      waking_ = true;
      Ring();
    }
  }

  // Whatever has been rung before; nothing before Open(). For the end of the run, which each thread that it wakes
  // passes on to the next.
  void Ring() {
    if (wake_) {
      eventfd_write(wake_.get(), 1);
    }
  }

 private:
  UniqueFd doorbell_;
  UniqueFd wake_;
  UniqueFd epoll_;
  int sleeping_ = 0;
  bool waking_ = false;  // by WakeOne(), and nobody is back yet
};

}  // namespace msserving
