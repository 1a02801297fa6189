#include "worker/sleepers.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "support/gate.h"

namespace msserving {
namespace {

using testing_support::Eventually;

struct Owner {
  Owner() {
    UniqueFd own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    doorbell = UniqueFd(dup(own.get()));
    const Status status = sleepers.Open(std::move(own));
    EXPECT_TRUE(status.ok()) << status.message();
  }
  void Sleep(int64_t limit_ns) {
    std::unique_lock<std::mutex> lock(mutex);
    sleepers.Sleep(lock, limit_ns);
    EXPECT_TRUE(lock.owns_lock());
    ++back;
  }
  int Back() {
    std::lock_guard<std::mutex> lock(mutex);
    return back;
  }

  std::mutex mutex;
  Sleepers sleepers;
  UniqueFd doorbell;
  int back = 0;
};

TEST(SleepersTest, WithoutOpenNobodyIsWoken) {
  Sleepers sleepers;
  sleepers.WakeOne();
  sleepers.Ring();
  EXPECT_FALSE(sleepers.any());
}

TEST(SleepersTest, SleepEndsByItselfAtItsLimit) {
  Owner owner;
  const int64_t begin_ns = RealClock().NowNs();
  owner.Sleep(2 * kNanosPerMilli);
  EXPECT_GE(RealClock().NowNs() - begin_ns, 2 * kNanosPerMilli);
  EXPECT_FALSE(owner.sleepers.any());
}

TEST(SleepersTest, ARingBeforeTheSleepIsNotLost) {
  Owner owner;
  ASSERT_EQ(eventfd_write(owner.doorbell.get(), 1), 0);
  owner.Sleep(kNoDeadline);
  owner.sleepers.Ring();
  owner.Sleep(kNoDeadline);
  EXPECT_EQ(owner.back, 2);
}

TEST(SleepersTest, WakeOneRingsOnlyWhereSomebodySleeps) {
  Owner owner;
  owner.sleepers.WakeOne();
  const int64_t begin_ns = RealClock().NowNs();
  owner.Sleep(2 * kNanosPerMilli);  // would return at once otherwise
  EXPECT_GE(RealClock().NowNs() - begin_ns, 2 * kNanosPerMilli);
}

TEST(SleepersTest, EveryWakeUpBringsOneThreadBack) {
  Owner owner;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&owner] { owner.Sleep(kNoDeadline); });
  }
  for (int want = 1; want <= 3; ++want) {
    // Whether the threads sleep already or come to it, none of the three wake-ups is lost.
    EXPECT_TRUE(Eventually([&owner, want] {
      std::lock_guard<std::mutex> lock(owner.mutex);
      owner.sleepers.WakeOne();
      return owner.sleepers.any() || owner.back >= want;
    }));
    EXPECT_TRUE(Eventually([&owner, want] { return owner.Back() >= want; }));
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(owner.Back(), 3);
}

}  // namespace
}  // namespace msserving
