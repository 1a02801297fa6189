#include "distributed/rank_runner.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tensor/control_socket.h"

namespace msserving {
namespace {

constexpr uint32_t kMaxBareAnswer = 4 * kMaxSmallFrame;  // shapes, or a reason

constexpr char kBoardMessage = 'B';

// What outputs of a known shape can take at most.
uint32_t AnswerLimit(const RankDescription& rank) {
  uint64_t most = 0;
  for (const RankModel& model : rank.models) {
    uint64_t bytes = kMaxBareAnswer;
    for (const TensorInfo& output : model.info.outputs) {
      uint64_t elements = 1;
      for (int d = 0; d < output.rank; ++d) {
        int64_t dim = output.dims[static_cast<size_t>(d)];
        if (d == 0 && !model.info.batch_sizes.empty()) {
          dim = std::max(dim, model.info.batch_sizes.back());
        }
        if (dim < 0 || elements > kMaxRunFrame) {
          return kMaxRunFrame;
        }
        elements *= static_cast<uint64_t>(std::max<int64_t>(dim, 1));
      }
      if (output.rank < 0 || elements > kMaxRunFrame) {
        return kMaxRunFrame;
      }
      bytes += elements * ItemSize(output.dtype) + 256;
    }
    most = std::max(most, bytes);
  }
  return static_cast<uint32_t>(std::min<uint64_t>(most, kMaxRunFrame));
}

}  // namespace

RankRunner::RankRunner(EventLoop* loop, std::vector<RunnerRank> ranks, const RankRunnerOptions& options,
                       std::function<void(const std::string&, int)> on_trouble)
    : loop_(*loop),
      ranks_(std::move(ranks)),
      options_(options),
      on_trouble_(std::move(on_trouble)),
      slots_(ranks_.size()),
      places_(options.pipeline ? std::clamp<uint32_t>(options.stage_size, 1, kMaxRunsOut) : 1),
      outputs_(static_cast<uint32_t>(places_.size())),
      sent_(ranks_.size()) {
  uint32_t number = 0;
  for (Place& place : places_) {
    place.number = number++;
    place.bell = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
}

RankRunner::~RankRunner() = default;

Status RankRunner::Begin() {
  BoardShape shape;
  shape.runs = places();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    for (const RankModel& model : ranks_[i].description.models) {
      shape.max_inputs = std::max(shape.max_inputs, static_cast<uint32_t>(model.info.inputs.size()));
      shape.max_outputs = std::max(shape.max_outputs, static_cast<uint32_t>(model.info.outputs.size()));
    }
    if (IsLocal(i)) {
      slots_[i] = shape.slots++;
      has_local_ = true;
    } else {
      has_remote_ = true;
    }
  }
  std::vector<int> shared;  // the board and the bells
  for (Place& place : places_) {
    if (!place.bell) {
      return Status(ErrorKind::kInternal, std::string("eventfd: ") + std::strerror(errno));
    }
    while (has_remote_ && place.remotes.size() < ranks_.size()) {
      place.remotes.emplace_back();
    }
    shared.push_back(place.bell.get());
  }
  SharedMemory memory;
  if (Status status = SharedMemory::Create("msserving-ranks", shape.Bytes(), &memory); !status.ok()) {
    return status;
  }
  if (Status status = LocalBoard::Open(std::move(memory), shape, &board_); !status.ok()) {
    return status;
  }
  shared.insert(shared.begin(), board_.fd());
  for (size_t i = 0; i < ranks_.size(); ++i) {
    RunnerRank& rank = ranks_[i];
    if (IsLocal(i)) {
      if (Status status = SendControl(rank.socket.get(), kBoardMessage, "", shared); !status.ok()) {
        return status;
      }
    }
    FrameWriter begin;
    begin.U8(IsLocal(i) ? 1 : 0);
    begin.U32(shape.slots);
    begin.U32(shape.runs);
    begin.U32(shape.max_inputs);
    begin.U32(shape.max_outputs);
    begin.U32(slots_[i]);
    rank.connection->Send(FrameKind::kBegin, begin.body());
    const bool answers = i + 1 == ranks_.size();
    rank.connection->set_max_body(answers && !IsLocal(i) ? AnswerLimit(rank.description) : kMaxBareAnswer);
  }
  return Status::Ok();
}

void RankRunner::Fail(const std::string& why) {
  {
    std::lock_guard lock(why_mutex_);
    why_ = why;
  }
  failed_.store(true, std::memory_order_release);
  for (const Place& place : places_) {
    eventfd_write(place.bell.get(), 1);
  }
}

Status RankRunner::Lost() {
  std::lock_guard lock(why_mutex_);
  return Status(ErrorKind::kWorkerUnavailable, why_);
}

// For ever, or until it has been rung or the time is over.
void RankRunner::WaitForBell(const Place& place, const timespec* at_most) {
  pollfd watched{place.bell.get(), POLLIN, 0};
  if (ppoll(&watched, 1, at_most, nullptr) > 0) {
    eventfd_t count;
    eventfd_read(place.bell.get(), &count);
  }
}

// The group cannot go on. The loop ends the connections, so that nothing points to the inputs any more, and says so.
// All runs that are out fail with what was said first.
Status RankRunner::Lose(const Place& place, const std::string& why, int rank) {
  loop_.Post([this, why, rank] { on_trouble_(why, rank); });
  while (!failed_.load(std::memory_order_acquire)) {
    WaitForBell(place, nullptr);
  }
  return Lost();
}

Status RankRunner::Run(uint32_t number, uint32_t subgraph, std::span<const MsServingTensor> inputs,
                       std::span<MsServingTensor> outputs) {
  Place& place = places_[number];
  std::lock_guard lock(place.mutex);
  if (failed_.load(std::memory_order_acquire)) {
    return Lost();
  }
  if (Status status = Order(&place, subgraph, inputs); !status.ok()) {
    return status;
  }
  switch (WaitForRanks(place)) {
    case Wait::kAll: NoteEnd(place); return Collect(&place, outputs);
    case Wait::kLost: return Lost();
    case Wait::kSome: break;
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    bool failed = false;
    if (HasAnswered(place, i, &failed) && failed) {
      return Lose(place, FailureOf(place, i) + "; " + Unanswered(place) + " did not finish", static_cast<int>(i));
    }
  }
  return Lose(place, Unanswered(place) + " did not answer within " +
                         std::to_string(options_.rank_timeout_ns / kNanosPerMilli) + " ms (rank_timeout_seconds)");
}

// Nothing is ordered if this fails.
Status RankRunner::Order(Place* place, uint32_t subgraph, std::span<const MsServingTensor> inputs) {
  if (has_local_) {
    BoardTensor* placed = board_.inputs(place->number);
    if (Status status = place->inputs.Place(inputs, placed); !status.ok()) {
      return status;
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].bytes > 0) {
        std::memcpy(place->inputs.base() + placed[i].offset, inputs[i].data, inputs[i].bytes);
      }
    }
  }
  place->subgraph = subgraph;
  place->run_inputs = inputs;
  BoardOrder& order = board_.order(place->number);
  order.subgraph = subgraph;
  order.answering_rank = static_cast<uint32_t>(ranks_.size() - 1);
  order.inputs = static_cast<uint32_t>(inputs.size());
  order.input_generation = place->inputs.generation();
  order.left.store(static_cast<uint32_t>(ranks_.size()), std::memory_order_relaxed);
  std::unique_lock lock(order_mutex_);
  if (place->inputs.generation() != place->sent_generation) {
    if (Status status = SendInputMemory(place); !status.ok()) {
      lock.unlock();
      return Lose(*place, status.message());
    }
  }
  place->seq = ++seq_;
  place->ordered_ns = RealClock().NowNs();
  BoardHead& head = board_.head();
  head.places[seq_ % places_.size()] = static_cast<uint8_t>(place->number);
  head.newest.store(seq_, std::memory_order_release);
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (IsLocal(i)) {
      eventfd_write(ranks_[i].bell.get(), 1);
    }
  }
  if (has_remote_) {
    loop_.Post([this, place] { SendToRemotes(place); });
  }
  return Status::Ok();
}

// Under order_mutex_: one at a time writes to the ranks' sockets.
Status RankRunner::SendInputMemory(Place* place) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (!IsLocal(i)) {
      continue;
    }
    // A rank that is gone is found out when the run is waited for.
    if (Status status = SendMemory(ranks_[i].socket.get(), place->number, place->inputs.fd()); !status.ok()) {
      return Status(status.kind(), Name(i) + ": " + status.message());
    }
  }
  place->sent_generation = place->inputs.generation();
  return Status::Ok();
}

void RankRunner::SendToRemotes(Place* place) {
  if (failed_.load(std::memory_order_acquire)) {
    return;  // the inputs may be gone
  }
  newest_sent_ = place->seq;
  const size_t at = place->seq % places_.size();
  place_of_[at] = place;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (IsLocal(i) || ranks_[i].connection == nullptr) {
      continue;
    }
    const bool takes_inputs = !ranks_[i].description.models[place->subgraph].info.inputs.empty();
    const std::span<const MsServingTensor> inputs =
        takes_inputs ? place->run_inputs : std::span<const MsServingTensor>();
    const bool wanted = i + 1 == ranks_.size();
    const uint64_t size = WriteRun({place->seq, place->subgraph, wanted}, inputs, &head_);
    if (size == 0) {
      on_trouble_("a run's inputs are larger than " + std::to_string(kMaxRunFrame) +
                      " bytes, which is the most that goes to a rank on another machine",
                  kNobody);
      return;
    }
    sent_[i].frames[at] = ranks_[i].connection->SendTensors(FrameKind::kRun, head_.body(), size, inputs);
  }
}

RankRunner::Wait RankRunner::WaitForRanks(const Place& place) {
  const Clock& clock = RealClock();
  const std::atomic<uint32_t>& left = board_.order(place.number).left;
  int64_t deadline_ns = place.ordered_ns + options_.rank_timeout_ns;
  bool in_grace = false;
  while (true) {
    if (failed_.load(std::memory_order_acquire)) {
      return Wait::kLost;
    }
    if (left.load(std::memory_order_acquire) == 0) {
      return Wait::kAll;
    }
    for (size_t i = 0; i < ranks_.size() && !in_grace; ++i) {
      bool failed = false;
      if (HasAnswered(place, i, &failed) && failed) {
        in_grace = true;
        deadline_ns = std::min(deadline_ns, clock.NowNs() + options_.grace_ns);
      }
    }
    const int64_t now_ns = clock.NowNs();
    if (now_ns >= deadline_ns && !in_grace) {
      deadline_ns = DeadlineOf(place, now_ns);
    }
    const int64_t left_ns = deadline_ns - now_ns;
    if (left_ns <= 0) {
      return Wait::kSome;
    }
    const timespec at_most{left_ns / kNanosPerSecond, left_ns % kNanosPerSecond};
    WaitForBell(place, &at_most);
  }
}

// The time of a run begins when it is ordered or, as ranks take runs in turn, when the run before it has ended, if that
// is later. While it has not begun: a time at which to ask again.
int64_t RankRunner::DeadlineOf(const Place& place, int64_t now_ns) {
  if (places_.size() == 1) {
    return place.ordered_ns + options_.rank_timeout_ns;
  }
  std::lock_guard lock(order_mutex_);
  const bool begun = ended_ + 1 >= place.seq;
  return (begun ? std::max(place.ordered_ns, ended_ns_) : now_ns) + options_.rank_timeout_ns;
}

void RankRunner::NoteEnd(const Place& place) {
  if (places_.size() == 1) {
    return;
  }
  const int64_t now_ns = RealClock().NowNs();
  std::lock_guard lock(order_mutex_);
  if (place.seq > ended_) {
    ended_ = place.seq;
    ended_ns_ = now_ns;
  }
}

}  // namespace msserving
