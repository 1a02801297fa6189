// What an event loop of the server and a worker process say to each other through shared memory.
//
// For each pair of (event loop, worker) there is a channel:
//   control memory   a memfd with three rings: requests (server -> worker), replies (worker -> server),
//                    releases (server -> worker: reply blocks the server is done with)
//   reply slab       a memfd in which the worker allocates reply blocks and the server only reads
// and for each pair of (event loop, servable version) a
//   request slab     a memfd in which the server allocates request blocks; every worker of the version maps it, so
//                    that a request can be given to another worker without being copied
//
// A request is one block: RequestRecord, then instances x inputs TensorRecords, then the tensors' bytes, each at a
// multiple of 64. The worker answers with one or more reply blocks (segments), each for a run of instances of one
// request; together they cover every instance exactly once, in any order.
// A reply block: ReplyRecord, then count InstanceRecords, then count x outputs TensorRecords, then bytes.
// Offsets are from the start of the slab. Each side checks every offset, size and count of the other before use.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "tensor/ring.h"
#include "tensor/shared_memory.h"
#include "tensor/tensor_view.h"

namespace msserving {

inline constexpr uint64_t kTensorAlignment = 64;
inline constexpr uint32_t kRequestRingCapacity = 16'384;
inline constexpr uint32_t kReplyRingCapacity = 16'384;
inline constexpr uint32_t kReleaseRingCapacity = 32'768;

constexpr size_t WholePages(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

// Calls with a time-out that a worker watches at a time; further ones have none.
inline constexpr uint32_t kTimedSlots = 64;

// What a worker tells the supervisor, in the control memory of its first channel. Written by the worker alone.
struct WorkerBoard {
  std::atomic<uint64_t> beats;  // rises while the process runs at all, whatever its stages do
  // By slot: the time (CLOCK_MONOTONIC) at which what is being run has taken longer than its method allows; 0: nothing.
  std::atomic<int64_t> limit_ns[kTimedSlots];
};

// RequestRecord::method of a probe, a request of one instance without inputs: it takes the way of any other through the
// worker's lanes, of an extra worker through a device worker too, runs nothing of the user's, and comes back without
// outputs.
inline constexpr uint32_t kProbeMethod = UINT32_MAX;

// InstanceMark::running.
inline constexpr uint8_t kRunningMark = 1;
inline constexpr uint8_t kFirstTimedMark = 2;  // plus the slot, if the instance's method has a time-out

// Control memory: the three rings one after the other, each at the start of a page, then the board.
struct ChannelLayout {
  static constexpr size_t kRequests = 0;
  static constexpr size_t kReplies = WholePages(RingBytes(kRequestRingCapacity));
  static constexpr size_t kReleases = kReplies + WholePages(RingBytes(kReplyRingCapacity));
  static constexpr size_t kBoard = kReleases + WholePages(RingBytes(kReleaseRingCapacity));
  static constexpr size_t kBytes = kBoard + WholePages(sizeof(WorkerBoard));
};

// Maps the control memory of a channel, which another process has made; fails if it is smaller than the layout.
Status MapControlMemory(UniqueFd fd, SharedMemory* memory);

// What the server tells the worker about one instance of a request.
enum class InstanceOrder : uint8_t {
  kRun,
  kRunAlone,  // it was being run when a worker died: no other instance shares its run
  kRefuse,    // workers died on it too often: it is answered with kRefusedText
  kGivenUp,   // it took longer than its method allows: it is answered with kGivenUpText
};
inline constexpr std::string_view kRefusedText =
    "this instance is refused for some minutes: worker processes have died while they ran it";
inline constexpr std::string_view kGivenUpText =
    "the time-out of the method passed while this instance was being run; its worker process is ended and started "
    "again";

// One per instance: in the record of its first tensor, or in the request's if the method has no inputs.
struct InstanceMark {
  static constexpr size_t kMaxLost = 2;
  uint8_t order;    // an InstanceOrder; the server's, written before the block is handed over
  uint8_t running;  // whether user code or the model is being run for it: kRunningMark or more; 0: not. The
                    // worker's; the server reads it when the worker has died or is being ended
  // An extra worker's: the device workers (ShortName()) that died while they ran the instance; 0: none.
  uint16_t lost_with[kMaxLost];

  // A short name for a worker process, never 0.
  static uint16_t ShortName(uint64_t process) { return static_cast<uint16_t>(process % UINT16_MAX + 1); }
  void AddLost(uint16_t device) {
    if (lost_with[0] != device) {
      lost_with[lost_with[0] != 0 ? 1 : 0] = device;
    }
  }
  bool WasLost() const { return lost_with[0] != 0; }
  void SetRunning(uint8_t value) { std::atomic_ref<uint8_t>(running).store(value, std::memory_order_relaxed); }
  uint8_t Running() { return std::atomic_ref<uint8_t>(running).load(std::memory_order_relaxed); }
};

struct TensorRecord {
  uint64_t offset;  // in the slab
  uint64_t bytes;
  uint8_t dtype;
  uint8_t rank;
  InstanceMark mark;       // of the instance that begins with this tensor
  int64_t dims[kMaxRank];  // only `rank` of them are written
};

struct RequestRecord {
  uint64_t request;                 // the server's name for it
  int64_t deadline_ns;              // CLOCK_MONOTONIC; kNoDeadline if none
  int64_t timeout_ns;               // of rows from an extra worker: what one run may take; 0: as the method says
  uint32_t method;                  // index in the worker's ServableSignature; kProbeMethod
  uint32_t instances;               // at least 1
  uint32_t inputs;                  // of the method
  std::atomic<uint32_t> cancelled;  // set by the server at any time: nobody waits for the answer any more
  std::atomic<uint32_t> touched;    // set by the worker before user code may write into this block: not to be run again
  InstanceMark mark;                // of the one instance that a method without inputs has
  uint16_t unused;

  // For a reader that has checked the block.
  InstanceMark* mark_of(uint32_t instance) { return mark_of(instance, inputs); }
  // For the server, which wrote the block and may find it overwritten: `known` is the number of the method's inputs.
  InstanceMark* mark_of(uint32_t instance, size_t known) {
    return known > 0 ? &tensors()[instance * known].mark : &mark;
  }
  TensorRecord* tensors() { return reinterpret_cast<TensorRecord*>(this + 1); }
  const TensorRecord* tensors() const { return reinterpret_cast<const TensorRecord*>(this + 1); }
};

struct InstanceRecord {
  uint32_t error;          // ErrorKind
  uint32_t message_bytes;  // 0 if there is none
  uint64_t message_offset;
};

struct ReplyRecord {
  uint64_t request;
  uint32_t first;    // instance of the request
  uint32_t count;    // at least 1
  uint32_t outputs;  // of the method
  uint32_t unused;

  InstanceRecord* instances() { return reinterpret_cast<InstanceRecord*>(this + 1); }
  const InstanceRecord* instances() const { return reinterpret_cast<const InstanceRecord*>(this + 1); }
  TensorRecord* tensors() { return reinterpret_cast<TensorRecord*>(instances() + count); }
  const TensorRecord* tensors() const { return reinterpret_cast<const TensorRecord*>(instances() + count); }
};

// Ring entries. words[0] is the request, words[1] the block's offset in its slab, words[2] the block's bytes.
// A release entry has only words[1].
inline RingEntry MakeEntry(uint64_t request, uint64_t offset, uint64_t bytes) { return {{request, offset, bytes, 0}}; }

// The size of a request block for these tensors, or 0 if it does not fit in 63 bits.
uint64_t RequestBlockBytes(std::span<const TensorView> tensors);
// Writes a whole request block at slab + offset (RequestBlockBytes() bytes of room).
void WriteRequestBlock(uint8_t* slab, uint64_t offset, uint64_t request, int64_t deadline_ns, uint32_t method,
                       uint32_t instances, uint32_t inputs, std::span<const TensorView> tensors);

// The other side's words are checked: everything lies inside the block, dtypes and ranks exist, bytes fit the shape.
// On success *record points into the slab.
Status ReadRequestBlock(uint8_t* slab, uint64_t slab_bytes, uint64_t offset, uint64_t bytes, RequestRecord** record);
Status ReadReplyBlock(const uint8_t* slab, uint64_t slab_bytes, uint64_t offset, uint64_t bytes,
                      const ReplyRecord** record);

// One record as a view, after its block has been checked. A rank that has changed since is cut to kMaxRank.
TensorView ViewOf(const uint8_t* slab, const TensorRecord& record);

}  // namespace msserving
