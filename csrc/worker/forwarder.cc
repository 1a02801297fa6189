#include "worker/forwarder.h"

#include <algorithm>
#include <utility>

namespace msserving {
namespace {

// Of one device worker before the next one has its turn.
constexpr int kAnswersATurn = 256;
constexpr uint64_t kWorthGivingBack = uint64_t{1} << 20;
// A group that only waited in dead device workers goes on to the next so often.
constexpr uint8_t kMaxMoves = 16;
constexpr std::string_view kRanLast = "the device worker ended while it had the model's inputs";

}  // namespace

void Forwarder::Remove(uint64_t device, uint8_t given_up) {
  for (const auto& link : links_) {
    if (link->device() == device) {
      link->gone = true;
      link->given_up = given_up;
    }
  }
}

bool Forwarder::AnyDevice() const { return LeastBusy() != nullptr; }

DeviceLink* Forwarder::LeastBusy() const {
  DeviceLink* best = nullptr;
  for (const auto& link : links_) {
    if (!link->gone && (best == nullptr || link->rows < best->rows)) {
      best = link.get();
    }
  }
  return best;
}

size_t Forwarder::Share(size_t rows, uint32_t max_batch) const {
  const auto devices = std::count_if(links_.begin(), links_.end(), [](const auto& link) { return !link->gone; });
  return devices > 1 ? std::min<size_t>(rows, max_batch) : rows;
}

ForwardedGroup* Forwarder::Reserve(uint64_t bytes) {
  const uint64_t offset = bytes == 0 ? SlabAllocator::kNone : slab_.Allocate(bytes);
  if (offset == SlabAllocator::kNone) {
    return nullptr;
  }
  if (free_groups_.empty()) {
    groups_.emplace_back();
    groups_.back().slot = static_cast<uint32_t>(groups_.size() - 1);
    free_groups_.push_back(groups_.back().slot);
  }
  ForwardedGroup* group = &groups_[free_groups_.back()];
  free_groups_.pop_back();
  group->in_use = true;
  group->moves = 0;
  group->link = nullptr;
  group->offset = offset;
  group->bytes = bytes;
  largest_block_ = std::max(largest_block_, bytes);
  return group;
}

DeviceLink* Forwarder::Send(ForwardedGroup* group, std::span<Instance* const> rows, uint32_t outputs) {
  DeviceLink* link = LeastBusy();
  if (link == nullptr || !link->Push(group->name(), group->offset, group->bytes)) {
    Free(group);
    return nullptr;
  }
  group->link = link;
  group->rows.assign(rows.begin(), rows.end());
  group->left = static_cast<uint32_t>(rows.size());
  group->outputs = outputs;
  link->rows += rows.size();
  rows_out_ += rows.size();
  return link;
}

ForwardedGroup* Forwarder::Find(uint64_t name) {
  const auto slot = static_cast<uint32_t>(name);
  if (slot >= groups_.size() || !groups_[slot].in_use || groups_[slot].name() != name) {
    return nullptr;
  }
  return &groups_[slot];
}

void Forwarder::Free(ForwardedGroup* group) {
  slab_.Free(group->offset);
  group->in_use = false;
  group->link = nullptr;
  group->rows.clear();
  ++group->generation;
  free_groups_.push_back(group->slot);
  room_ = true;
}

void Forwarder::Collect(ForwardedNews* news) {
  for (size_t i = 0; i < links_.size();) {
    const std::shared_ptr<DeviceLink> link = links_[i];
    DeviceLink::Answer answer;
    int taken = 0;
    while (taken < kAnswersATurn && link->Pop(&answer)) {
      Take(link, answer, news);
      ++taken;
    }
    if (link->gone && taken < kAnswersATurn) {
      links_.erase(links_.begin() + static_cast<std::ptrdiff_t>(i));
      Rescue(link.get(), news);
      continue;
    }
    ++i;
  }
}

void Forwarder::Take(const std::shared_ptr<DeviceLink>& link, const DeviceLink::Answer& answer, ForwardedNews* news) {
  ForwardedGroup* group = Find(answer.group);
  if (group == nullptr || group->link != link.get()) {
    link->Release(answer.offset);
    return;
  }
  const ReplyRecord* record = answer.record;
  bool fits =
      record != nullptr && record->first < group->rows.size() && record->count <= group->rows.size() - record->first;
  for (uint32_t i = 0; fits && i < record->count; ++i) {
    fits = record->outputs == group->outputs || record->instances()[i].error != 0;
  }
  if (!fits) {
    link->Release(answer.offset);
    Lose(group, ErrorKind::kInternal, "the device worker's answer is damaged", news);
    return;
  }
  news->answers.push_back({link, answer.offset, record, news->rows.size(), record->count});
  for (uint32_t i = 0; i < record->count; ++i) {
    Instance* row = std::exchange(group->rows[record->first + i], nullptr);
    news->rows.push_back(row);
    if (row != nullptr) {
      row->queued = false;
      --group->left;
      --link->rows;
      --rows_out_;
    }
  }
  if (group->left == 0) {
    Free(group);
  }
}

// What only waited goes first, so that it is done before a suspect can end the next device worker.
void Forwarder::Rescue(DeviceLink* link, ForwardedNews* news) {
  std::vector<ForwardedGroup*> ran;
  for (ForwardedGroup& group : groups_) {
    if (!group.in_use || group.link != link) {
      continue;
    }
    if (Accuse(&group, news)) {
      ran.push_back(&group);
    } else {
      Move(&group, news);
    }
  }
  for (ForwardedGroup* group : ran) {
    Move(group, news);
  }
}

// True if rows of the group were being run. Those that may not be run again are failed.
bool Forwarder::Accuse(ForwardedGroup* group, ForwardedNews* news) {
  const uint16_t device = InstanceMark::ShortName(group->link->device());
  const uint8_t given_up = group->link->given_up;
  RequestRecord* record = RecordOf(*group);
  bool any = false;
  for (uint32_t i = 0; i < group->rows.size(); ++i) {
    InstanceMark* mark = record->mark_of(i);
    const uint8_t running = mark->Running();
    mark->SetRunning(0);
    if (group->rows[i] == nullptr || running == 0) {
      continue;
    }
    any = true;
    if (given_up != 0 && running != given_up) {
      continue;  // it is known what ended the worker
    }
    mark->AddLost(device);
    mark->order = static_cast<uint8_t>(InstanceOrder::kRunAlone);
    if (given_up != 0) {
      LoseRow(group, i, ErrorKind::kTimedOut, kGivenUpText, news);
    } else if (mark->lost_with[InstanceMark::kMaxLost - 1] != 0) {
      LoseRow(group, i, ErrorKind::kWorkerUnavailable, kRanLast, news);
    }
  }
  return any;
}

void Forwarder::Move(ForwardedGroup* group, ForwardedNews* news) {
  if (group->left == 0) {
    Free(group);
    return;
  }
  DeviceLink* other = group->moves < kMaxMoves ? LeastBusy() : nullptr;
  if (other == nullptr || !other->Push(group->name(), group->offset, group->bytes)) {
    Lose(group, ErrorKind::kWorkerUnavailable, kRanLast, news);
    return;
  }
  ++group->moves;
  group->link = other;
  other->rows += group->left;
}

void Forwarder::LoseRow(ForwardedGroup* group, uint32_t number, ErrorKind kind, std::string_view why,
                        ForwardedNews* news) {
  Instance* row = std::exchange(group->rows[number], nullptr);
  InstanceMark* mark = RecordOf(*group)->mark_of(number);
  mark->order = static_cast<uint8_t>(InstanceOrder::kRefuse);  // if the rest of the group is run elsewhere
  for (const uint16_t device : mark->lost_with) {
    if (device != 0) {
      row->AddLost(device);
    }
  }
  row->queued = false;
  row->Fail(kind, why);
  news->lost.push_back(row);
  --group->link->rows;
  --group->left;
  --rows_out_;
}

// All rows that are left.
void Forwarder::Lose(ForwardedGroup* group, ErrorKind kind, std::string_view why, ForwardedNews* news) {
  for (uint32_t i = 0; i < group->rows.size(); ++i) {
    if (group->rows[i] != nullptr) {
      LoseRow(group, i, kind, why, news);
    }
  }
  Free(group);
}

bool Forwarder::HasNews() const {
  return std::any_of(links_.begin(), links_.end(), [](const auto& link) { return link->gone || link->HasAnswers(); });
}

void Forwarder::Release(const ForwardedNews& news) {
  for (const ForwardedAnswer& answer : news.answers) {
    if (!answer.link->gone) {
      answer.link->Release(answer.offset);
    }
  }
}

void Forwarder::Arm() {
  for (const auto& link : links_) {
    link->Arm();
  }
}

void Forwarder::Disarm() {
  for (const auto& link : links_) {
    link->Disarm();
  }
}

void Forwarder::DoorbellsDue(std::vector<std::shared_ptr<DeviceLink>>* links) {
  for (const auto& link : links_) {
    if (!link->gone && link->DoorbellDue()) {
      links->push_back(link);
    }
  }
}

void Forwarder::DiscardIdleMemory() {
  if (slab_.blocks() == 0 && largest_block_ >= kWorthGivingBack) {
    memory_.Discard(0, memory_.size());
    largest_block_ = 0;
  }
}

}  // namespace msserving
