// What a LoopDispatcher keeps of servables, requests and replies. For its own sources only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/loop_dispatcher.h"

namespace msserving {

// A probe's name to the worker; no slot has it.
inline constexpr uint64_t kProbeRequest = UINT64_MAX;

// One servable version as this loop sees it.
struct LoopDispatcher::Route {
  Route(ServableSignature s, std::shared_ptr<SharedMemory> m, std::shared_ptr<const VersionGate> g)
      : signature(std::move(s)), memory(std::move(m)), gate(std::move(g)), slab(memory->size()) {}
  bool open() const { return gate == nullptr || gate->load(std::memory_order_acquire); }
  // Names a method to the SuspectList.
  std::string ScopeOf(uint32_t method) const {
    return signature.name + "/" + std::to_string(signature.version) + "/" + signature.methods[method].name;
  }

  ServableSignature signature;
  std::shared_ptr<SharedMemory> memory;
  std::shared_ptr<const VersionGate> gate;
  SlabAllocator slab;
  std::vector<WorkerLink*> workers;
  uint64_t largest_block = 0;  // since the memory was last given back
  bool used = false;           // since the last look
  uint64_t pending = 0;        // requests, cancelled ones too
  std::function<void()> drained;
};

// A request between Submit() and its reply. Its name to the workers is generation << 32 | slot.
struct LoopDispatcher::Pending {
  uint32_t slot = 0;
  uint32_t generation = 1;
  bool in_use = false;
  bool counted = false;   // in DispatchLimits::pending_requests
  bool retried = false;   // a worker died while it ran a part of it
  bool given_up = false;  // answered, but its worker has still to end
  uint8_t moves = 0;      // from a dead worker to another
  Route* route = nullptr;
  WorkerLink* link = nullptr;
  ReplySink* sink = nullptr;  // null: cancelled, waits only for its block to come back
  uint32_t method = 0;
  uint32_t instances = 0;
  uint32_t answered = 0;
  int64_t given_ns = 0;  // when its worker got it
  uint64_t block = 0;
  uint64_t block_bytes = 0;
  ByteCharge charge;
  // A segment of the answer. The worker can still write into its record: `first` and `count` are what was checked.
  struct Part {
    const ReplyRecord* record;
    uint64_t offset;
    uint32_t first;
    uint32_t count;
    const TensorRecord* tensors() const { return reinterpret_cast<const TensorRecord*>(record->instances() + count); }
  };
  std::vector<Part> parts;
  std::vector<Suspicion> suspects;  // by instance, once one of them is a suspect; else empty

  // Workers can write into it: no place in memory may be taken from what it says.
  RequestRecord* record() const { return reinterpret_cast<RequestRecord*>(route->memory->base() + block); }
  size_t inputs() const { return route->signature.methods[method].inputs.size(); }
  InstanceMark* mark_of(uint32_t instance) const { return record()->mark_of(instance, inputs()); }
  uint64_t name() const { return uint64_t{generation} << 32 | slot; }
};

// A worker that is known and takes no requests yet.
struct LoopDispatcher::Newcomer {
  WorkerLink* link;
  Route* route;
  std::function<void(const Status&)> answered;  // null: not to be probed, or the answer has come
  uint64_t block = SlabAllocator::kNone;        // of the probe that is out
};

// The reply blocks behind one delivered reply.
class LoopDispatcher::Blocks final : public ReplyMemory {
 public:
  explicit Blocks(LoopDispatcher* owner) : owner_(owner) {}
  void Release() override {
    for (const uint64_t offset : offsets) {
      link->Release(offset);
    }
    offsets.clear();
    message.clear();
    link.reset();
    owner_->idle_blocks_.emplace_back(this);
  }
  std::shared_ptr<WorkerLink> link;
  std::vector<uint64_t> offsets;
  std::string message;  // of a failure that did not come from a worker

 private:
  LoopDispatcher* owner_;
};

}  // namespace msserving
