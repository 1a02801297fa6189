// How RankRunner reads what the ranks have answered.
#include "distributed/rank_runner.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

namespace msserving {
namespace {

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

}  // namespace

Status RankRunner::OnDone(uint32_t rank, FrameBody* body) {
  DoneHead done;
  std::vector<MsServingTensor> tensors;
  if (IsLocal(rank) || !ReadDone(body->bytes(), &done, &tensors)) {
    return Status(ErrorKind::kInvalidInput, "the rank has sent a broken answer");
  }
  Sent& sent = sent_[rank];
  if (done.seq != sent.answered + 1 || done.seq > newest_sent_) {
    return Status(ErrorKind::kInvalidInput, "the rank has answered a run that it was not given");
  }
  // Its inputs may be reused from now on: they must have left.
  const size_t at = done.seq % places_.size();
  if (ranks_[rank].connection == nullptr || !ranks_[rank].connection->HasLeft(sent.frames[at])) {
    return Status(ErrorKind::kInvalidInput, "the rank has answered before it had the run");
  }
  sent.answered = done.seq;
  Place& place = *place_of_[at];
  Remote& remote = place.remotes[rank];
  std::swap(remote.body, *body);
  remote.tensors = std::move(tensors);
  remote.done = std::move(done);
  const bool failed = remote.done.failed;
  remote.seq.store(sent.answered, std::memory_order_release);
  if (board_.order(place.number).left.fetch_sub(1, std::memory_order_acq_rel) == 1 || failed) {
    eventfd_write(place.bell.get(), 1);
  }
  return Status::Ok();
}

bool RankRunner::HasAnswered(const Place& place, size_t rank, bool* failed) const {
  if (!IsLocal(rank)) {
    const Remote& remote = place.remotes[rank];
    const bool answered = remote.seq.load(std::memory_order_acquire) == place.seq;
    *failed = answered && remote.done.failed;
    return answered;
  }
  const BoardSlot& slot = board_.slot(place.number, slots_[rank]);
  const bool answered = slot.seq.load(std::memory_order_acquire) == place.seq;
  *failed = answered && slot.failed != 0;
  return answered;
}

std::string RankRunner::Name(size_t rank) const {
  return RankText(static_cast<uint32_t>(rank), ranks_[rank].description.host);
}

std::string RankRunner::FailureOf(const Place& place, size_t rank) const {
  if (!IsLocal(rank)) {
    return Name(rank) + " failed: " + place.remotes[rank].done.text;
  }
  const BoardSlot& slot = board_.slot(place.number, slots_[rank]);
  return Name(rank) + " failed: " + std::string(slot.text, std::min<size_t>(slot.text_bytes, BoardSlot::kTextBytes));
}

std::string RankRunner::Unanswered(const Place& place) const {
  std::vector<uint32_t> silent;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    bool failed = false;
    if (!HasAnswered(place, i, &failed)) {
      silent.push_back(static_cast<uint32_t>(i));
    }
  }
  return silent.size() == 1 ? Name(silent[0]) : "ranks " + ListText(silent);
}

// Everybody has answered, or says so.
Status RankRunner::Collect(Place* given, std::span<MsServingTensor> outputs) {
  const Place& place = *given;
  std::string failure;
  size_t failed_ranks = 0;
  int first_failed = kNobody;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    bool failed = false;
    if (!HasAnswered(place, i, &failed)) {
      return Lose(place, Name(i) + " has broken what the ranks share", static_cast<int>(i));
    }
    failed_ranks += failed ? 1 : 0;
    if (failed && failure.empty()) {
      failure = FailureOf(place, i);
      first_failed = static_cast<int>(i);
    }
  }
  if (!failure.empty()) {
    // Who sends does not wait for those that receive: what a failed rank has left behind would be taken for the next
    // run's. Ranks of one stage that all fail have failed alike.
    if (options_.stage_size > 1 || failed_ranks < ranks_.size()) {
      return Lose(place, failure + "; the ranks are out of step", first_failed);
    }
    if (const uint32_t failures = ++failures_; failures >= options_.most_failures) {
      return Lose(place, failure + "; so have " + std::to_string(failures) + " runs in a row", first_failed);
    }
    return Status(ErrorKind::kStageFailed, failure);
  }
  failures_.store(0, std::memory_order_relaxed);
  int other = kNobody;
  if (std::string why; !CompareShapes(given, &why, &other)) {
    return Lose(place, why, other);
  }
  Status status = TakeOutputs(place, outputs);
  const size_t last = ranks_.size() - 1;
  return status.ok() ? status : Lose(place, Name(last) + ": " + status.message(), static_cast<int>(last));
}

// Without the bytes.
bool RankRunner::ReadShapes(const Place& place, size_t rank, std::vector<MsServingTensor>* shapes) const {
  shapes->clear();
  if (!IsLocal(rank)) {
    *shapes = place.remotes[rank].tensors;
    return true;
  }
  const uint32_t count = board_.slot(place.number, slots_[rank]).outputs;
  if (count > board_.shape().max_outputs) {
    return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    const BoardTensor described = board_.outputs(place.number, slots_[rank])[i];
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
bool RankRunner::CompareShapes(Place* place, std::string* why, int* rank) {
  const auto rank_size = static_cast<uint32_t>(ranks_.size());
  const uint32_t in_stage = rank_size / options_.stage_size;
  for (uint32_t i = 0; i < rank_size; ++i) {
    const bool leads = i % in_stage == 0;
    std::vector<MsServingTensor>& shapes = leads ? place->leader_shapes : place->shapes;
    *rank = static_cast<int>(i);
    if (!ReadShapes(*place, i, &shapes)) {
      *why = Name(i) + " has broken what the ranks share";
      return false;
    }
    if (!leads && !std::equal(shapes.begin(), shapes.end(), place->leader_shapes.begin(), place->leader_shapes.end(),
                              SameShape)) {
      *why = Name(i) + " has answered with " + ShapesText(shapes) + ", " + Name(i / in_stage * in_stage) + " with " +
             ShapesText(place->leader_shapes);
      return false;
    }
  }
  return true;
}

Status RankRunner::TakeOutputs(const Place& place, std::span<MsServingTensor> outputs) {
  const size_t last = ranks_.size() - 1;
  Status wrong(ErrorKind::kInternal, "its outputs are not those of its model");
  if (!IsLocal(last)) {
    const Remote& remote = place.remotes[last];
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
  const BoardSlot& slot = board_.slot(place.number, slots_[last]);
  if (slot.outputs != outputs.size()) {
    return wrong;
  }
  if (Status status = outputs_.Follow(ranks_[last].socket.get(), place.number, slot.output_generation); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs_.Take(place.number, board_.outputs(place.number, slots_[last])[i], &outputs[i])) {
      return wrong;
    }
  }
  return Status::Ok();
}

}  // namespace msserving
