#include "base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <utility>

namespace msserving {
namespace {

// For the calling thread, as long as this lives. Threads inherit it.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

std::thread StartThread(std::string name, std::function<void()> body) {
  const BlockedSignals blocked;
  return std::thread([name = std::move(name), body = std::move(body)] {
    pthread_setname_np(pthread_self(), name.c_str());
    body();
  });
}

}  // namespace msserving
