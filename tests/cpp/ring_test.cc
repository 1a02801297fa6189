#include "tensor/ring.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

namespace msserving {
namespace {

constexpr uint32_t kCapacity = 8;

class Ring : public testing::Test {
 protected:
  void SetUp() override {
    memory_.reset(std::aligned_alloc(64, (RingBytes(kCapacity) + 63) / 64 * 64));
    std::memset(memory_.get(), 0, RingBytes(kCapacity));
    producer_ = RingProducer(memory_.get(), kCapacity);
    consumer_ = RingConsumer(memory_.get(), kCapacity);
  }
  RingHeader* header() { return static_cast<RingHeader*>(memory_.get()); }

  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  RingProducer producer_;
  RingConsumer consumer_;
};

TEST_F(Ring, KeepsOrderAndRefusesWhenFull) {
  RingEntry entry{};
  EXPECT_FALSE(consumer_.Pop(&entry));
  for (uint64_t i = 0; i < kCapacity; ++i) {
    EXPECT_TRUE(producer_.Push({{i, 0, 0, 0}}));
  }
  EXPECT_FALSE(producer_.Push({{99, 0, 0, 0}}));
  for (uint64_t i = 0; i < kCapacity; ++i) {
    ASSERT_TRUE(consumer_.Pop(&entry));
    EXPECT_EQ(entry.words[0], i);
  }
  EXPECT_TRUE(consumer_.Empty());
  EXPECT_TRUE(producer_.Push({{7, 0, 0, 0}}));
}

TEST_F(Ring, DoorbellIsRungOnceForASleeper) {
  EXPECT_FALSE(producer_.ConsumerMustWake());
  consumer_.ArmDoorbell();
  EXPECT_TRUE(producer_.Push({}));
  EXPECT_TRUE(producer_.ConsumerMustWake());
  EXPECT_FALSE(producer_.ConsumerMustWake());
}

TEST_F(Ring, NonsenseFromTheOtherSideDoesNoHarm) {
  RingEntry entry{};
  header()->tail.store(1'000'000);
  EXPECT_FALSE(consumer_.Pop(&entry));
  EXPECT_TRUE(consumer_.broken());
  EXPECT_TRUE(consumer_.Empty());
  header()->head.store(UINT64_MAX - 3);
  for (uint32_t i = 0; i < 3 * kCapacity; ++i) {
    (void)producer_.Push({});
  }
}

TEST_F(Ring, NothingIsLostBetweenTwoThreads) {
  constexpr uint64_t kCount = 300'000;
  std::atomic<int> rings{0};
  std::thread producing([&] {
    for (uint64_t i = 0; i < kCount;) {
      if (producer_.Push({{i, i * 3, 0, 0}})) {
        ++i;
      } else {
        std::this_thread::yield();
      }
      if (producer_.ConsumerMustWake()) {
        rings.fetch_add(1);
      }
    }
  });
  RingEntry entry{};
  for (uint64_t expected = 0; expected < kCount;) {
    if (consumer_.Pop(&entry)) {
      ASSERT_EQ(entry.words[0], expected);
      ASSERT_EQ(entry.words[1], expected * 3);
      ++expected;
      continue;
    }
    // Sleeping without a ring on the bell while something is in the ring would hang here.
    consumer_.ArmDoorbell();
    if (!consumer_.Empty()) {
      consumer_.DisarmDoorbell();
      continue;
    }
    while (rings.load() == 0) {
      std::this_thread::yield();
    }
    rings.store(0);
  }
  producing.join();
}

}  // namespace
}  // namespace msserving
