// Which requests the LoopDispatcher takes: who is asked for, how long it would wait, what is told to those refused.
#include <algorithm>
#include <string>
#include <utility>

#include "server/loop_dispatcher_state.h"

namespace msserving {

Status LoopDispatcher::Find(std::string_view servable, uint64_t version, std::string_view method, int64_t deadline_ns,
                            MethodTarget* target) {
  Route* found = nullptr;
  for (const auto& route : routes_) {
    if (route->signature.name != servable || route->workers.empty() || !route->open()) {
      continue;
    }
    if (version == 0 ? (found == nullptr || route->signature.version > found->signature.version)
                     : route->signature.version == version) {
      found = route.get();
    }
  }
  if (found == nullptr) {
    stats_.refused.fetch_add(1, std::memory_order_relaxed);
    const std::string name = "servable '" + std::string(servable) + "'";
    return Status(ErrorKind::kServableUnavailable,
                  version == 0 ? "servable is not available: no worker is ready for " + name
                               : "servable is not available: version " + std::to_string(version) + " of " + name +
                                     " is not available, no worker is ready for it");
  }
  const auto& methods = found->signature.methods;
  const auto known =
      std::find_if(methods.begin(), methods.end(), [method](const auto& one) { return one.name == method; });
  const auto number = static_cast<uint32_t>(known - methods.begin());
  const WorkerLink* link = known == methods.end() ? nullptr : LeastBusy(found, number, nullptr);
  if (Status status = Admit(link, deadline_ns); !status.ok()) {
    stats_.refused.fetch_add(1, std::memory_order_relaxed);
    return status;
  }
  if (known != methods.end()) {
    *target = {&*known, found, number};
    return Status::Ok();
  }
  return Status(ErrorKind::kMethodUnavailable, "method is not available: servable '" + std::string(servable) +
                                                   "' has no method '" + std::string(method) + "'");
}

ServableHealth LoopDispatcher::Health(std::string_view servable, uint64_t version) const {
  ServableHealth health = ServableHealth::kUnknown;
  for (const auto& route : routes_) {
    if (route->signature.name != servable || (version != 0 && route->signature.version != version)) {
      continue;
    }
    if (!route->workers.empty() && route->open()) {
      return ServableHealth::kServing;
    }
    health = ServableHealth::kNotServing;
  }
  return health;
}

bool LoopDispatcher::TooManyPending() const {
  return limits_->pending_requests.load(std::memory_order_relaxed) >=
         limits_->max_pending_requests.load(std::memory_order_relaxed);
}

Status LoopDispatcher::TooMany() const {
  return Status(ErrorKind::kOverloaded,
                "enqueued requests count exceeds the limit " +
                    std::to_string(limits_->max_pending_requests.load(std::memory_order_relaxed)));
}

Status LoopDispatcher::Full() {
  if (!TooManyPending()) {
    return Status::Ok();
  }
  // Whichever worker the request is for: the shortest queue counts.
  long_queue_ = std::all_of(links_.begin(), links_.end(),
                            [](const auto& link) { return link->estimate.WaitNs() >= kLongQueueNs; });
  stats_.refused.fetch_add(1, std::memory_order_relaxed);
  return TooMany();
}

Status LoopDispatcher::Admit(const WorkerLink* link, int64_t deadline_ns) {
  const int64_t wait_ns = link == nullptr ? 0 : link->estimate.WaitNs();
  long_queue_ = wait_ns >= kLongQueueNs;
  if (TooManyPending()) {
    return TooMany();
  }
  const int64_t max_ns = limits_->max_queue_ns.load(std::memory_order_relaxed);
  if (max_ns > 0 && wait_ns > max_ns) {
    return Status(ErrorKind::kOverloaded, "the request would wait longer than the limit of " +
                                              std::to_string(max_ns / kNanosPerMilli) + " ms; try again later");
  }
  // A quarter of the time is kept for the work itself and for what the estimate does not know.
  if (deadline_ns != kNoDeadline && wait_ns > 0 && wait_ns > (deadline_ns - loop_->now_ns()) / 4 * 3) {
    return Status(ErrorKind::kOverloaded, "the request would wait longer than its deadline allows; try again later");
  }
  return Status::Ok();
}

WorkerLink* LoopDispatcher::LeastBusy(Route* route, uint32_t method, const WorkerLink* except) {
  const MethodSignature& signature = route->signature.methods[method];
  WorkerLink* best = nullptr;
  bool device = false;
  for (WorkerLink* link : route->workers) {
    if (link == except || (link->extra && !signature.has_python)) {
      continue;
    }
    device = device || !link->extra;
    if (best == nullptr || link->outstanding_instances < best->outstanding_instances) {
      best = link;
    }
  }
  return device || !signature.has_model ? best : nullptr;
}

}  // namespace msserving
