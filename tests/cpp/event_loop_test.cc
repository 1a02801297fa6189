#include "net/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <string>
#include <thread>

#include "net/timer_heap.h"

namespace msserving {
namespace {

// Lets the loop make one more wake-up, then stops it.
void RunOnce(EventLoop* loop) {
  loop->Post([loop] { loop->Stop(); });
  loop->Run();
}

struct Handler final : IoHandler {
  void OnIo(uint32_t got) override {
    events |= got;
    ++calls;
    if (then) {
      then();
    }
  }
  uint32_t events = 0;
  int calls = 0;
  std::function<void()> then;
};

UniqueFd ReadyEvent() { return UniqueFd(eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)); }

TEST(EventLoopTest, TimersFireInOrderOfTheirTimesAndNotEarly) {
  FakeClock clock;
  EventLoop loop(clock);
  std::string order;
  const int64_t start_ns = clock.NowNs();
  loop.AddTimer(start_ns + 30, [&] { order += 'c'; });
  loop.AddTimer(start_ns + 10, [&] { order += 'a'; });
  loop.AddTimer(start_ns + 20, [&] { order += 'b'; });
  loop.AddTimer(start_ns + 20, [&] { order += 'B'; });
  RunOnce(&loop);
  EXPECT_EQ(order, "");
  clock.Advance(19);
  RunOnce(&loop);
  EXPECT_EQ(order, "a");
  clock.Advance(11);
  RunOnce(&loop);
  EXPECT_EQ(order, "abBc");
}

TEST(EventLoopTest, CancelledTimerDoesNotFireAndItsIdIsNotSomeoneElses) {
  FakeClock clock;
  EventLoop loop(clock);
  int fired = 0;
  const TimerId first = loop.AddTimer(clock.NowNs() + 5, [&] { fired += 1; });
  loop.CancelTimer(first);
  const TimerId second = loop.AddTimer(clock.NowNs() + 5, [&] { fired += 10; });
  EXPECT_NE(first, 0u);
  EXPECT_NE(first, second);
  loop.CancelTimer(first);  // once more, now that its slot is used again
  loop.CancelTimer(0);
  clock.Advance(5);
  RunOnce(&loop);
  EXPECT_EQ(fired, 10);
}

TEST(EventLoopTest, TimerAddedByATimerWaitsForTheNextWakeUp) {
  FakeClock clock;
  EventLoop loop(clock);
  int rounds = 0;
  std::function<void()> again = [&] {
    ++rounds;
    loop.AddTimer(0, again);
  };
  loop.AddTimer(0, again);
  bool other = false;
  loop.AddTimer(0, [&] { other = true; });
  RunOnce(&loop);
  EXPECT_EQ(rounds, 1);
  EXPECT_TRUE(other);
  RunOnce(&loop);
  EXPECT_EQ(rounds, 2);
}

TEST(TimerHeapTest, AgreesWithASortedListOnRandomOperations) {
  std::mt19937 random(1);
  TimerHeap heap;
  std::multimap<std::pair<int64_t, int>, uint64_t> expected;
  std::vector<int> fired;
  int next = 0;
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 3 != 0 || expected.empty()) {
      const int64_t at_ns = static_cast<int64_t>(random() % 1000);
      const int value = next++;
      expected.emplace(std::pair(at_ns, value), heap.Add(at_ns, [&fired, value] { fired.push_back(value); }));
    } else {
      auto victim = expected.begin();
      std::advance(victim, static_cast<ptrdiff_t>(random() % expected.size()));
      heap.Cancel(victim->second);
      expected.erase(victim);
    }
  }
  ASSERT_FALSE(expected.empty());
  EXPECT_EQ(heap.next_ns(), expected.begin()->first.first);
  heap.BeginRound();
  while (auto function = heap.PopDue(2000)) {
    function();
  }
  std::vector<int> order;
  for (const auto& entry : expected) {
    order.push_back(entry.first.second);
  }
  EXPECT_EQ(fired, order);
}

TEST(EventLoopTest, RealClockWakesForATimer) {
  EventLoop loop;
  const int64_t start_ns = RealClock().NowNs();
  loop.AddTimer(start_ns + 20 * kNanosPerMilli, [&] { loop.Stop(); });
  const TimerId earlier = loop.AddTimer(start_ns + 5 * kNanosPerMilli, [] { FAIL() << "cancelled"; });
  loop.CancelTimer(earlier);
  loop.Run();
  EXPECT_GE(RealClock().NowNs() - start_ns, 20 * kNanosPerMilli);
  EXPECT_LT(RealClock().NowNs() - start_ns, 5 * kNanosPerSecond);
}

TEST(EventLoopTest, RemovedHandlerGetsNothingThatWasAlreadyCollected) {
  EventLoop loop;
  UniqueFd one = ReadyEvent();
  UniqueFd two = ReadyEvent();
  Handler first;
  Handler second;
  first.then = [&] {
    loop.Remove(two.get(), &second);
    loop.Remove(one.get(), &first);
  };
  second.then = [&] {
    loop.Remove(two.get(), &second);
    loop.Remove(one.get(), &first);
  };
  loop.Add(one.get(), EPOLLIN, &first);
  loop.Add(two.get(), EPOLLIN, &second);
  RunOnce(&loop);
  EXPECT_EQ(first.calls + second.calls, 1);
}

TEST(EventLoopTest, ModifyChangesWhatIsTold) {
  EventLoop loop;
  UniqueFd fd = ReadyEvent();
  Handler handler;
  loop.Add(fd.get(), 0, &handler);
  RunOnce(&loop);
  EXPECT_EQ(handler.calls, 0);
  loop.Modify(fd.get(), EPOLLOUT, &handler);
  RunOnce(&loop);
  EXPECT_EQ(handler.events, static_cast<uint32_t>(EPOLLOUT));
}

TEST(EventLoopTest, PostsFromManyThreadsAllRun) {
  EventLoop loop;
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  int run = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < kEach; ++k) {
        loop.Post([&] {
          if (++run == kThreads * kEach) {
            loop.Stop();
          }
        });
      }
    });
  }
  loop.Run();
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(run, kThreads * kEach);
}

TEST(EventLoopTest, FunctionsPostedBeforeStopAreRun) {
  EventLoop loop;
  bool run = false;
  loop.Post([&] {
    loop.Post([&] { run = true; });
    loop.Stop();
  });
  loop.Run();
  EXPECT_TRUE(run);
}

struct Flusher final : Flushable {
  void Flush() override {
    ++flushes;
    if (again > 0) {
      --again;
      loop->ScheduleFlush(this);
    }
  }
  EventLoop* loop = nullptr;
  int flushes = 0;
  int again = 0;
};

TEST(EventLoopTest, FlushComesOnceForAnyNumberOfSchedules) {
  EventLoop loop;
  Flusher flusher;
  flusher.loop = &loop;
  for (int i = 0; i < 10; ++i) {
    loop.ScheduleFlush(&flusher);
  }
  RunOnce(&loop);
  EXPECT_EQ(flusher.flushes, 1);
  flusher.again = 3;
  loop.ScheduleFlush(&flusher);
  RunOnce(&loop);
  EXPECT_EQ(flusher.flushes, 5);
}

TEST(EventLoopTest, UnscheduledFlushDoesNotCome) {
  EventLoop loop;
  Flusher flusher;
  flusher.loop = &loop;
  loop.ScheduleFlush(&flusher);
  loop.UnscheduleFlush(&flusher);
  RunOnce(&loop);
  EXPECT_EQ(flusher.flushes, 0);
}

struct Hook final : LoopHook {
  void OnWake() override {
    calls += 'w';
    if (stop_after_wake != nullptr && looks_until_work < 0) {
      stop_after_wake->Stop();
    }
  }
  bool OnSleep() override {
    calls += 's';
    return --busy < 0;
  }
  void OnAwake() override { calls += 'a'; }
  uint64_t Expected() const override { return expected; }
  bool OnLook() override {
    calls += 'l';
    return always_finds || looks_until_work-- == 0;
  }
  std::string calls;
  bool always_finds = false;
  int busy = 0;
  uint64_t expected = 0;
  int looks_until_work = -1;  // never
  EventLoop* stop_after_wake = nullptr;
};

TEST(EventLoopTest, HookIsArmedBeforeBlockingAndCanForbidIt) {
  EventLoop loop;
  Hook hook;
  hook.busy = 2;  // two wake-ups without anything else to do; blocking would hang the test
  loop.AddHook(&hook);
  loop.AddTimer(RealClock().NowNs() + 20 * kNanosPerMilli, [&] { loop.Stop(); });
  loop.Run();
  EXPECT_EQ(hook.calls.substr(0, 9), "sawsawsaw");
  loop.RemoveHook(&hook);
  hook.calls.clear();
  RunOnce(&loop);
  EXPECT_EQ(hook.calls, "");
}

// Goes on by itself, as no test may wait for the real one: a microsecond each time it is read.
class TickingClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_ += kNanosPerMicro; }

 private:
  mutable int64_t now_ns_ = kNanosPerSecond;
};

// A loop that has learnt that work comes quickly: the hook has some at every second look.
struct QuickLoop {
  explicit QuickLoop(int64_t spin_ns) {
    loop.SetSpin(spin_ns);
    loop.AddHook(&hook);
  }
  ~QuickLoop() { loop.RemoveHook(&hook); }
  // So many wake-ups, none of which blocks for long. The bell of its end is found by the first look of the next run.
  void Run(int wake_ups) {
    UniqueFd event = ReadyEvent();
    Handler handler;
    handler.then = [&] {
      if (handler.calls == wake_ups) {
        loop.Stop();
      }
    };
    loop.Add(event.get(), EPOLLIN, &handler);
    loop.Run();
    loop.Remove(event.get(), &handler);
  }
  TickingClock clock;
  EventLoop loop{clock};
  Hook hook;
};

TEST(EventLoopTest, ALoopThatMayNotSpinNeverLooks) {
  QuickLoop quick(0);
  quick.Run(100);
  EXPECT_EQ(quick.hook.calls.find('l'), std::string::npos);
}

TEST(EventLoopTest, WhereWorkComesQuicklyItIsFoundByLookingAndNoDoorbellIsArmed) {
  QuickLoop quick(50 * kNanosPerMicro);
  quick.Run(20);
  quick.hook.calls.clear();
  quick.Run(20);
  EXPECT_EQ(quick.hook.calls.find('s'), std::string::npos);
  EXPECT_EQ(quick.hook.calls.substr(0, 6), "lwlwlw");
}

TEST(EventLoopTest, AHooksWorkIsFoundByLooking) {
  QuickLoop quick(50 * kNanosPerMicro);
  quick.Run(20);
  quick.hook.calls.clear();
  quick.hook.looks_until_work = 3;
  quick.loop.AddTimer(quick.clock.NowNs() + kNanosPerSecond, [] {});
  quick.hook.stop_after_wake = &quick.loop;
  quick.loop.Run();
  EXPECT_EQ(quick.hook.calls, "lwlllw");
}

TEST(EventLoopTest, WorkThatIsThereIsDoneWithoutAskingEpoll_ButSocketsWaitForOneWakeUpAtMost) {
  QuickLoop quick(50 * kNanosPerMicro);
  quick.Run(20);
  quick.hook.calls.clear();
  quick.hook.always_finds = true;
  quick.Run(5);  // of a socket that is always ready
  EXPECT_EQ(quick.hook.calls, "lwlwlwlwlwlwlwlwlwlw");
}

TEST(EventLoopTest, LookingEndsWithTheLimitAndThenTheLoopBlocks) {
  QuickLoop quick(50 * kNanosPerMicro);
  quick.Run(20);
  quick.hook.calls.clear();
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    quick.loop.Stop();
  });
  quick.loop.Run();
  stopper.join();
  ASSERT_EQ(quick.hook.calls.substr(0, 2), "lw");
  const size_t looks = quick.hook.calls.find('s') - 2;
  EXPECT_EQ(quick.hook.calls.substr(2, looks), std::string(looks, 'l'));
  EXPECT_GE(looks, 10u);
  EXPECT_LE(looks, 51u);
}

TEST(EventLoopTest, PostedFunctionsAreFoundByLooking) {
  QuickLoop quick(kNanosPerSecond);  // a look of up to a million rounds
  quick.Run(20);
  std::thread poster([&] {
    for (int i = 0; i < 1000; ++i) {
      std::atomic<bool> done{false};
      quick.loop.Post([&] { done = true; });
      while (!done) {
        std::this_thread::yield();
      }
    }
    quick.loop.Stop();
  });
  quick.loop.Run();
  poster.join();
}

TEST(EventLoopTest, WhileMuchIsExpectedTheLoopBlocks) {
  QuickLoop quick(50 * kNanosPerMicro);
  quick.Run(20);
  quick.hook.expected = EventLoop::kFewExpected + 1;
  quick.hook.calls.clear();
  quick.Run(20);
  EXPECT_EQ(quick.hook.calls.find('l'), std::string::npos);
}

// What is expected and what clients send are learnt apart: quick answers do not make the loop look for slow clients.
TEST(EventLoopTest, WaitsForExpectedWorkAreLearntApart) {
  QuickLoop quick(50 * kNanosPerMicro);
  quick.hook.expected = 1;
  quick.Run(20);
  quick.hook.expected = 0;
  quick.hook.calls.clear();
  quick.Run(1);
  EXPECT_EQ(quick.hook.calls.find('l'), std::string::npos);
}

}  // namespace
}  // namespace msserving
