// A method made ready for execution: values numbered, queues chosen, and for each value who reads it last.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batching/batch_queue.h"
#include "servable/method_graph.h"
#include "tensor/exchange.h"
#include "worker/channel.h"
#include "worker/instance_memory.h"

namespace msserving {

struct StagePlan {
  StageKind kind = StageKind::kModel;
  uint32_t target = 0;
  uint32_t subgraph = 0;
  std::vector<uint16_t> inputs;  // value numbers
  uint16_t first_output = 0;     // value number; the others follow
  uint16_t outputs = 1;
  uint32_t at_once = 0;      // as in Stage
  uint32_t concurrency = 1;  // as in Stage
  uint32_t batch_size = 0;
  bool stacked = false;             // as in Stage
  std::vector<uint8_t> write_back;  // per input: a later stage or the reply reads it too
  std::string failed;               // "Preprocess Failed: "
  ErrorKind failure = ErrorKind::kStageFailed;
  uint32_t queue = 0;  // of the executor; not for built-ins
};

// Constant after it was made. Values are numbered: the method's inputs, then each stage's outputs in order.
struct MethodPlan {
  explicit MethodPlan(const MethodGraph& checked);

  std::string name;
  uint16_t inputs = 0;
  uint16_t values = 0;
  bool internal = false;  // only Executor::Call() runs it
  int64_t timeout_ns = 0;
  std::vector<StagePlan> stages;
  std::vector<uint16_t> returns;   // value numbers
  std::vector<uint8_t> together;   // per value: a stage that takes stacked arrays reads it
  std::vector<uint16_t> last_use;  // per value: the last stage (from 0) that reads it; stages.size(): the reply does
};

struct NestedCall;

// A channel and the finished instances whose reply found no room in it. Changed under the executor's lock only.
struct ChannelState {
  std::shared_ptr<Channel> channel;
  uint64_t extra = 0;         // the extra worker at the other end; 0: the server
  uint64_t requests = 0;      // not answered in full
  bool gone = false;          // the extra worker has died: nobody waits for what it asked for
  BatchItem* held = nullptr;  // oldest first
  BatchItem* held_tail = nullptr;
  bool retry = false;  // room may have come
};

// A request on its way through the worker, or a call from inside a Python stage (then without record and channel).
// Changed under the executor's lock only.
struct RequestState {
  RequestRecord* record = nullptr;
  ChannelState* channel = nullptr;
  NestedCall* call = nullptr;
  const MethodPlan* plan = nullptr;
  uint64_t id = 0;
  uint32_t plan_index = 0;
  uint32_t remaining = 0;  // instances not answered yet; at 0 the block belongs to the server again
  int64_t timeout_ns = 0;  // what one call of a function or one run of a model may take; 0: any time
};

// One instance: in one queue or in one thread's hands. Pooled by method, so that `values` is never resized.
struct Instance : BatchItem {
  RequestState* request = nullptr;
  uint32_t index = 0;  // in its request
  uint16_t stage = 0;  // the one it waits for or is in
  ErrorKind error = ErrorKind::kOk;
  // Lies in a stage's queue, or is with a device worker: in no thread's hands. Changed under the executor's lock.
  bool queued = false;
  InstanceMark* mark = nullptr;  // tells the server what is being run; null: of a call, whose caller is marked
  std::string message;
  // The reply block of this instance alone, if a value of it was written there at once; Channel::kNone: none yet.
  uint64_t reply_offset = Channel::kNone;
  uint64_t reply_bytes = 0;
  std::unique_ptr<TensorView[]> values;
  InstanceMemory memory;

  // Of the method that a client has called; 0: none.
  int64_t timeout_ns() const { return mark != nullptr ? request->timeout_ns : 0; }
  void SetRunning(uint8_t value) {
    if (mark != nullptr) {
      mark->SetRunning(value);
    }
  }
  // A device worker died while it ran this for an extra one: told to the server, of a call for whom it was made.
  void AddLost(uint16_t device);
  void Fail(ErrorKind kind, std::string_view reason) {
    error = kind;
    message.assign(reason);
  }
};

inline bool IsCancelled(const Instance& instance) {
  return instance.cancelled != nullptr && instance.cancelled->load(std::memory_order_relaxed) != 0;
}

}  // namespace msserving
