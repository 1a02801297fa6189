// One event loop's half of its channel to one worker process.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"
#include "server/queue_estimate.h"
#include "tensor/exchange.h"
#include "tensor/ring.h"
#include "tensor/shared_memory.h"

namespace msserving {

// What a worker and the loop share, made before the worker starts. Handed to the loop when the worker is ready.
struct WorkerChannel {
  SharedMemory control;
  SharedMemory replies;
};

// Blocks from this size on are worth a system call to give their pages back once all is idle.
inline constexpr uint64_t kWorthGivingBack = uint64_t{1} << 20;

// Everything on the loop's thread. Reply blocks that a reply still uses keep the link alive after the worker's death
// (shared_ptr), so that a slow client can still be sent what a dead worker has answered.
class WorkerLink : public std::enable_shared_from_this<WorkerLink> {
 public:
  WorkerLink(uint64_t worker, WorkerChannel channel, UniqueFd worker_doorbell);

  uint64_t worker() const { return worker_; }

  // Queues a request block for the worker. False: the ring is full. The doorbell waits for RingDoorbell().
  bool Push(uint64_t request, uint64_t offset, uint64_t bytes);
  // Wakes the worker if it sleeps and waits for what was pushed or released since the last call.
  void RingDoorbell();

  struct Segment {
    uint64_t request;
    uint64_t offset;
    const ReplyRecord* record;  // null: the block was damaged
  };
  // Takes the next reply segment; false if there is none now.
  bool Pop(Segment* segment);
  // The loop needs this reply block no more.
  void Release(uint64_t offset);

  bool Empty() const { return replies_.Empty(); }
  // Before the loop blocks. True: nothing waits to be read.
  bool ArmAndCheckEmpty();
  void Disarm() { replies_.DisarmDoorbell(); }
  // The worker has written nonsense into the ring's indices.
  bool broken() const { return replies_.broken(); }

  const uint8_t* reply_slab() const { return channel_.replies.base(); }

  // Gives the reply memory's pages back to the system if no request is with the worker and no reply block is in use.
  void DiscardIdleMemory();

  uint64_t outstanding_instances = 0;  // pushed and not yet answered
  QueueEstimate estimate;
  uint64_t outstanding_requests = 0;
  bool alive = true;
  bool extra = false;     // it runs Python stages alone and has device workers run the models
  bool given_up = false;  // it is being ended: see LoopDispatcher::GiveUp()

 private:
  void RetryReleases();

  uint64_t worker_;
  WorkerChannel channel_;
  UniqueFd worker_doorbell_;
  RingProducer requests_;
  RingConsumer replies_;
  RingProducer releases_;
  std::vector<uint64_t> unreleased_;  // did not fit into the release ring yet
  uint64_t blocks_ = 0;               // reply blocks taken and not yet released
  uint64_t largest_block_ = 0;        // since the memory was last given back
  bool pushed_ = false;
  bool released_ = false;
};

}  // namespace msserving
