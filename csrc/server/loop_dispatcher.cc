#include "server/loop_dispatcher.h"

#include <malloc.h>
#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "server/loop_dispatcher_state.h"

namespace msserving {

namespace {

// Of a segment's instances, those that took the worker's time.
uint64_t WorkedOn(const ReplyRecord& record, uint32_t count) {
  uint64_t worked = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const auto error = static_cast<ErrorKind>(record.instances()[i].error);
    worked += error != ErrorKind::kDeadlineExceeded && error != ErrorKind::kCancelled ? 1 : 0;
  }
  return worked;
}

}  // namespace

LoopDispatcher::LoopDispatcher(EventLoop* loop, UniqueFd doorbell, std::shared_ptr<DispatchLimits> limits)
    : loop_(loop), doorbell_(std::move(doorbell)), limits_(std::move(limits)), bytes_(&limits_->bytes_in_flight) {
  // Edge-triggered: each ring is an event of its own, so the counter need not be read.
  loop_->Add(doorbell_.get(), EPOLLIN | EPOLLET, this);
  loop_->AddHook(this);
  idle_timer_ = loop_->AddTimer(loop_->clock().NowNs() + kIdleNs, [this] { GiveBackIdleMemory(); });
}

LoopDispatcher::~LoopDispatcher() {
  loop_->CancelTimer(idle_timer_);
  loop_->RemoveHook(this);
  loop_->Remove(doorbell_.get(), this);
  for (Pending& pending : slots_) {
    StopCounting(&pending);
  }
}

Status LoopDispatcher::Submit(const MethodTarget& target, const RequestInstances& instances, int64_t deadline_ns,
                              ReplySink* sink, RequestTicket* ticket) {
  auto* route = static_cast<Route*>(target.servable);
  WorkerLink* link = LeastBusy(route, target.method, nullptr);
  if (Status status = Admit(link, deadline_ns); !status.ok()) {
    stats_.refused.fetch_add(1, std::memory_order_relaxed);
    return status;
  }
  if (link == nullptr) {
    stats_.refused.fetch_add(1, std::memory_order_relaxed);
    return Status(ErrorKind::kServableUnavailable, "servable is not available: all its workers are gone");
  }
  std::vector<Suspicion> suspects;
  if (!limits_->suspects.empty()) {
    if (Status status = FindSuspects(*route, target, instances, &suspects); !status.ok()) {
      stats_.refused.fetch_add(1, std::memory_order_relaxed);
      return status;
    }
  }
  const uint64_t bytes = RequestBlockBytes(instances.tensors);
  ByteCharge charge;
  if (!charge.Take(&bytes_, bytes)) {
    stats_.refused.fetch_add(1, std::memory_order_relaxed);
    return Status(ErrorKind::kOverloaded, limits_->bytes_in_flight.Refusal(bytes));
  }
  const uint64_t offset = bytes == 0 ? SlabAllocator::kNone : route->slab.Allocate(bytes);
  if (offset == SlabAllocator::kNone) {
    stats_.refused.fetch_add(1, std::memory_order_relaxed);
    return Status(ErrorKind::kOverloaded, "the request's tensors do not fit into what is left of the " +
                                              std::to_string(route->memory->size() >> 20) +
                                              " MiB of request memory of this servable; try again later");
  }
  Pending* pending = NewPending();
  pending->route = route;
  pending->link = link;
  pending->sink = sink;
  pending->method = target.method;
  pending->instances = static_cast<uint32_t>(instances.count);
  pending->block = offset;
  pending->block_bytes = bytes;
  ++route->pending;
  pending->charge = std::move(charge);
  route->used = true;
  route->largest_block = std::max(route->largest_block, bytes);
  WriteRequestBlock(route->memory->base(), offset, pending->name(), deadline_ns, target.method, pending->instances,
                    static_cast<uint32_t>(target.signature->inputs.size()), instances.tensors);
  if (!suspects.empty()) {
    pending->suspects = std::move(suspects);
    OrderSuspects(pending);
  }
  if (!link->Push(pending->name(), offset, bytes)) {
    FreePending(pending);
    stats_.refused.fetch_add(1, std::memory_order_relaxed);
    return Status(ErrorKind::kOverloaded, "the queue of the worker is full; try again later");
  }
  link->outstanding_instances += pending->instances;
  pending->given_ns = loop_->now_ns();
  link->estimate.OnGiven(pending->instances, pending->given_ns);
  ++link->outstanding_requests;
  stats_.accepted.fetch_add(1, std::memory_order_relaxed);
  *ticket = pending->name();
  return Status::Ok();
}

void LoopDispatcher::Cancel(RequestTicket ticket) {
  Pending* pending = FindPending(ticket);
  if (pending == nullptr || pending->sink == nullptr) {
    return;
  }
  pending->sink = nullptr;
  StopCounting(pending);
  // The worker may be reading the block now: it comes back with the last segment.
  reinterpret_cast<RequestRecord*>(pending->route->memory->base() + pending->block)
      ->cancelled.store(1, std::memory_order_relaxed);
  stats_.cancelled.fetch_add(1, std::memory_order_relaxed);
}

void LoopDispatcher::AddWorker(const ServableSignature& signature, std::shared_ptr<SharedMemory> requests,
                               std::shared_ptr<WorkerLink> link, std::shared_ptr<const VersionGate> gate) {
  Route* route = FindRoute(signature.name, signature.version);
  if (route == nullptr) {
    routes_.push_back(std::make_unique<Route>(signature, std::move(requests), std::move(gate)));
    route = routes_.back().get();
  }
  newcomers_.push_back({link.get(), route, nullptr});
  links_.push_back(std::move(link));
}

LoopDispatcher::Route* LoopDispatcher::FindRoute(std::string_view servable, uint64_t version) {
  for (const auto& route : routes_) {
    if (route->signature.name == servable && route->signature.version == version) {
      return route.get();
    }
  }
  return nullptr;
}

void LoopDispatcher::WhenDrained(std::string_view servable, uint64_t version, std::function<void()> drained) {
  Route* route = FindRoute(servable, version);
  if (route == nullptr || route->pending == 0) {
    drained();
  } else {
    route->drained = std::move(drained);
  }
}

void LoopDispatcher::DropVersion(std::string_view servable, uint64_t version) {
  Route* route = FindRoute(servable, version);
  if (route == nullptr) {
    return;
  }
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].in_use && slots_[i].route == route) {
      stats_.lost_worker.fetch_add(1, std::memory_order_relaxed);
      FailAll(&slots_[i], ErrorKind::kWorkerUnavailable, "the servable version has been stopped");
    }
  }
  std::erase_if(newcomers_, [route](const Newcomer& newcomer) { return newcomer.route == route; });
  std::erase_if(routes_, [route](const auto& one) { return one.get() == route; });
}

// The doorbell only has to end the sleep; OnWake() does the work.
void LoopDispatcher::OnIo(uint32_t) {}

void LoopDispatcher::OnWake() {
  // By index: a sink may not add workers, but a reply's encoding may run anything else.
  for (size_t i = 0; i < links_.size(); ++i) {
    if (links_[i]->outstanding_requests > 0) {
      Poll(links_[i].get());
    }
  }
  for (Newcomer& newcomer : newcomers_) {
    SendProbe(&newcomer);  // if it found no room before
  }
  for (const auto& link : links_) {
    link->RingDoorbell();
  }
}

uint64_t LoopDispatcher::Expected() const {
  uint64_t requests = 0;
  for (const auto& link : links_) {
    requests += link->outstanding_requests;
  }
  return requests;
}

bool LoopDispatcher::OnLook() {
  bool found = false;
  for (const auto& link : links_) {
    link->RingDoorbell();
    found |= link->outstanding_requests > 0 && !link->Empty();
  }
  return found;
}

bool LoopDispatcher::OnSleep() {
  bool empty = true;
  for (const auto& link : links_) {
    link->RingDoorbell();  // replies that were sent since OnWake() have released their memory
    if (link->outstanding_requests > 0) {
      empty &= link->ArmAndCheckEmpty();
    }
  }
  return empty;
}

void LoopDispatcher::OnAwake() {
  for (const auto& link : links_) {
    link->Disarm();
  }
}

LoopDispatcher::Pending* LoopDispatcher::FindPending(uint64_t request) {
  const auto slot = static_cast<uint32_t>(request);
  if (slot >= slots_.size() || !slots_[slot].in_use || slots_[slot].name() != request) {
    return nullptr;
  }
  return &slots_[slot];
}

LoopDispatcher::Pending* LoopDispatcher::NewPending() {
  if (free_slots_.empty()) {
    slots_.emplace_back();
    slots_.back().slot = static_cast<uint32_t>(slots_.size() - 1);
    free_slots_.push_back(slots_.back().slot);
  }
  Pending* pending = &slots_[free_slots_.back()];
  free_slots_.pop_back();
  pending->in_use = true;
  pending->counted = true;
  pending->retried = false;
  pending->given_up = false;
  pending->moves = 0;
  pending->answered = 0;
  ++pending_count_;
  limits_->pending_requests.fetch_add(1, std::memory_order_relaxed);
  return pending;
}

// It waits for nothing but its block.
void LoopDispatcher::StopCounting(Pending* pending) {
  if (std::exchange(pending->counted, false)) {
    limits_->pending_requests.fetch_sub(1, std::memory_order_relaxed);
  }
}

void LoopDispatcher::FreePending(Pending* pending) {
  Route* route = pending->route;
  route->slab.Free(pending->block);
  pending->charge.Reset();
  pending->parts.clear();
  pending->suspects.clear();
  pending->in_use = false;
  pending->sink = nullptr;
  pending->link = nullptr;
  if (++pending->generation == 0) {
    pending->generation = 1;  // 0 << 32 | 0 would be the ticket that means none
  }
  free_slots_.push_back(pending->slot);
  --pending_count_;
  StopCounting(pending);
  if (--route->pending == 0 && route->drained) {
    std::exchange(route->drained, nullptr)();
  }
}

void LoopDispatcher::Poll(WorkerLink* link) {
  WorkerLink::Segment segment;
  while (link->Pop(&segment)) {
    OnSegment(link, segment);
  }
}

void LoopDispatcher::OnSegment(WorkerLink* link, const WorkerLink::Segment& segment) {
  Pending* pending = FindPending(segment.request);
  if (pending == nullptr || pending->link != link) {
    if (segment.request == kProbeRequest) {
      EndProbe(link, segment);
    }
    link->Release(segment.offset);  // an answer to a request that was already given up
    return;
  }
  const ReplyRecord* record = segment.record;
  const size_t outputs = pending->route->signature.methods[pending->method].outputs.size();
  // Read once: the worker can write into the record until the block is released.
  const uint32_t first = record != nullptr ? record->first : 0;
  const uint32_t count = record != nullptr ? record->count : 0;
  const bool fits = record != nullptr && record->request == segment.request && first < pending->instances &&
                    count <= pending->instances - first && record->outputs == outputs &&
                    count <= pending->instances - pending->answered;
  if (!fits) {
    link->Release(segment.offset);
    link->outstanding_instances -= pending->instances - pending->answered;
    link->estimate.OnBack(pending->instances - pending->answered, 0, loop_->now_ns(), 0);
    --link->outstanding_requests;
    FailAll(pending, ErrorKind::kInternal, "the worker's answer is damaged");
    return;
  }
  link->outstanding_instances -= count;
  link->estimate.OnBack(count, WorkedOn(*record, count), loop_->now_ns(), loop_->now_ns() - pending->given_ns);
  pending->answered += count;
  pending->parts.push_back({record, segment.offset, first, count});
  if (link->extra) {
    AccuseLost(pending, *record, first, count);
  }
  if (pending->answered < pending->instances) {
    return;
  }
  --link->outstanding_requests;
  if (!pending->suspects.empty()) {
    ClearSuspects(*pending);
  }
  if (pending->sink == nullptr) {
    FinishWithoutReply(pending);
  } else {
    Deliver(pending, {ErrorKind::kInternal, "the worker did not answer"});
  }
}

// `missing`: the outcome of instances that were not answered.
void LoopDispatcher::Deliver(Pending* pending, const Status& missing) {
  const size_t outputs = pending->route->signature.methods[pending->method].outputs.size();
  const uint8_t* slab = pending->link->reply_slab();
  std::unique_ptr<Blocks> blocks = TakeBlocks();
  if (pending->answered < pending->instances) {
    blocks->message = missing.message();
  }
  results_.assign(pending->instances, InstanceResult{missing.kind(), blocks->message, {}});
  for (uint32_t i = 0; pending->answered < pending->instances && i < pending->instances; ++i) {
    if (pending->mark_of(i)->order == static_cast<uint8_t>(InstanceOrder::kGivenUp)) {
      results_[i] = InstanceResult{ErrorKind::kTimedOut, kGivenUpText, {}};
    }
  }
  views_.resize(pending->instances * outputs);
  for (const Pending::Part& part : pending->parts) {
    const TensorRecord* tensors = part.tensors();
    for (uint32_t i = 0; i < part.count; ++i) {
      const InstanceRecord& from = part.record->instances()[i];
      const uint32_t instance = part.first + i;
      InstanceResult& result = results_[instance];
      result.error = static_cast<ErrorKind>(from.error);
      result.message = {reinterpret_cast<const char*>(slab + from.message_offset), from.message_bytes};
      if (result.error != ErrorKind::kOk) {
        result.outputs = {};
        continue;
      }
      TensorView* views = views_.data() + instance * outputs;
      for (size_t o = 0; o < outputs; ++o) {
        views[o] = ViewOf(slab, tensors[i * outputs + o]);
      }
      result.outputs = {views, outputs};
    }
  }
  blocks->link = pending->link->shared_from_this();
  for (const Pending::Part& part : pending->parts) {
    blocks->offsets.push_back(part.offset);
  }
  pending->parts.clear();
  ReplySink* sink = std::exchange(pending->sink, nullptr);
  if (pending->given_up) {  // the worker, which has still to end, may write into the block
    StopCounting(pending);
  } else {
    FreePending(pending);
  }
  stats_.answered.fetch_add(1, std::memory_order_relaxed);
  sink->OnReply(Reply{results_, ReplyMemoryPtr(blocks.release())});
}

std::unique_ptr<LoopDispatcher::Blocks> LoopDispatcher::TakeBlocks() {
  if (idle_blocks_.empty()) {
    return std::make_unique<Blocks>(this);
  }
  std::unique_ptr<Blocks> blocks = std::move(idle_blocks_.back());
  idle_blocks_.pop_back();
  return blocks;
}

void LoopDispatcher::FailAll(Pending* pending, ErrorKind kind, const std::string& message) {
  DropSegments(pending);
  auto blocks = std::make_unique<Blocks>(this);
  blocks->message = message;
  results_.assign(pending->instances, InstanceResult{kind, blocks->message, {}});
  ReplySink* sink = pending->sink;
  FreePending(pending);
  stats_.answered.fetch_add(1, std::memory_order_relaxed);
  if (sink != nullptr) {
    sink->OnReply(Reply{results_, ReplyMemoryPtr(blocks.release())});
  }
}

void LoopDispatcher::DropSegments(Pending* pending) {
  for (const Pending::Part& part : pending->parts) {
    pending->link->Release(part.offset);
  }
  pending->parts.clear();
}

void LoopDispatcher::GiveBackIdleMemory() {
  for (const auto& route : routes_) {
    const bool idle = !std::exchange(route->used, false) && route->slab.blocks() == 0;
    if (!idle || route->largest_block < kWorthGivingBack) {
      continue;
    }
    route->memory->Discard(0, route->memory->size());
    route->largest_block = 0;
  }
  for (const auto& link : links_) {
    link->DiscardIdleMemory();
  }
  if (loop_->buffers().FreeUnused() >= kWorthGivingBack) {
    malloc_trim(0);
  }
  idle_timer_ = loop_->AddTimer(loop_->now_ns() + kIdleNs, [this] { GiveBackIdleMemory(); });
}

void LoopDispatcher::FinishWithoutReply(Pending* pending) {
  DropSegments(pending);
  FreePending(pending);
}

}  // namespace msserving
