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

bool SameShape(const MsServingTensor& a, const MsServingTensor& b) {
  return a.dtype == b.dtype && a.rank == b.rank && std::equal(a.dims, a.dims + a.rank, b.dims);
}

std::string ShapesText(const std::vector<MsServingTensor>& tensors) {
  std::string text;
  for (const MsServingTensor& tensor : tensors) {
    text += (text.empty() ? "" : ", ") + std::string(NameOf(static_cast<DataType>(tensor.dtype))) + "[";
    for (int d = 0; d < tensor.rank; ++d) {
      text += (d > 0 ? ", " : "") + std::to_string(tensor.dims[d]);
    }
    text += "]";
  }
  return text;
}

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
                       std::function<void(const std::string&)> on_trouble)
    : loop_(*loop),
      ranks_(std::move(ranks)),
      options_(options),
      on_trouble_(std::move(on_trouble)),
      slots_(ranks_.size()),
      remotes_(ranks_.size()),
      bell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

RankRunner::~RankRunner() = default;

Status RankRunner::Begin() {
  BoardShape shape;
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
  SharedMemory memory;
  if (Status status = SharedMemory::Create("msserving-ranks", shape.Bytes(), &memory); !status.ok()) {
    return status;
  }
  if (Status status = LocalBoard::Open(std::move(memory), shape, &board_); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    RunnerRank& rank = ranks_[i];
    if (IsLocal(i)) {
      if (Status status = SendControl(rank.socket.get(), kBoardMessage, "", {board_.fd(), bell_.get()}); !status.ok()) {
        return status;
      }
    }
    FrameWriter begin;
    begin.U8(IsLocal(i) ? 1 : 0);
    begin.U32(shape.slots);
    begin.U32(shape.max_inputs);
    begin.U32(shape.max_outputs);
    begin.U32(slots_[i]);
    rank.connection->Send(FrameKind::kBegin, begin.body());
    const bool answers = i + 1 == ranks_.size();
    rank.connection->set_max_body(answers && !IsLocal(i) ? AnswerLimit(rank.description) : kMaxBareAnswer);
  }
  return Status::Ok();
}

Status RankRunner::OnDone(uint32_t rank, FrameBody* body) {
  Remote& remote = remotes_[rank];
  DoneHead done;
  std::vector<MsServingTensor> tensors;
  const uint64_t seq = order().seq.load(std::memory_order_acquire);
  if (IsLocal(rank) || !ReadDone(body->bytes(), &done, &tensors)) {
    return Status(ErrorKind::kInvalidInput, "the rank has sent a broken answer");
  }
  // Its inputs may be reused from now on: they must have left.
  if (ranks_[rank].connection == nullptr || ranks_[rank].connection->has_unsent()) {
    return Status(ErrorKind::kInvalidInput, "the rank has answered before it had the run");
  }
  if (done.seq != seq || remote.seq.load(std::memory_order_relaxed) == seq) {
    return Status(ErrorKind::kInvalidInput, "the rank has answered a run that it was not given");
  }
  std::swap(remote.body, *body);
  remote.tensors = std::move(tensors);
  remote.done = std::move(done);
  const bool failed = remote.done.failed;
  remote.seq.store(seq, std::memory_order_release);
  if (order().left.fetch_sub(1, std::memory_order_acq_rel) == 1 || failed) {
    eventfd_write(bell_.get(), 1);
  }
  return Status::Ok();
}

void RankRunner::Fail(const std::string& why) {
  {
    std::lock_guard lock(why_mutex_);
    why_ = why;
  }
  failed_.store(true, std::memory_order_release);
  eventfd_write(bell_.get(), 1);
}

Status RankRunner::Lost() {
  std::lock_guard lock(why_mutex_);
  return Status(ErrorKind::kWorkerUnavailable, why_);
}

// The group cannot go on. The loop ends the connections, so that nothing points to the inputs any more, and says so.
Status RankRunner::Lose(const std::string& why) {
  loop_.Post([this, why] { on_trouble_(why); });
  while (!failed_.load(std::memory_order_acquire)) {
    pollfd watched{bell_.get(), POLLIN, 0};
    poll(&watched, 1, -1);
    eventfd_t count;
    eventfd_read(bell_.get(), &count);
  }
  return Lost();
}

Status RankRunner::Run(uint32_t subgraph, std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) {
  std::lock_guard lock(run_mutex_);
  if (failed_.load(std::memory_order_acquire)) {
    return Lost();
  }
  if (Status status = Order(subgraph, inputs); !status.ok()) {
    return status;
  }
  switch (WaitForRanks()) {
    case Wait::kAll: return Collect(outputs);
    case Wait::kLost: return Lost();
    case Wait::kSome: break;
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    bool failed = false;
    if (HasAnswered(i, &failed) && failed) {
      return Lose(FailureOf(i) + "; " + Unanswered() + " did not finish");
    }
  }
  return Lose(Unanswered() + " did not answer within " + std::to_string(options_.rank_timeout_ns / kNanosPerMilli) +
              " ms (rank_timeout_seconds)");
}

// Nothing is ordered if this fails.
Status RankRunner::Order(uint32_t subgraph, std::span<const MsServingTensor> inputs) {
  BoardOrder& order = this->order();
  if (has_local_) {
    BoardTensor* placed = board_.inputs();
    if (Status status = inputs_.Place(inputs, placed); !status.ok()) {
      return status;
    }
    if (inputs_.generation() != sent_generation_) {
      for (size_t i = 0; i < ranks_.size(); ++i) {
        if (!IsLocal(i)) {
          continue;
        }
        // A rank that is gone is found out when the run is waited for.
        if (Status status = SendMemory(ranks_[i].socket.get(), inputs_.fd()); !status.ok()) {
          return Lose(Name(i) + ": " + status.message());
        }
      }
      sent_generation_ = inputs_.generation();
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      std::memcpy(inputs_.base() + placed[i].offset, inputs[i].data, inputs[i].bytes);
    }
  }
  ++seq_;
  order.subgraph = subgraph;
  order.answering_rank = static_cast<uint32_t>(ranks_.size() - 1);
  order.inputs = static_cast<uint32_t>(inputs.size());
  order.input_generation = sent_generation_;
  order.left.store(static_cast<uint32_t>(ranks_.size()), std::memory_order_relaxed);
  order.seq.store(seq_, std::memory_order_release);
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (IsLocal(i)) {
      eventfd_write(ranks_[i].bell.get(), 1);
    }
  }
  if (has_remote_) {
    subgraph_ = subgraph;
    run_inputs_ = inputs;
    loop_.Post([this] { SendToRemotes(); });
  }
  return Status::Ok();
}

void RankRunner::SendToRemotes() {
  if (failed_.load(std::memory_order_acquire)) {
    return;  // the inputs may be gone
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (IsLocal(i) || ranks_[i].connection == nullptr) {
      continue;
    }
    const bool takes_inputs = !ranks_[i].description.models[subgraph_].info.inputs.empty();
    const std::span<const MsServingTensor> inputs = takes_inputs ? run_inputs_ : std::span<const MsServingTensor>();
    const bool wanted = i + 1 == ranks_.size();
    const uint64_t size = WriteRun({order().seq.load(std::memory_order_relaxed), subgraph_, wanted}, inputs, &head_);
    if (size == 0) {
      on_trouble_("a run's inputs are larger than " + std::to_string(kMaxRunFrame) +
                  " bytes, which is the most that goes to a rank on another machine");
      return;
    }
    ranks_[i].connection->SendTensors(FrameKind::kRun, head_.body(), size, inputs);
  }
}

RankRunner::Wait RankRunner::WaitForRanks() {
  const Clock& clock = RealClock();
  int64_t deadline_ns = clock.NowNs() + options_.rank_timeout_ns;
  bool in_grace = false;
  while (true) {
    if (failed_.load(std::memory_order_acquire)) {
      return Wait::kLost;
    }
    if (order().left.load(std::memory_order_acquire) == 0) {
      return Wait::kAll;
    }
    for (size_t i = 0; i < ranks_.size() && !in_grace; ++i) {
      bool failed = false;
      if (HasAnswered(i, &failed) && failed) {
        in_grace = true;
        deadline_ns = std::min(deadline_ns, clock.NowNs() + options_.grace_ns);
      }
    }
    const int64_t left_ns = deadline_ns - clock.NowNs();
    if (left_ns <= 0) {
      return Wait::kSome;
    }
    const timespec left{left_ns / kNanosPerSecond, left_ns % kNanosPerSecond};
    pollfd watched{bell_.get(), POLLIN, 0};
    if (ppoll(&watched, 1, &left, nullptr) > 0) {
      eventfd_t count;
      eventfd_read(bell_.get(), &count);
    }
  }
}

bool RankRunner::HasAnswered(size_t rank, bool* failed) const {
  if (!IsLocal(rank)) {
    const bool answered = remotes_[rank].seq.load(std::memory_order_acquire) == seq_;
    *failed = answered && remotes_[rank].done.failed;
    return answered;
  }
  const BoardSlot& slot = board_.slot(slots_[rank]);
  const bool answered = slot.seq.load(std::memory_order_acquire) == seq_;
  *failed = answered && slot.failed != 0;
  return answered;
}

std::string RankRunner::Name(size_t rank) const {
  return RankText(static_cast<uint32_t>(rank), ranks_[rank].description.host);
}

std::string RankRunner::FailureOf(size_t rank) const {
  if (!IsLocal(rank)) {
    return Name(rank) + " failed: " + remotes_[rank].done.text;
  }
  const BoardSlot& slot = board_.slot(slots_[rank]);
  return Name(rank) + " failed: " + std::string(slot.text, std::min<size_t>(slot.text_bytes, BoardSlot::kTextBytes));
}

std::string RankRunner::Unanswered() const {
  std::vector<uint32_t> silent;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    bool failed = false;
    if (!HasAnswered(i, &failed)) {
      silent.push_back(static_cast<uint32_t>(i));
    }
  }
  return silent.size() == 1 ? Name(silent[0]) : "ranks " + ListText(silent);
}

// Everybody has answered, or says so.
Status RankRunner::Collect(std::span<MsServingTensor> outputs) {
  std::string failure;
  size_t failed_ranks = 0;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    bool failed = false;
    if (!HasAnswered(i, &failed)) {
      return Lose(Name(i) + " has broken what the ranks share");
    }
    failed_ranks += failed ? 1 : 0;
    if (failed && failure.empty()) {
      failure = FailureOf(i);
    }
  }
  if (!failure.empty()) {
    // Who sends does not wait for those that receive: what a failed rank has left behind would be taken for the next
    // run's. Ranks of one stage that all fail have failed alike.
    if (options_.stage_size > 1 || failed_ranks < ranks_.size()) {
      return Lose(failure + "; the ranks are out of step");
    }
    if (++failures_ >= options_.most_failures) {
      return Lose(failure + "; so have " + std::to_string(failures_) + " runs in a row");
    }
    return Status(ErrorKind::kStageFailed, failure);
  }
  failures_ = 0;
  if (std::string why; !CompareShapes(&why)) {
    return Lose(why);
  }
  Status status = TakeOutputs(outputs);
  return status.ok() ? status : Lose(Name(ranks_.size() - 1) + ": " + status.message());
}

// Without the bytes.
bool RankRunner::ReadShapes(size_t rank, std::vector<MsServingTensor>* shapes) const {
  shapes->clear();
  if (!IsLocal(rank)) {
    *shapes = remotes_[rank].tensors;
    return true;
  }
  const uint32_t count = board_.slot(slots_[rank]).outputs;
  if (count > board_.shape().max_outputs) {
    return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    const BoardTensor described = board_.outputs(slots_[rank])[i];
    MsServingTensor shape{};
    shape.bytes = described.bytes;
    shape.dtype = described.dtype;
    shape.rank = described.rank;
    if (described.rank < 0 || described.rank > kMaxRank) {
      return false;
    }
    std::copy_n(described.dims, described.rank, shape.dims);
    if (!IsWhole(shape)) {
      return false;
    }
    shapes->push_back(shape);
  }
  return true;
}

// Ranks of one stage have worked on the same thing.
bool RankRunner::CompareShapes(std::string* why) {
  const auto rank_size = static_cast<uint32_t>(ranks_.size());
  const uint32_t in_stage = rank_size / options_.stage_size;
  for (uint32_t i = 0; i < rank_size; ++i) {
    const bool leads = i % in_stage == 0;
    std::vector<MsServingTensor>& shapes = leads ? leader_shapes_ : shapes_;
    if (!ReadShapes(i, &shapes)) {
      *why = Name(i) + " has broken what the ranks share";
      return false;
    }
    if (!leads && !std::equal(shapes.begin(), shapes.end(), leader_shapes_.begin(), leader_shapes_.end(), SameShape)) {
      *why = Name(i) + " has answered with " + ShapesText(shapes) + ", " + Name(i / in_stage * in_stage) + " with " +
             ShapesText(leader_shapes_);
      return false;
    }
  }
  return true;
}

Status RankRunner::TakeOutputs(std::span<MsServingTensor> outputs) {
  const size_t last = ranks_.size() - 1;
  Status wrong(ErrorKind::kInternal, "its outputs are not those of its model");
  if (!IsLocal(last)) {
    const Remote& remote = remotes_[last];
    if (remote.tensors.size() != outputs.size()) {
      return wrong;
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (remote.tensors[i].data == nullptr && remote.tensors[i].bytes > 0) {
        return wrong;
      }
      outputs[i] = remote.tensors[i];
    }
    return Status::Ok();
  }
  const BoardSlot& slot = board_.slot(slots_[last]);
  if (slot.outputs != outputs.size()) {
    return wrong;
  }
  if (Status status = outputs_.Follow(ranks_[last].socket.get(), slot.output_generation); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs_.Take(board_.outputs(slots_[last])[i], &outputs[i])) {
      return wrong;
    }
  }
  return Status::Ok();
}

}  // namespace msserving
