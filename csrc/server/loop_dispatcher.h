// The router of one event loop: finds the method, writes the request into shared memory, gives it to the least busy
// worker, collects the reply's segments, and hands requests of a dead worker to another one.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/byte_budget.h"
#include "base/unique_fd.h"
#include "net/event_loop.h"
#include "servable/dispatcher.h"
#include "servable/health.h"
#include "server/suspect_list.h"
#include "server/worker_link.h"
#include "tensor/slab.h"

namespace msserving {

// Limits that all loops of a server share. Any thread.
struct DispatchLimits {
  static constexpr uint64_t kMaxBytesInFlight = uint64_t{4} << 30;

  // Requests whose clients wait for an answer. A cancelled one, whose worker has still to give its block back, is none:
  // it holds its bytes in flight and its place in the worker's ring.
  std::atomic<uint64_t> max_pending_requests{10'000};
  std::atomic<uint64_t> pending_requests{0};
  SuspectList suspects;
  // A request that would wait longer than this for its worker is refused; 0: no limit.
  std::atomic<int64_t> max_queue_ns{0};
  // Messages and whole replies in the front-end until they are sent, and requests' tensors in shared memory until they
  // are answered.
  ByteBudget bytes_in_flight{kMaxBytesInFlight};
};

// Whether a servable version takes requests. All loops look at one object, so that a version is there, or gone, for all
// of them at once. Written by the supervisor: before a gate closes for good, every loop has returned to its event loop
// once since another version's gate was opened, or a request for "newest" could find neither open.
using VersionGate = std::atomic<bool>;

// Counts of one loop; read by any thread, written by the loop's.
struct DispatchStats {
  std::atomic<uint64_t> accepted{0};
  std::atomic<uint64_t> answered{0};
  std::atomic<uint64_t> cancelled{0};
  std::atomic<uint64_t> refused{0};       // over a limit, or no worker
  std::atomic<uint64_t> redispatched{0};  // given to another worker after a death
  std::atomic<uint64_t> lost_worker{0};   // answered with kWorkerUnavailable
};

// Pages that large tensors took go back to the system once a servable has been idle for kIdleNs.
// A request is refused at once, before its tensors are looked at where that can be, when too many are pending, when it
// would wait too long, or when its deadline would pass in the queue: work on answers that come too late is what turns
// an overload into an outage.
// All methods on the loop's thread. Hot paths take no lock, allocate nothing after warm-up and make no system call
// but one doorbell per wake-up and sleeping worker.
class LoopDispatcher final : public Dispatcher, private LoopHook, private IoHandler {
 public:
  static constexpr int64_t kIdleNs = 10 * kNanosPerSecond;
  // long_queue(): ten times as long as a connection's input is gathered.
  static constexpr int64_t kLongQueueNs = 100 * kNanosPerMilli;

  // `doorbell` is the eventfd that workers ring for this loop.
  LoopDispatcher(EventLoop* loop, UniqueFd doorbell, std::shared_ptr<DispatchLimits> limits);
  ~LoopDispatcher() override;

  Status Full() override;
  Status Find(std::string_view servable, uint64_t version, std::string_view method, int64_t deadline_ns,
              MethodTarget* target) override;
  Status Submit(const MethodTarget& target, const RequestInstances& instances, int64_t deadline_ns, ReplySink* sink,
                RequestTicket* ticket) override;
  bool long_queue() const override { return long_queue_; }
  void Cancel(RequestTicket ticket) override;

  // Known are the servable versions that have or had a worker; version 0 is any.
  ServableHealth Health(std::string_view servable, uint64_t version) const;

  // A servable version exists from its first worker on, and is found while its gate is open (null: always). `requests`
  // is the memory that all its workers have mapped; both are taken the first time and ignored later.
  // The worker takes requests from JoinWorker() on.
  // Extra workers get the methods that have Python stages, and none with model stages while no device worker is there.
  void AddWorker(const ServableSignature& signature, std::shared_ptr<SharedMemory> requests,
                 std::shared_ptr<WorkerLink> link, std::shared_ptr<const VersionGate> gate = nullptr);
  // Before JoinWorker(): sends a probe (tensor/exchange.h) through the worker's channel. `answered` is called once, on
  // this thread, when it is back, with the error if it came back with one; never if the worker is removed first.
  void ProbeWorker(uint64_t worker, std::function<void(const Status&)> answered);
  void JoinWorker(uint64_t worker);
  // The worker is gone: what it has answered is delivered, the rest is given to another worker of the version. A
  // request of which it was running an instance is moved so once only, that instance runs alone there, and after
  // SuspectOptions::max_deaths deaths it runs nowhere. What cannot be moved is answered with kWorkerUnavailable and
  // `reason`; a request whose block was overwritten goes to no worker and is answered with kInternal.
  void RemoveWorker(uint64_t worker, const std::string& reason);
  // The worker will be ended. If `running` (InstanceMark::running) is not 0, because what is being run so takes too
  // long: those instances are answered with kTimedOut, at once if all others of their request are answered. It gets no
  // more requests; RemoveWorker() follows.
  void GiveUp(uint64_t worker, uint8_t running);

  // To be called after the version's gate was closed. `drained` is called once, on this thread, when this loop has no
  // request with the version: at once if there is none, or no such version.
  void WhenDrained(std::string_view servable, uint64_t version, std::function<void()> drained);
  // Forgets a version whose workers have been removed. A request that is left gets kWorkerUnavailable.
  void DropVersion(std::string_view servable, uint64_t version);

  const DispatchStats& stats() const { return stats_; }
  // With cancelled ones whose blocks are not back.
  uint64_t pending() const { return pending_count_; }

 private:
  struct Route;
  struct Pending;
  class Blocks;
  struct Newcomer;

  void OnIo(uint32_t events) override;
  void OnWake() override;
  uint64_t Expected() const override;
  bool OnLook() override;
  bool OnSleep() override;
  void OnAwake() override;

  Route* FindRoute(std::string_view servable, uint64_t version);
  Pending* FindPending(uint64_t request);
  Pending* NewPending();
  void StopCounting(Pending* pending);
  void FreePending(Pending* pending);
  bool TooManyPending() const;
  Status TooMany() const;
  Status Admit(const WorkerLink* link, int64_t deadline_ns);
  WorkerLink* LeastBusy(Route* route, uint32_t method, const WorkerLink* except);
  void Poll(WorkerLink* link);
  void OnSegment(WorkerLink* link, const WorkerLink::Segment& segment);
  void Deliver(Pending* pending, const Status& missing);
  std::unique_ptr<Blocks> TakeBlocks();
  void FailAll(Pending* pending, ErrorKind kind, const std::string& message);
  void DropSegments(Pending* pending);
  void FinishWithoutReply(Pending* pending);
  void GiveBackIdleMemory();
  // loop_dispatcher_newcomers.cc
  Newcomer* FindNewcomer(uint64_t worker);
  void SendProbe(Newcomer* newcomer);
  void EndProbe(WorkerLink* link, const WorkerLink::Segment& segment);
  void ForgetNewcomer(const WorkerLink* link);
  // loop_dispatcher_deaths.cc
  Status FindSuspects(const Route& route, const MethodTarget& target, const RequestInstances& instances,
                      std::vector<Suspicion>* suspects);
  void OrderSuspects(Pending* pending);
  void ClearSuspects(const Pending& pending);
  void Accuse(Pending* pending, uint32_t instance, uint64_t worker);
  void AccuseLost(Pending* pending, const ReplyRecord& record, uint32_t first, uint32_t count);
  static bool IsIntact(const Pending& pending);
  void Retry(Pending* pending, bool was_running, const std::string& reason);

  EventLoop* loop_;
  UniqueFd doorbell_;
  std::shared_ptr<DispatchLimits> limits_;
  ByteShare bytes_;  // all of them: connections have their shares in the front-end
  DispatchStats stats_;
  std::vector<std::unique_ptr<Route>> routes_;
  std::vector<std::shared_ptr<WorkerLink>> links_;
  std::vector<Newcomer> newcomers_;
  std::deque<Pending> slots_;  // stable addresses
  std::vector<uint32_t> free_slots_;
  uint64_t pending_count_ = 0;
  bool long_queue_ = false;  // of the last refusal
  TimerId idle_timer_ = 0;
  std::vector<InstanceResult> results_;  // scratch of Deliver()
  std::vector<TensorView> views_;        // scratch of Deliver()
  std::vector<std::unique_ptr<Blocks>> idle_blocks_;
};

}  // namespace msserving
