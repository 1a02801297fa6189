// What becomes of requests whose worker dies or hangs.
#include <algorithm>
#include <utility>

#include "base/log_event.h"
#include "server/loop_dispatcher_state.h"

namespace msserving {
namespace {

// A request that only waited in dead workers goes on to the next so often.
constexpr uint8_t kMaxMoves = 16;
// No worker's number: a device worker by its short name.
constexpr uint64_t kLostDevice = uint64_t{1} << 63;
// The reason why its worker ended follows.
constexpr std::string_view kOverwrittenText =
    "a worker process wrote over this request in shared memory, as code that writes past the end of an input does; it "
    "is not given to another worker: ";

bool IsOrdered(InstanceMark* mark, InstanceOrder order) { return mark->order == static_cast<uint8_t>(order); }

}  // namespace

Status LoopDispatcher::FindSuspects(const Route& route, const MethodTarget& target, const RequestInstances& instances,
                                    std::vector<Suspicion>* suspects) {
  const size_t inputs = target.signature->inputs.size();
  const std::string scope = route.ScopeOf(target.method);
  size_t refused = 0;
  for (size_t i = 0; i < instances.count; ++i) {
    const Suspicion found =
        limits_->suspects.Look(scope, std::span<const TensorView>(instances.tensors).subspan(i * inputs, inputs));
    if (found.deaths > 0) {
      suspects->resize(instances.count);
      (*suspects)[i] = found;
      refused += limits_->suspects.Refused(found.deaths) ? 1 : 0;
    }
  }
  return refused == instances.count ? Status(ErrorKind::kStageFailed, std::string(kRefusedText)) : Status::Ok();
}

// Before the block is handed to a worker.
void LoopDispatcher::OrderSuspects(Pending* pending) {
  for (uint32_t i = 0; i < pending->suspects.size(); ++i) {
    InstanceMark* mark = pending->mark_of(i);
    if (pending->suspects[i].deaths > 0 && !IsOrdered(mark, InstanceOrder::kGivenUp)) {
      const bool refused = limits_->suspects.Refused(pending->suspects[i].deaths);
      mark->order = static_cast<uint8_t>(refused ? InstanceOrder::kRefuse : InstanceOrder::kRunAlone);
    }
  }
}

// Every instance has been answered: those that were run are cleared of suspicion.
void LoopDispatcher::ClearSuspects(const Pending& pending) {
  for (uint32_t i = 0; i < pending.suspects.size(); ++i) {
    InstanceMark* mark = pending.mark_of(i);
    if (pending.suspects[i].deaths > 0 && IsOrdered(mark, InstanceOrder::kRunAlone) && !mark->WasLost()) {
      limits_->suspects.Clear(pending.suspects[i].fingerprint);
    }
  }
}

// Whether the request's block, into which workers can write, still is one that a worker would take as this request.
bool LoopDispatcher::IsIntact(const Pending& pending) {
  const SharedMemory& memory = *pending.route->memory;
  RequestRecord* record = nullptr;
  return ReadRequestBlock(memory.base(), memory.size(), pending.block, pending.block_bytes, &record).ok() &&
         record->request == pending.name() && record->method == pending.method &&
         record->instances == pending.instances && record->inputs == pending.inputs() &&
         (pending.sink == nullptr || record->cancelled.load(std::memory_order_relaxed) == 0);
}

// The worker died, or will be ended, because of what it was doing for this instance, as far as is known. The block is
// intact.
void LoopDispatcher::Accuse(Pending* pending, uint32_t instance, uint64_t worker) {
  const size_t inputs = pending->inputs();
  const TensorRecord* tensors = pending->record()->tensors() + instance * inputs;
  views_.clear();
  for (size_t k = 0; k < inputs; ++k) {
    views_.push_back(ViewOf(pending->route->memory->base(), tensors[k]));
  }
  const std::string scope = pending->route->ScopeOf(pending->method);
  pending->suspects.resize(pending->instances);
  Suspicion& suspicion = pending->suspects[instance];
  if (suspicion.deaths == 0) {
    suspicion.fingerprint = limits_->suspects.FingerprintOf(scope, views_);
  }
  const uint32_t before = suspicion.deaths;
  suspicion.deaths = limits_->suspects.AddDeath(scope, views_, suspicion.fingerprint, worker);
  if (limits_->suspects.Refused(suspicion.deaths) && suspicion.deaths != before) {
    LogEvent(LogLevel::kError, "inputs_refused").With("method", scope).With("deaths", suspicion.deaths);
  }
}

// Of an extra worker's answer: instances whose model took device workers along.
void LoopDispatcher::AccuseLost(Pending* pending, const ReplyRecord& record, uint32_t first, uint32_t count) {
  bool intact = false;  // looked at once one is to be accused
  for (uint32_t i = 0; i < count; ++i) {
    if (record.instances()[i].error == 0) {
      continue;
    }
    for (const uint16_t device : pending->mark_of(first + i)->lost_with) {
      if (device == 0) {
        continue;
      }
      intact = intact || IsIntact(*pending);
      if (!intact) {
        return;
      }
      Accuse(pending, first + i, kLostDevice | device);
    }
  }
}

void LoopDispatcher::GiveUp(uint64_t worker, uint8_t running) {
  const auto found =
      std::find_if(links_.begin(), links_.end(), [worker](const auto& link) { return link->worker() == worker; });
  if (found == links_.end()) {
    return;
  }
  const std::shared_ptr<WorkerLink> link = *found;
  Poll(link.get());
  link->given_up = true;
  for (const auto& route : routes_) {
    std::erase(route->workers, link.get());
  }
  // By index: an answer may make room for the next request of its connection, which may add a slot.
  for (size_t i = 0; i < slots_.size(); ++i) {
    Pending* pending = &slots_[i];
    if (!pending->in_use || pending->link != link.get()) {
      continue;
    }
    uint32_t given_up = 0;
    bool intact = false;
    for (uint32_t instance = 0; instance < pending->instances; ++instance) {
      InstanceMark* mark = pending->mark_of(instance);
      if (running != 0 && mark->Running() == running) {
        intact = given_up == 0 ? IsIntact(*pending) : intact;
        if (intact) {
          Accuse(pending, instance, worker);
        }
        mark->order = static_cast<uint8_t>(InstanceOrder::kGivenUp);
        ++given_up;
      }
    }
    if (given_up > 0 && pending->sink != nullptr && pending->answered + given_up == pending->instances) {
      pending->given_up = true;
      pending->record()->cancelled.store(1, std::memory_order_relaxed);
      Deliver(pending, Status(ErrorKind::kTimedOut, std::string(kGivenUpText)));
    }
  }
}

void LoopDispatcher::RemoveWorker(uint64_t worker, const std::string& reason) {
  const auto found =
      std::find_if(links_.begin(), links_.end(), [worker](const auto& link) { return link->worker() == worker; });
  if (found == links_.end()) {
    return;
  }
  const std::shared_ptr<WorkerLink> link = *found;
  Poll(link.get());  // what it finished counts
  ForgetNewcomer(link.get());
  links_.erase(found);
  link->alive = false;
  for (const auto& route : routes_) {
    std::erase(route->workers, link.get());
  }
  // What only waited goes first, so that it is done before a suspect can end the next worker. By index: an answer may
  // make room for the next request of its connection, which may add a slot.
  std::vector<uint64_t> ran;
  for (size_t i = 0; i < slots_.size(); ++i) {
    Pending* pending = &slots_[i];
    if (!pending->in_use || pending->link != link.get()) {
      continue;
    }
    bool was_running = false;
    bool intact = false;
    for (uint32_t instance = 0; instance < pending->instances; ++instance) {
      if (pending->mark_of(instance)->Running() == 0) {
        continue;
      }
      intact = was_running ? intact : IsIntact(*pending);
      was_running = true;
      if (intact && !link->given_up) {  // else it is known what ended it
        Accuse(pending, instance, worker);
      }
    }
    if (was_running) {
      ran.push_back(pending->name());
    } else {
      Retry(pending, false, reason);
    }
  }
  for (const uint64_t name : ran) {
    if (Pending* pending = FindPending(name); pending != nullptr && pending->link == link.get()) {
      Retry(pending, true, reason);
    }
  }
}

void LoopDispatcher::Retry(Pending* pending, bool was_running, const std::string& reason) {
  if (pending->sink == nullptr) {
    FinishWithoutReply(pending);
    return;
  }
  if (!IsIntact(*pending)) {
    LogEvent(LogLevel::kError, "request_overwritten").With("method", pending->route->ScopeOf(pending->method));
    Deliver(pending, Status(ErrorKind::kInternal, std::string(kOverwrittenText) + reason));
    return;
  }
  const RequestRecord* record = pending->record();
  const bool may_run_again = !(was_running && pending->retried) && pending->moves < kMaxMoves &&
                             record->touched.load(std::memory_order_relaxed) == 0;
  WorkerLink* other = may_run_again ? LeastBusy(pending->route, pending->method, pending->link) : nullptr;
  if (other != nullptr) {
    OrderSuspects(pending);
    bool any_left = false;
    for (uint32_t i = 0; i < pending->instances; ++i) {
      InstanceMark* mark = pending->mark_of(i);
      mark->SetRunning(0);
      any_left = any_left || !(IsOrdered(mark, InstanceOrder::kRefuse) || IsOrdered(mark, InstanceOrder::kGivenUp));
    }
    if (any_left && other->Push(pending->name(), pending->block, pending->block_bytes)) {
      pending->parts.clear();  // the dead worker's segments go with its memory
      pending->answered = 0;
      pending->retried = pending->retried || was_running;
      ++pending->moves;
      pending->link = other;
      other->outstanding_instances += pending->instances;
      pending->given_ns = loop_->now_ns();
      other->estimate.OnGiven(pending->instances, pending->given_ns);
      ++other->outstanding_requests;
      stats_.redispatched.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }
  stats_.lost_worker.fetch_add(1, std::memory_order_relaxed);
  Deliver(pending, Status(ErrorKind::kWorkerUnavailable, reason));
}

}  // namespace msserving
