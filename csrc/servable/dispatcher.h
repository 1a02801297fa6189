// The border between the protocols (gRPC, REST, embedding) and the router: a decoded request goes in, a reply comes
// out, on one event loop's thread. Nothing here knows of HTTP, and nothing behind it knows of any encoding.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "servable/signature.h"
#include "tensor/tensor_view.h"

namespace msserving {

// The inputs of a request: instances x signature.inputs views, instance after instance. The memory that the views
// point to must live until Submit() returns. Reuse one object for many requests.
struct RequestInstances {
  size_t count = 0;
  std::vector<TensorView> tensors;

  void Clear() {
    count = 0;
    tensors.clear();
  }
};

// One instance's outcome: `outputs` has signature.outputs.size() entries if error is kOk, none otherwise.
struct InstanceResult {
  ErrorKind error = ErrorKind::kOk;
  std::string_view message;
  std::span<const TensorView> outputs;
};

// Keeps the memory behind a reply's views alive. Release on the loop thread that delivered the reply.
class ReplyMemory {
 public:
  virtual void Release() = 0;

 protected:
  ~ReplyMemory() = default;
};

struct ReleaseReplyMemory {
  void operator()(ReplyMemory* memory) const { memory->Release(); }
};
using ReplyMemoryPtr = std::unique_ptr<ReplyMemory, ReleaseReplyMemory>;

// One entry per instance of the request, in order. `memory` may be moved out to keep the outputs' bytes and the
// messages beyond OnReply(); the span and the TensorView structs themselves end with OnReply().
struct Reply {
  std::span<const InstanceResult> results;
  ReplyMemoryPtr memory;
};

class ReplySink {
 public:
  // Called once for each accepted request that was not cancelled, on the loop's thread, never from inside Submit().
  virtual void OnReply(Reply reply) = 0;

 protected:
  ~ReplySink() = default;
};

// A method as it can be called now. Valid until the dispatcher's next return to its event loop.
struct MethodTarget {
  const MethodSignature* signature = nullptr;
  void* servable = nullptr;  // the dispatcher's own
  uint32_t method = 0;
};

// Identifies an accepted request to Cancel(); 0 is none.
using RequestTicket = uint64_t;

// One per event loop; every call on that loop's thread.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;

  // kOverloaded: no request can be taken now, whatever it asks for. It counts as refused then.
  virtual Status Full() { return Status::Ok(); }

  // version 0: the newest. Errors: kOverloaded ("enqueued requests count exceeds the limit N", or a wait that is too
  // long for `deadline_ns` or the limit), kServableUnavailable, kMethodUnavailable. What would be refused by Submit()
  // whatever its tensors are is refused here, before anybody decodes them.
  virtual Status Find(std::string_view servable, uint64_t version, std::string_view method, int64_t deadline_ns,
                      MethodTarget* target) = 0;

  // Copies the tensors and queues the request. `sink` must live until its OnReply() or Cancel(). Errors: kOverloaded,
  // kServableUnavailable; then the sink is never called. deadline_ns is on RealClock(), kNoDeadline if none.
  virtual Status Submit(const MethodTarget& target, const RequestInstances& instances, int64_t deadline_ns,
                        ReplySink* sink, RequestTicket* ticket) = 0;

  // After a refusal with kOverloaded: the queue is so long that the client's next requests may be looked at a few
  // milliseconds later, many at once, without any worker running dry meanwhile.
  virtual bool long_queue() const { return false; }

  // Nobody waits for this request any more: its sink will not be called. Unknown tickets are ignored.
  virtual void Cancel(RequestTicket ticket) = 0;
};

}  // namespace msserving
