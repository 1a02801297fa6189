// What an extra worker has handed to device workers: where the rows of each group lie, and who has them.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "tensor/slab.h"
#include "worker/device_link.h"
#include "worker/method_plan.h"

namespace msserving {

// How a group names what is to be run, as RequestRecord::method of a channel between an extra and a device worker.
constexpr uint32_t ForwardedMethod(uint32_t model, uint32_t subgraph) { return model << 16 | subgraph; }

// Rows that were sent together, in one block, to be run by one model.
struct ForwardedGroup {
  uint32_t slot = 0;
  uint32_t generation = 1;
  bool in_use = false;
  uint8_t moves = 0;           // from a dead device worker to another
  DeviceLink* link = nullptr;  // null: not sent yet
  uint32_t left = 0;           // rows not answered
  uint32_t outputs = 0;        // of the model
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::vector<Instance*> rows;  // null: answered

  uint64_t name() const { return uint64_t{generation} << 32 | slot; }
};

// One reply block that is being read. Its rows are `count` entries of ForwardedNews::rows from `begin` on.
struct ForwardedAnswer {
  std::shared_ptr<DeviceLink> link;
  uint64_t offset;
  const ReplyRecord* record;
  size_t begin;
  uint32_t count;
};

// What Collect() found.
struct ForwardedNews {
  std::vector<ForwardedAnswer> answers;
  std::vector<Instance*> rows;  // null: answered before, by a device worker that died then
  std::vector<Instance*> lost;  // failed, with the reason in them

  bool empty() const { return answers.empty() && lost.empty(); }
  void Clear() {
    answers.clear();
    rows.clear();
    lost.clear();
  }
};

// Groups lie in memory that all device workers of the version have mapped, so that a group can be given to another
// device worker without being copied. Rows that only waited in a dead device worker move on freely; those that it was
// running (InstanceMark) do so once, alone, and fail when a second one dies of them, as do rows for which there is no
// other. With whom a failed row was run is left in its instance's mark, for the server to remember.
// Guarded by the executor's lock, except memory(). Groups are pooled: the steady state allocates nothing.
class Forwarder {
 public:
  // `memory`: what the server has made for this extra worker.
  explicit Forwarder(SharedMemory memory) : memory_(std::move(memory)), slab_(memory_.size()) {}

  void Add(std::shared_ptr<DeviceLink> link) { links_.push_back(std::move(link)); }
  // The device worker has died. Collect() sees to what it had. `given_up`: if not 0, it was ended because what it ran
  // with this mark (InstanceMark::running) took too long: those rows fail with kTimedOut.
  void Remove(uint64_t device, uint8_t given_up);

  // Some device worker is there.
  bool AnyDevice() const;
  // How many of `rows` go to one device worker, given what one run of the model takes.
  size_t Share(size_t rows, uint32_t max_batch) const;

  // Room for a block; null: none now. Fits() says whether there ever will be.
  ForwardedGroup* Reserve(uint64_t bytes);
  bool Fits() const { return slab_.blocks() > 0; }
  // The written block of `rows` goes to the least busy device worker. Null, and the group is gone: none is there, or
  // their rings are full.
  DeviceLink* Send(ForwardedGroup* group, std::span<Instance* const> rows, uint32_t outputs);

  // Answers that have come, and rows that were lost.
  void Collect(ForwardedNews* news);
  bool HasNews() const;
  // The answers have been read.
  void Release(const ForwardedNews& news);

  // Room has come since the last call.
  bool TakeRoom() { return std::exchange(room_, false); }

  void Arm();
  void Disarm();
  // Those whose doorbell is due.
  void DoorbellsDue(std::vector<std::shared_ptr<DeviceLink>>* links);

  uint8_t* memory() const { return memory_.base(); }
  uint64_t memory_bytes() const { return memory_.size(); }
  uint64_t used_blocks() const { return slab_.blocks(); }
  uint64_t rows_out() const { return rows_out_; }
  // Gives the memory's pages back to the system if large blocks were used and none is now.
  void DiscardIdleMemory();

 private:
  DeviceLink* LeastBusy() const;
  ForwardedGroup* Find(uint64_t name);
  void Free(ForwardedGroup* group);
  void Take(const std::shared_ptr<DeviceLink>& link, const DeviceLink::Answer& answer, ForwardedNews* news);
  void Rescue(DeviceLink* link, ForwardedNews* news);
  bool Accuse(ForwardedGroup* group, ForwardedNews* news);
  void Move(ForwardedGroup* group, ForwardedNews* news);
  void LoseRow(ForwardedGroup* group, uint32_t row, ErrorKind kind, std::string_view why, ForwardedNews* news);
  RequestRecord* RecordOf(const ForwardedGroup& group) {
    return reinterpret_cast<RequestRecord*>(memory_.base() + group.offset);
  }
  void Lose(ForwardedGroup* group, ErrorKind kind, std::string_view why, ForwardedNews* news);

  SharedMemory memory_;
  SlabAllocator slab_;
  std::vector<std::shared_ptr<DeviceLink>> links_;
  std::deque<ForwardedGroup> groups_;  // stable addresses
  std::vector<uint32_t> free_groups_;
  uint64_t rows_out_ = 0;
  uint64_t largest_block_ = 0;
  bool room_ = false;
};

}  // namespace msserving
