// Workers that have said that they are ready: they take no requests until a probe has come back and they may join.
#include <algorithm>
#include <string>
#include <utility>

#include "server/loop_dispatcher_state.h"

namespace msserving {

LoopDispatcher::Newcomer* LoopDispatcher::FindNewcomer(uint64_t worker) {
  const auto found = std::find_if(newcomers_.begin(), newcomers_.end(),
                                  [worker](const Newcomer& one) { return one.link->worker() == worker; });
  return found == newcomers_.end() ? nullptr : &*found;
}

void LoopDispatcher::ProbeWorker(uint64_t worker, std::function<void(const Status&)> answered) {
  if (Newcomer* newcomer = FindNewcomer(worker); newcomer != nullptr) {
    newcomer->answered = std::move(answered);
    SendProbe(newcomer);
  }
}

// Without room in the request memory the probe waits for the next wake-up: requests that end bring both.
void LoopDispatcher::SendProbe(Newcomer* newcomer) {
  if (!newcomer->answered || newcomer->block != SlabAllocator::kNone) {
    return;
  }
  Route* route = newcomer->route;
  const uint64_t bytes = RequestBlockBytes({});
  const uint64_t offset = route->slab.Allocate(bytes);
  if (offset == SlabAllocator::kNone) {
    return;
  }
  WriteRequestBlock(route->memory->base(), offset, kProbeRequest, kNoDeadline, kProbeMethod, 1, 0, {});
  newcomer->block = offset;
  newcomer->link->Push(kProbeRequest, offset, bytes);  // its ring is empty
  ++newcomer->link->outstanding_requests;
}

void LoopDispatcher::EndProbe(WorkerLink* link, const WorkerLink::Segment& segment) {
  Newcomer* newcomer = FindNewcomer(link->worker());
  if (newcomer == nullptr || newcomer->block == SlabAllocator::kNone) {
    return;  // it was not asked
  }
  Status status;
  if (segment.record == nullptr || segment.record->count != 1 || segment.record->outputs != 0) {
    status = Status(ErrorKind::kInternal, "the answer is damaged");
  } else if (const InstanceRecord& outcome = segment.record->instances()[0]; outcome.error != 0) {
    status = Status(
        static_cast<ErrorKind>(outcome.error),
        std::string(reinterpret_cast<const char*>(link->reply_slab()) + outcome.message_offset, outcome.message_bytes));
  }
  newcomer->route->slab.Free(std::exchange(newcomer->block, SlabAllocator::kNone));
  --link->outstanding_requests;
  std::exchange(newcomer->answered, nullptr)(status);
}

void LoopDispatcher::JoinWorker(uint64_t worker) {
  if (Newcomer* newcomer = FindNewcomer(worker); newcomer != nullptr) {
    newcomer->route->workers.push_back(newcomer->link);
    ForgetNewcomer(newcomer->link);
  }
}

// The worker has died or joined.
void LoopDispatcher::ForgetNewcomer(const WorkerLink* link) {
  std::erase_if(newcomers_, [link](const Newcomer& newcomer) {
    if (newcomer.link != link) {
      return false;
    }
    if (newcomer.block != SlabAllocator::kNone) {
      newcomer.route->slab.Free(newcomer.block);
    }
    return true;
  });
}

}  // namespace msserving
