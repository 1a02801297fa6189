// Holds the test double's runs until the test lets them go on: order without sleeping.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "base/unique_fd.h"
#include "session/session.h"

namespace msserving::testing_support {

// Waits for what another thread is about to make true; gives up after a minute.
inline bool Eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class Gate {
 public:
  // For the session of the test double.
  SessionOptions Options() const {
    return {{"started_fd", std::to_string(started_.get())}, {"gate_fd", std::to_string(gate_.get())}};
  }

  // Waits until one more run has begun; it is held then.
  void AwaitRun() {
    pollfd event{started_.get(), POLLIN, 0};
    ASSERT_EQ(poll(&event, 1, 60'000), 1) << "no run began";
    uint64_t runs = 0;
    ASSERT_EQ(read(started_.get(), &runs, sizeof(runs)), static_cast<ssize_t>(sizeof(runs)));
  }

  // Lets `runs` of them pass, now or later.
  void Open(uint64_t runs = 1) {
    ASSERT_EQ(write(gate_.get(), &runs, sizeof(runs)), static_cast<ssize_t>(sizeof(runs)));
  }
  void OpenForGood() { Open(1 << 30); }

 private:
  UniqueFd started_{eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE)};
  UniqueFd gate_{eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE)};
};

}  // namespace msserving::testing_support
