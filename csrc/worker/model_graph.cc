#include "worker/model_graph.h"

#include <algorithm>
#include <cstring>

namespace msserving {
namespace {

Status Unfit(const std::string& what) { return Status(ErrorKind::kInternal, what); }

bool SameShape(const TensorView& a, const TensorView& b) {
  return a.rank == b.rank && std::equal(a.dims, a.dims + a.rank, b.dims);
}

bool SameBytes(const TensorView& a, const TensorView& b) {
  return a.bytes == b.bytes && (a.data == b.data || a.bytes == 0 || std::memcmp(a.data, b.data, a.bytes) == 0);
}

}  // namespace

Status ModelGraph::Create(std::shared_ptr<Session> session, const ModelOptions& options,
                          std::unique_ptr<ModelGraph>* graph) {
  std::unique_ptr<ModelGraph> made(new ModelGraph);
  made->session_ = std::move(session);
  if (Status status = made->Init(options); !status.ok()) {
    return status;
  }
  *graph = std::move(made);
  return Status::Ok();
}

Status ModelGraph::Init(const ModelOptions& options) {
  const SessionInfo& info = session_->describe();
  batched_ = options.with_batch_dim;
  max_wait_us_ = options.max_wait_us;
  for (const uint32_t index : options.without_batch_dim_inputs) {
    if (!batched_ || index >= info.inputs.size()) {
      return Unfit("without_batch_dim_inputs names input " + std::to_string(index) +
                   (batched_ ? ", the model has " + std::to_string(info.inputs.size()) + " inputs"
                             : " of a model without batch dimension"));
    }
  }
  inputs_.resize(info.inputs.size());
  input_tensors_.resize(info.inputs.size());
  outputs_.resize(info.outputs.size());
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const TensorInfo& described = info.inputs[i];
    Input& input = inputs_[i];
    const auto& without = options.without_batch_dim_inputs;
    input.batched = batched_ && std::find(without.begin(), without.end(), i) == without.end();
    if (input.batched && described.rank == 0) {
      return Unfit("model input " + std::to_string(i) + " is a scalar and has no batch dimension");
    }
    input.rule = InputRule(described, input.batched);
    uniform_ = uniform_ && input.rule.fixed() && (input.batched || !batched_);
    MsServingTensor& tensor = input_tensors_[i];
    tensor.dtype = static_cast<int32_t>(described.dtype);
    tensor.rank = std::max(described.rank, 0);
    std::copy_n(described.dims.data(), tensor.rank, tensor.dims);
  }
  return InitBatch(options);
}

Status ModelGraph::InitBatch(const ModelOptions& options) {
  const SessionInfo& info = session_->describe();
  if (!batched_) {
    return info.batch_sizes.size() <= 1 ? Status::Ok()
                                        : Unfit("a graph compiled for several batch sizes needs with_batch_dim");
  }
  int64_t leading = 0;  // -1: dynamic
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (!inputs_[i].batched) {
      continue;
    }
    const int64_t dim = info.inputs[i].rank < 0 ? -1 : info.inputs[i].dims[0];
    if (dim == 0) {
      return Unfit("batch size cannot be 0 (model input " + std::to_string(i) + ")");
    }
    if (leading != 0 && dim != leading && info.batch_sizes.empty()) {
      return Unfit("the model's inputs disagree about the batch size: " + std::to_string(leading) + " and " +
                   std::to_string(dim));
    }
    leading = dim;
  }
  if (leading == 0) {
    return Unfit("with_batch_dim is set, but no input of the model has a batch dimension");
  }
  for (size_t i = 0; i < info.outputs.size(); ++i) {
    if (info.outputs[i].rank == 0) {
      return Unfit("with_batch_dim is set, but output " + std::to_string(i) + " of the model is a scalar");
    }
  }
  for (const int64_t size : info.batch_sizes) {
    buckets_.push_back(static_cast<uint32_t>(std::min<int64_t>(size, UINT32_MAX)));
  }
  if (buckets_.empty() && leading > 0) {
    buckets_.push_back(static_cast<uint32_t>(std::min<int64_t>(leading, UINT32_MAX)));
  }
  const uint32_t largest = buckets_.empty() ? 0 : buckets_.back();
  max_batch_ = options.batch_size > 0 ? options.batch_size : largest > 0 ? largest : kDefaultDynamicBatch;
  if (largest > 0 && max_batch_ > largest) {
    return Unfit("batch size " + std::to_string(max_batch_) + " is more than the model takes, " +
                 std::to_string(largest));
  }
  return Status::Ok();
}

bool ModelGraph::Check(uint32_t row, const TensorView* const* values, ModelSink* sink) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const TensorView& value = *values[row * inputs_.size() + i];
    if (!inputs_[i].rule.Fits(value)) {
      sink->OnFailed(row, inputs_[i].rule.Explain(i, value));
      return false;
    }
  }
  return true;
}

bool ModelGraph::Share(const TensorView* const* first, const TensorView* const* other) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (!inputs_[i].rule.fixed() && !SameShape(*first[i], *other[i])) {
      return false;
    }
    if (!inputs_[i].batched && !SameBytes(*first[i], *other[i])) {
      return false;
    }
  }
  return true;
}

void ModelGraph::Run(uint32_t rows, const TensorView* const* values, ModelSink* sink) {
  if (rows == 1) {
    constexpr uint32_t kRow = 0;
    if (Check(kRow, values, sink)) {
      RunGroup({&kRow, 1}, values, sink);
    }
    return;
  }
  waiting_.clear();
  for (uint32_t row = 0; row < rows; ++row) {
    if (Check(row, values, sink)) {
      waiting_.push_back(row);
    }
  }
  size_t left = waiting_.size();
  while (left > 0) {
    group_.clear();
    if (uniform_ && left <= max_batch_ && (batched_ || left == 1)) {
      group_.assign(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(left));
      left = 0;
    } else {
      // The oldest row leads; whoever fits joins; the others keep their order for the next round.
      const TensorView* const* leader = values + size_t{waiting_[0]} * inputs_.size();
      size_t kept = 0;
      for (size_t i = 0; i < left; ++i) {
        const uint32_t row = waiting_[i];
        const bool joins = i == 0 || (batched_ && group_.size() < max_batch_ &&
                                      (uniform_ || Share(leader, values + size_t{row} * inputs_.size())));
        if (joins) {
          group_.push_back(row);
        } else {
          waiting_[kept++] = row;
        }
      }
      left = kept;
    }
    RunGroup(group_, values, sink);
  }
}

void ModelGraph::RunGroup(std::span<const uint32_t> rows, const TensorView* const* values, ModelSink* sink) {
  Status status = RunOnce(rows, values);
  if (status.ok()) {
    sink->OnRan(*this, rows);
    return;
  }
  if (rows.size() == 1) {
    sink->OnFailed(rows[0], status);
    return;
  }
  ++counters_.splits;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<const uint32_t> alone = rows.subspan(i, 1);
    status = RunOnce(alone, values);
    if (status.ok()) {
      sink->OnRan(*this, alone);
    } else {
      sink->OnFailed(rows[i], status);
    }
  }
}

uint32_t ModelGraph::BatchFor(size_t rows) const {
  if (buckets_.empty()) {
    return static_cast<uint32_t>(rows);
  }
  return *std::lower_bound(buckets_.begin(), buckets_.end(), rows);
}

Status ModelGraph::RunOnce(std::span<const uint32_t> rows, const TensorView* const* values) {
  batch_ = batched_ ? BatchFor(rows.size()) : 1;
  bool copied = false;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (!Place(i, rows, values, &copied)) {
      return Status(ErrorKind::kInternal, "no memory for the model's input " + std::to_string(i));
    }
  }
  ++counters_.runs;
  counters_.rows += rows.size();
  counters_.padded += batch_ - rows.size();
  counters_.in_place += copied ? 0 : 1;
  if (Status status = session_->Run(input_tensors_, outputs_); !status.ok()) {
    return status;
  }
  return CheckOutputs();
}

bool ModelGraph::Place(size_t index, std::span<const uint32_t> rows, const TensorView* const* values, bool* copied) {
  Input& input = inputs_[index];
  MsServingTensor& tensor = input_tensors_[index];
  const TensorView& first = *values[size_t{rows[0]} * inputs_.size() + index];
  const uint64_t row_bytes = first.bytes;  // as the rule says, and the same for all rows of a group
  const int leading = input.batched ? 1 : 0;
  if (!input.rule.fixed()) {
    if (first.rank + leading > kMaxRank) {
      return false;
    }
    tensor.rank = first.rank + leading;
    std::copy_n(first.dims, first.rank, tensor.dims + leading);
  }
  if (input.batched) {
    tensor.dims[0] = batch_;
  }
  tensor.bytes = input.batched ? batch_ * row_bytes : row_bytes;
  const bool in_place = !input.batched || (rows.size() == batch_ && BackToBack(index, rows, values));
  if (in_place && IsAligned(first.data) && first.data != nullptr) {
    tensor.data = const_cast<uint8_t*>(first.data);
    return true;
  }
  *copied = true;
  return Gather(index, input.batched ? rows : rows.first(1), values, row_bytes);
}

// The rows lie in memory as the session wants them: side by side from the first on.
bool ModelGraph::BackToBack(size_t index, std::span<const uint32_t> rows, const TensorView* const* values) const {
  const TensorView& first = *values[size_t{rows[0]} * inputs_.size() + index];
  for (size_t i = 1; i < rows.size(); ++i) {
    if (values[size_t{rows[i]} * inputs_.size() + index]->data != first.data + i * first.bytes) {
      return false;
    }
  }
  return true;
}

bool ModelGraph::Gather(size_t index, std::span<const uint32_t> rows, const TensorView* const* values,
                        uint64_t row_bytes) {
  Input& input = inputs_[index];
  uint8_t* to = input.buffer.Reserve(input_tensors_[index].bytes);
  if (to == nullptr) {
    return false;
  }
  input_tensors_[index].data = to;
  if (row_bytes == 0) {
    return true;
  }
  for (const uint32_t row : rows) {
    std::memcpy(to, values[size_t{row} * inputs_.size() + index]->data, row_bytes);
    to += row_bytes;
  }
  const size_t padding = input.batched ? batch_ - rows.size() : 0;
  for (size_t i = 0; i < padding; ++i) {
    std::memcpy(to, input_tensors_[index].data, row_bytes);
    to += row_bytes;
  }
  return true;
}

Status ModelGraph::CheckOutputs() const {
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const MsServingTensor& output = outputs_[i];
    if (output.rank < 0 || output.rank > kMaxRank || output.dtype < 0 ||
        ItemSize(static_cast<DataType>(output.dtype)) == 0) {
      return Status(ErrorKind::kInternal, "the model's output " + std::to_string(i) + " is no tensor");
    }
    const int64_t elements = ElementCount({output.dims, static_cast<size_t>(output.rank)});
    if (elements < 0 ||
        static_cast<uint64_t>(elements) * ItemSize(static_cast<DataType>(output.dtype)) != output.bytes) {
      return Status(ErrorKind::kInternal,
                    "the size of the model's output " + std::to_string(i) + " does not match its shape");
    }
    if (batched_ && (output.rank == 0 || output.dims[0] != batch_)) {
      return Status(ErrorKind::kInternal, "the model's output " + std::to_string(i) +
                                              " does not have the leading dimension " + std::to_string(batch_));
    }
  }
  return Status::Ok();
}

TensorView ModelGraph::Output(size_t output, size_t position) const {
  const MsServingTensor& whole = outputs_[output];
  const int leading = batched_ ? 1 : 0;
  TensorView row;
  row.bytes = batch_ > 1 ? whole.bytes / batch_ : whole.bytes;
  row.data = static_cast<const uint8_t*>(whole.data) + position * row.bytes;
  row.dtype = static_cast<DataType>(whole.dtype);
  row.rank = static_cast<uint8_t>(whole.rank - leading);
  for (int i = 0; i < row.rank; ++i) {
    row.dims[i] = whole.dims[i + leading];
  }
  return row;
}

}  // namespace msserving
