// Takes requests from the channels, leads their instances through the stages of their methods in batches, and answers.
//
// Threads. Run() starts one thread, or two if the worker has both Python and model stages, and more if stages are to
// run several times at once; its own thread waits for the end and watches the control socket, so that a server's death
// is noticed whatever the stages are doing. Python and the device are *lanes*: tokens, one of each unless stages
// (Stage::concurrency) or the model (Model::lines(), the device's tokens are numbered by them) say otherwise, and held
// by one thread each. A thread takes what is runnable (a
// free lane and a queue that is ready, the device first), runs it to its end including the replies, and looks again; so
// with one request in flight one thread does everything and nobody is woken, and under load Python of one batch runs
// beside the device. Threads that find nothing block in one shared epoll, where every event wakes one of them. The
// rings' doorbells are armed only while a thread blocks and a lane is free for what could arrive. Where requests have
// come quickly of late, one thread looks for them for a moment before it blocks (ExecutorOptions::spin_ns).
//
// Calls. User code may call a method in turn (Call()). Its instances go through the models' ordinary queues, so they
// share batches with everything else; its Python stages run on the calling thread, which has the Python lane already
// (or is a thread of the user's own, and then needs none). While the caller waits, it takes the device itself whenever
// that is free, so a call depends on no other thread but the one that has the device.
//
// Extra workers. An executor may run Python stages alone and hand the rows of its model stages to device workers of the
// same servable version (ForwardModels()), each through a channel like the server's in which it plays the server
// (AddDevice()). Its device lane then only writes blocks and rings doorbells, and answers come in like requests do. A
// device worker takes such channels while it runs (AddExtra()); their rows wait in its models' ordinary queues. Either
// side's death is told by the server (Forget()): a device worker drops what nobody waits for any more, an extra worker
// gives it to another device worker, once, or lets it fail.
//
// Probes. A probe (tensor/exchange.h) has a stage on each lane that there is, which runs nothing: so the server learns
// that requests would come through.
//
// Locks. `mutex_` guards queues, channels, pools and counters. It is never held while a stage runs, bytes of tensors
// are copied or a system call is made other than waking a thread. The memory pool's lock is a leaf below it.
//
// Memory. Instances, requests and buffers are pooled: the steady state allocates nothing. At most max_live_instances
// are in the worker (one request may exceed it). When a channel's reply memory or ring is full, its results are held
// in worker memory, it accepts nothing until they are gone, and beyond max_held_bytes no stage starts.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/spin_gate.h"
#include "base/unique_fd.h"
#include "batching/batch_queue.h"
#include "worker/channel.h"
#include "worker/forwarder.h"
#include "worker/hand_over_size.h"
#include "worker/method_plan.h"
#include "worker/model.h"
#include "worker/nested_call.h"
#include "worker/python_stage.h"
#include "worker/sleepers.h"

namespace msserving {

struct ExecutorOptions {
  int64_t max_wait_us = 0;  // BatchPolicy::max_wait_us of every model stage; a model may have a longer one of its own
  uint32_t max_live_instances = 4096;
  size_t max_held_bytes = size_t{256} << 20;
  int64_t idle_ns = 10 * kNanosPerSecond;      // of an extra worker: then memory that large rows took is given back
  size_t keep_free_bytes = size_t{256} << 20;  // free pooled memory that is not given back to the system
  // How long a thread may look for requests before it blocks, where they have come quickly of late (SpinGate); 0:
  // never.
  int64_t spin_ns = 0;
};

// What the server says through the control socket.
enum class ControlEvent : uint8_t { kNothing, kStop, kServerGone };

enum class RunEnd : uint8_t {
  kStopped,      // everything accepted has been answered
  kServerGone,   // nobody waits for answers any more
  kInterrupted,  // by RunHooks::interrupted
  kBroken,       // the server wrote nonsense into shared memory
};

// Who may start a method: clients, or Executor::Call() alone.
enum class MethodUse : uint8_t { kPublic, kInternal };

// Called on the thread that called Run().
struct RunHooks {
  int control_fd = -1;                       // watched for input and for its end; -1: none
  std::function<ControlEvent()> on_control;  // called when control_fd is readable
  std::function<bool()> interrupted;         // polled at least ten times a second; may be empty
};

struct StageStats {
  std::string name;
  StageKind kind = StageKind::kModel;
  std::array<uint64_t, static_cast<size_t>(BatchRelease::kCount)> releases{};
  uint64_t queued = 0;     // instances waiting now
  uint64_t instances = 0;  // run
  uint64_t run_ns = 0;     // spent in the stage
  ModelCounters model;     // of a model stage
};

struct ExecutorStats {
  uint64_t requests = 0;
  uint64_t instances = 0;
  uint64_t failed = 0;  // of all reasons
  uint64_t expired = 0;
  uint64_t cancelled = 0;
  uint64_t held = 0;       // times a result had to be held back
  uint64_t wakeups = 0;    // returns from blocking
  uint64_t doorbells = 0;  // rung at the server
  uint64_t live_instances = 0;
  uint64_t python_calls = 0;       // of the Python stage function: how often the GIL was asked for
  uint64_t calls = 0;              // from inside Python stages; not among the requests
  uint64_t call_instances = 0;     // in them
  uint64_t forwarded_groups = 0;   // handed to device workers
  uint64_t forwarded_rows = 0;     // in them
  uint64_t forwarded_lost = 0;     // rows whose device worker died, and that no other could take
  uint64_t rows_with_devices = 0;  // now
  std::vector<StageStats> stages;
};

// Set up from one thread, then Run() once. RequestStop(), stats() and Call(): any thread, at any time.
class Executor {
 public:
  explicit Executor(ExecutorOptions options = {}, const Clock& clock = RealClock());
  // After a Run() that did not end with kStopped this waits for the stages under way.
  ~Executor();
  Executor(const Executor&) = delete;

  // Returns the model's number, a stage's `target`.
  uint32_t AddModel(std::unique_ptr<Model> model);
  // Methods are numbered as they come. The graph is checked against itself and the models.
  Status AddMethod(const MethodGraph& graph, MethodUse use = MethodUse::kPublic);
  void SetPythonStages(PythonStageFunction function, void* context);
  void AddChannel(std::unique_ptr<Channel> channel);
  // Of a device worker that has extra workers; after the models and methods.
  Status ServeExtraWorkers();
  // Of an extra worker, before methods are added: no model is run here. `memory`: for the rows that are handed on.
  void ForwardModels(SharedMemory memory) { forwarder_ = std::make_unique<Forwarder>(std::move(memory)); }
  Model& model(uint32_t number) { return *models_[number]; }
  size_t models() const { return models_.size(); }

  // `doorbell`: the eventfd that the server rings. kBroken explains itself in the status.
  Status Run(UniqueFd doorbell, const RunHooks& hooks, RunEnd* end);
  // Answers what has been accepted or lies in the rings, then Run() returns.
  void RequestStop();

  // Any thread, also before Run(). An extra worker's channel; a device worker for the rows of models; the end of
  // either, by the server's name for its process. Unknown names are ignored.
  void AddExtra(uint64_t extra, std::unique_ptr<Channel> channel);
  void AddDevice(std::shared_ptr<DeviceLink> link);
  // `given_up`: Forwarder::Remove().
  void Forget(uint64_t process, uint8_t given_up = 0);

  ExecutorStats stats() const;

  // Runs a method, public or internal, on `instances` instances from inside a Python stage or from another thread of
  // the user's, and blocks until all are done. `inputs`: instances x the method's inputs, instance after instance;
  // their memory is only read and must stay until the end. `done` gets the outcome before this returns, on this
  // thread; it must not throw, and what it needs longer it copies.
  // Inside a stage the deadline and the cancellation of its instance hold for the call too: they end it where they
  // would end a request, between stages. The status says only whether there is an outcome: not if the inputs do not
  // fit the method, calls are nested too deeply, or nothing runs (yet, or any more).
  Status Call(uint32_t method, uint32_t instances, std::span<const TensorView> inputs,
              const std::function<void(const CallResults&)>& done);

 private:
  enum Lane : uint8_t { kDevice, kPython, kLanes, kNoLane };

  struct Line {
    ModelGraph* graph;
    ModelCounters counters;  // as they were after its last run
  };

  struct StageQueue {
    StageQueue(BatchPolicy policy, const Clock& clock) : queue(policy, clock) {}
    BatchQueue queue;
    Lane lane = kDevice;
    std::string name;
    ModelGraph* graph = nullptr;       // of a model's queue: the first line's
    std::vector<Line> lines;           // of a model's queue: who has device token n runs the n-th
    const MethodPlan* plan = nullptr;  // of a Python stage's queue
    const StagePlan* stage = nullptr;
    HandOverSize at_once;  // instances handed to a stage
    uint32_t running = 0;  // batches of it in stages now
    bool probe = false;    // a lane's for probes; no graph and no stage
    uint64_t instances = 0;
    uint64_t run_ns = 0;

    bool RunsSingly() const { return graph != nullptr && at_once.adapts(); }
  };

  struct Segment {
    ChannelState* channel;
    uint32_t begin;  // in Hand::finished
    uint32_t count;
    uint64_t bytes;
    uint64_t offset;
  };

  // What one thread works with.
  struct Hand {
    uint32_t token = 0;               // of the device
    std::vector<BatchItem*> room;     // for BatchQueue::Take()
    std::vector<Instance*> batch;     // in the stage
    std::vector<Instance*> arrived;   // whose first stage needs no lane
    std::vector<Instance*> finished;  // to be answered
    std::vector<Instance*> moved;     // to be queued for their next stage
    std::vector<const TensorView*> pointers;
    std::vector<TensorView> views;
    std::vector<uint8_t> kept;  // small results of the finished, out of the way of the session's next run
    size_t kept_bytes = 0;      // in use, until Publish()
    std::vector<Segment> segments;
    std::vector<std::shared_ptr<Channel>> doorbells;
    std::vector<NestedCall*> callers;                  // to be told
    ForwardedNews news;                                // from device workers
    std::vector<std::shared_ptr<DeviceLink>> devices;  // whose doorbell is due
    bool looked = false;                               // in vain, just now: it is time to block
  };

  struct Caller : NestedCall {
    Hand hand;
  };

  class ModelBatch;
  class PythonBatch;

  // executor_setup.cc
  Status CheckStage(const MethodPlan& plan, size_t index) const;
  uint32_t QueueForModel(const StagePlan& stage);
  uint32_t QueueForPython(const MethodPlan& plan, const StagePlan& stage);
  uint32_t PythonBound(const MethodPlan& plan, const StagePlan& stage) const;
  // executor_probe.cc
  void AddProbe();
  void RunProbe(Hand& hand, StageQueue& queue);
  bool ForwardProbe(Hand& hand);
  // executor_extra.cc: channels of extra workers
  uint32_t PlanOfForwarded(const RequestRecord& record) const;
  void DropGoneChannels();
  // executor_forward.cc: rows of models that are run elsewhere
  void Forward(Hand& hand, StageQueue& queue);
  size_t ForwardSome(Hand& hand, StageQueue& queue, std::span<Instance* const> rows);
  void Stick(StageQueue& queue, std::span<Instance* const> rows);
  StageQueue* TakeStuck(Hand& hand);
  void ReadNews(Hand& hand);
  void EndNews(Hand& hand);
  void GiveBackIdleRows();
  void RingDevices(Hand& hand);
  void RingDevices(Hand& hand, std::unique_lock<std::mutex>& lock);
  // executor.cc: the run's threads, their loop and its end
  void WaitForEnd(const RunHooks& hooks);
  void Work(Hand& hand);
  void WorkOnce(Hand& hand, std::unique_lock<std::mutex>& lock);
  void RunTaken(Hand& hand, StageQueue* queue, std::unique_lock<std::mutex>& lock);
  static ModelCounters CountersOf(const StageQueue& queue);
  bool Drained() const;
  void End(RunEnd end);
  void EndNow(RunEnd end);
  // executor_take.cc: choosing what runs next, under the lock
  StageQueue* TakeBatch(Hand& hand);
  StageQueue* TakeFrom(Hand& hand, Lane lane);
  StageQueue* OldestReady(Lane lane);
  void TakeToken(Hand& hand, StageQueue* queue);
  void GiveToken(Hand& hand, StageQueue* queue);
  bool Free(Lane lane) const { return busy_[lane] < tokens_[lane]; }
  bool MayRun(const StageQueue& queue) const {
    const bool stuck = queue.lane == kDevice && stuck_queue_ != nullptr;
    return !stuck && Free(queue.lane) && (queue.stage == nullptr || queue.running < queue.stage->concurrency);
  }
  // executor_rest.cc: nothing to run; the doorbells, looking and blocking, under the lock
  void InviteOthers();
  void Rest(Hand& hand, std::unique_lock<std::mutex>& lock);
  bool MayLook();
  void Look(Hand& hand, std::unique_lock<std::mutex>& lock);
  void Sleep(std::unique_lock<std::mutex>& lock);
  int64_t SleepLimitNs();
  bool LaneForArrivals() const {
    return starts_inline_ || (starts_[kDevice] && Free(kDevice)) || (starts_[kPython] && Free(kPython));
  }
  bool MayAccept(const ChannelState& state) const {
    return state.held == nullptr && !state.gone && !state.channel->unsent() && live_ < options_.max_live_instances;
  }
  bool NewsWait(bool requests) const;
  bool ArrivalsWait() const;
  void Arm(bool requests);
  void Disarm() {
    if (armed_) {
      DisarmAll();
    }
  }
  void DisarmAll();
  // executor_accept.cc: from ring entries to instances
  void Accept(Hand& hand);
  bool PlanOf(const ChannelState& state, const RequestRecord& record, uint32_t* plan);
  void AcceptRequest(Hand& hand, ChannelState& state, RequestRecord* record);
  Instance* NewInstance(RequestState* request);
  RequestState* NewRequest();
  void Enqueue(Instance* instance);
  void EnqueueMoved(Hand& hand);
  void Drop(Hand& hand, BatchItem* chain, ErrorKind kind);
  // executor_stages.cc: running stages, without the lock
  void RunStage(Hand& hand, StageQueue& queue);
  void RunModel(Hand& hand, StageQueue& queue);
  void RunRows(Hand& hand, StageQueue& queue, std::span<Instance* const> rows, bool more);
  static bool KeepResults(Hand& hand, size_t first);
  static constexpr int kNoLimit = -1;
  int MarkRunning(std::span<Instance* const> batch);
  void EndLimit(int slot);
  void Advance(Hand& hand, Instance* instance, const StagePlan* transient);
  bool RunBuiltin(Instance* instance, const StagePlan& stage);
  bool KeepValue(Instance* instance, uint16_t value);
  // executor_python.cc: running Python stages, without the lock
  void RunPython(Hand& hand, StageQueue& queue);
  bool PrepareInputs(Hand& hand, const StagePlan& stage, PythonStageCall* call);
  void PrepareInput(Hand& hand, const StagePlan& stage, const PythonStageCall& call, uint32_t first, uint32_t end,
                    uint32_t k);
  bool MakeWritable(Instance* instance, uint16_t value, uint64_t bytes);
  uint8_t* ReserveReply(Instance* instance, uint16_t value);
  void ReleaseReply(Instance* instance);
  // executor_replies.cc: answering, without the lock
  void Publish(Hand& hand);
  void CutSegments(Hand& hand);
  void AllocateSegments(Hand& hand);
  void SendSegments(Hand& hand);
  void Hold(Hand& hand, const Segment& segment);
  bool CopyOut(Instance* instance);
  void Retire(Instance* instance);
  void CollectHeld(Hand& hand);
  // executor_calls.cc
  Status CheckCall(uint32_t method, uint32_t instances, size_t inputs) const;
  Caller* StartCall(uint32_t method, uint32_t instances, std::span<const TensorView> inputs);
  void ServeCall(Caller& call, std::unique_lock<std::mutex>& lock);
  void RunReady(Caller& call, std::unique_lock<std::mutex>& lock);
  void WaitForChange(Caller& call, std::unique_lock<std::mutex>& lock);
  void AbandonQueued(Caller& call);
  void EndCall(Caller& call);
  void FinishNested(Hand& hand);
  void TellCallers(Hand& hand, std::unique_lock<std::mutex>& lock);

  const ExecutorOptions options_;
  const Clock& clock_;
  std::vector<std::unique_ptr<Model>> models_;
  std::vector<std::unique_ptr<MethodPlan>> plans_;
  PythonStageFunction python_ = nullptr;
  void* python_context_ = nullptr;
  WorkerBoard* board_ = nullptr;         // the first channel's
  std::atomic<uint64_t> used_slots_{0};  // of the board's limits, a bit each
  std::atomic<uint32_t> next_slot_{0};
  UniqueFd done_;  // rung when the run ends
  MemoryPool memory_;
  std::vector<std::thread> threads_;
  std::deque<Hand> hands_;
  std::array<uint32_t, kLanes> tokens_{1, 1};  // constant while running
  // Which lanes the first stage of some method needs.
  std::array<bool, kLanes> starts_{};
  bool starts_inline_ = false;
  std::vector<std::vector<uint32_t>> forwarded_;  // by model and sub-graph: the plan that runs it for extra workers
  uint32_t refusing_plan_ = 0;                    // for what an extra worker asks and is not there
  uint32_t probe_plan_ = UINT32_MAX;
  bool keeps_together_ = false;  // some stage takes stacked arrays

  mutable std::mutex mutex_;  // guards everything below
  std::vector<std::unique_ptr<StageQueue>> queues_;
  std::vector<std::unique_ptr<ChannelState>> channels_;
  std::unique_ptr<Forwarder> forwarder_;  // of an extra worker
  StageQueue* stuck_queue_ = nullptr;     // whose rows found no room with the forwarder, and hold the device lane
  std::vector<Instance*> stuck_;
  uint64_t groups_seen_ = 0;  // forwarded when GiveBackIdleRows() last found news
  int64_t groups_seen_ns_ = 0;
  size_t next_channel_ = 0;
  std::array<uint32_t, kLanes> busy_{};  // tokens taken
  uint32_t device_tokens_ = 0;           // which of the device's, a bit each
  std::deque<Instance> instances_;
  std::vector<std::vector<Instance*>> free_instances_;  // by method
  std::deque<RequestState> requests_;
  std::vector<RequestState*> free_requests_;
  std::deque<Caller> callers_;
  std::vector<Caller*> free_callers_;
  size_t room_ = 1;  // the largest batch of any stage
  int64_t now_ns_ = 0;
  uint64_t live_ = 0;
  size_t held_bytes_ = 0;
  Sleepers sleepers_;
  SpinGate spin_;              // of waits for requests
  bool looking_ = false;       // a thread does
  int64_t idle_since_ns_ = 0;  // when a thread last found nothing to do while no stage ran; 0: not measured
  bool armed_ = false;
  bool running_ = false;
  bool stopping_ = false;
  bool ended_ = false;
  RunEnd end_ = RunEnd::kStopped;
  Status broken_;
  ExecutorStats stats_;
};

}  // namespace msserving
