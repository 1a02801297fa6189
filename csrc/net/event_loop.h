// One thread, one epoll: sockets, timers, functions posted by other threads, and hooks around each wake-up.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "net/buffer.h"

namespace msserving {

// Where readiness of a descriptor is told. `events` are epoll's.
class IoHandler {
 public:
  virtual void OnIo(uint32_t events) = 0;

 protected:
  ~IoHandler() = default;
};

// Work that belongs to each wake-up rather than to a descriptor, e.g. rings in shared memory.
class LoopHook {
 public:
  // After the wake-up's sockets, posted functions and timers: do all work that is there, ring doorbells once.
  virtual void OnWake() = 0;
  // How much work is out whose end OnWake() will find: while there is some, the loop waits for that rather than for
  // clients.
  virtual uint64_t Expected() const = 0;
  // While the loop looks for work and does not block: rings what is due. True: work has arrived.
  virtual bool OnLook() = 0;
  // Before the loop blocks: arm the doorbells. False: work has arrived, do not block.
  virtual bool OnSleep() = 0;
  // After blocking: disarm.
  virtual void OnAwake() = 0;

 protected:
  ~LoopHook() = default;
};

// Something with output to write at the end of the wake-up (all frames of one wake-up leave in one send).
class Flushable {
 public:
  virtual void Flush() = 0;

 protected:
  ~Flushable() = default;
  bool scheduled() const { return scheduled_; }

 private:
  friend class EventLoop;
  bool scheduled_ = false;
};

using TimerId = uint64_t;  // 0 is none

// All methods on the loop's thread, except Post() and Stop(): any thread. Before Run() the thread that made the loop
// counts as its thread. A handler may remove itself or others from inside a callback.
class EventLoop {
 public:
  explicit EventLoop(const Clock& clock = RealClock());
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;

  void Add(int fd, uint32_t events, IoHandler* handler);
  void Modify(int fd, uint32_t events, IoHandler* handler);
  // Events already collected for this handler in the current wake-up are dropped.
  void Remove(int fd, IoHandler* handler);

  // Runs until Stop(). Functions posted before Stop() are still run.
  void Run();
  void Stop();
  void Post(std::function<void()> function);

  // Fires once, at or after `at_ns`. O(log n).
  TimerId AddTimer(int64_t at_ns, std::function<void()> function);
  void CancelTimer(TimerId id);

  // How long the loop may look for work before it blocks, where its waits have been short of late (SpinGate); 0, which
  // is the default: never. Before Run(). While it looks it gives its processor to whoever else wants it. With more than
  // kFewExpected it blocks: what comes meanwhile is done together, and that is what many clients gain most from.
  static constexpr uint64_t kFewExpected = 2;
  void SetSpin(int64_t limit_ns);

  void AddHook(LoopHook* hook);
  void RemoveHook(LoopHook* hook);

  // Calls flushable->Flush() once before the loop blocks again; asking twice is asking once. Unschedule before
  // destroying a scheduled object. Scheduled again from inside Flush(): called again before the loop blocks.
  void ScheduleFlush(Flushable* flushable);
  void UnscheduleFlush(Flushable* flushable);

  // Time read once per wake-up.
  int64_t now_ns() const { return now_ns_; }
  const Clock& clock() const { return clock_; }
  BufferPool& buffers() { return buffers_; }
  // A read buffer that all connections of the loop share (used only inside one callback).
  std::span<uint8_t> scratch() { return scratch_; }

 private:
  struct State;
  const Clock& clock_;
  int64_t now_ns_ = 0;
  BufferPool buffers_;
  std::vector<uint8_t> scratch_;
  std::unique_ptr<State> state_;
};

}  // namespace msserving
