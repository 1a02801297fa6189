#include "protocol/predict_codec.h"

#include <algorithm>
#include <cassert>

#include "protocol/instance_layout.h"
#include "protocol/reply_summary.h"
#include "protocol/tensor_wire.h"
#include "protocol/wire.h"

namespace msserving {
namespace {

using wire::AsText;
using wire::Reader;
using wire::Tag;
using wire::Type;

constexpr size_t kKeptInstances = 4096;
constexpr size_t kKeptSpecBytes = 4096;

// A view that ViewTensor() has not filled says why by its rank.
constexpr uint8_t kAbsent = 0;
constexpr uint8_t kRefused = 1;

Status Invalid(std::string message) { return {ErrorKind::kInvalidInput, std::move(message)}; }

Status Malformed() { return Invalid("The request is not a well-formed PredictRequest message"); }

Status NamesSharedMemory() {
  return Invalid("The request names shared memory, which is not accepted from clients; send the tensors' data");
}

// Pieces of one message mean the same as their bytes in a row.
void AddSpecPiece(std::span<const uint8_t> piece, RequestEnvelope* envelope) {
  if (envelope->spec.empty()) {
    envelope->spec = piece;
    return;
  }
  if (envelope->joined_spec.empty()) {
    envelope->joined_spec = AsText(envelope->spec);
  }
  envelope->joined_spec += AsText(piece);
  envelope->spec = {reinterpret_cast<const uint8_t*>(envelope->joined_spec.data()), envelope->joined_spec.size()};
}

Status ParseFields(std::span<const uint8_t> message, RequestEnvelope* envelope) {
  Reader reader(message);
  while (!reader.done()) {
    uint32_t tag;
    std::span<const uint8_t> bytes;
    if (!reader.ReadTag(&tag)) {
      return Malformed();
    }
    if (tag == Tag(2, Type::kBytes)) {
      if (!reader.ReadBytes(&bytes)) {
        return Malformed();
      }
      if (envelope->instances.size() == kMaxInstances) {
        return Invalid("The request has more than " + std::to_string(kMaxInstances) +
                       " instances; send it in several requests");
      }
      envelope->instances.push_back(bytes);
    } else if (tag == Tag(1, Type::kBytes)) {
      if (!reader.ReadBytes(&bytes)) {
        return Malformed();
      }
      AddSpecPiece(bytes, envelope);
    } else if (!reader.Skip(tag)) {
      return Malformed();
    }
  }
  return ParseSpec(envelope->spec, &envelope->servable, &envelope->method, &envelope->version) ? Status::Ok()
                                                                                               : Malformed();
}

// Index of `name` in `inputs`, or inputs.size(). Clients mostly keep the order of the signature: try `guess` first.
size_t FindInput(const std::vector<std::string>& inputs, std::string_view name, size_t guess) {
  if (guess < inputs.size() && inputs[guess] == name) {
    return guess;
  }
  size_t i = 0;
  while (i < inputs.size() && inputs[i] != name) {
    ++i;
  }
  return i;
}

// Calls item(name, tensor) for each entry of an Instance's map, in the order of the message.
template <typename Item>
Status ForEachItem(std::span<const uint8_t> instance, Item&& item) {
  Reader reader(instance);
  while (!reader.done()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) {
      return Malformed();
    }
    if (tag != Tag(1, Type::kBytes)) {
      if (wire::FieldOf(tag) == 2) {
        return NamesSharedMemory();
      }
      if (!reader.Skip(tag)) {
        return Malformed();
      }
      continue;
    }
    std::span<const uint8_t> entry;
    std::string_view name;
    RawTensor tensor;
    if (!reader.ReadBytes(&entry) || !ParseItem(entry, &name, &tensor)) {
      return Malformed();
    }
    if (tensor.names_shared_memory) {
      return NamesSharedMemory();
    }
    item(name, tensor);
  }
  return Status::Ok();
}

// The first fault of a request whose instances are well-formed but do not all give every input.
Status ExplainFault(const RequestEnvelope& envelope, const MethodSignature& signature,
                    std::span<const TensorView> views) {
  const size_t inputs = signature.inputs.size();
  size_t refused = views.size();
  for (size_t i = 0; i < views.size(); ++i) {
    if (views[i].dtype != DataType::kUnknown) {
      continue;
    }
    if (views[i].rank == kAbsent) {
      return Invalid("Cannot find input " + signature.inputs[i % inputs] + " in instance input, instance " +
                     std::to_string(i / inputs));
    }
    refused = std::min(refused, i);
  }
  const std::string& input = signature.inputs[refused % inputs];
  std::string reason;
  const Status parsed = ForEachItem(envelope.instances[refused / inputs], [&](auto name, const RawTensor& tensor) {
    if (name == input) {
      reason = ExplainTensor(tensor);
    }
  });
  assert(parsed.ok() && !reason.empty());
  return Invalid("Input " + input + " of instance " + std::to_string(refused / inputs) + " " + reason);
}

}  // namespace

bool ParseSpec(std::span<const uint8_t> message, std::string_view* servable, std::string_view* method,
               uint64_t* version) {
  Reader reader(message);
  while (!reader.done()) {
    uint32_t tag;
    std::span<const uint8_t> bytes;
    if (!reader.ReadTag(&tag)) {
      return false;
    }
    switch (tag) {
      case Tag(1, Type::kBytes):
      case Tag(2, Type::kBytes):
        if (!reader.ReadBytes(&bytes) || !wire::IsUtf8(AsText(bytes))) {
          return false;
        }
        *(wire::FieldOf(tag) == 1 ? servable : method) = AsText(bytes);
        break;
      case Tag(3, Type::kVarint):
        if (!reader.ReadVarint(version)) {
          return false;
        }
        break;
      default:
        if (!reader.Skip(tag)) {
          return false;
        }
    }
  }
  return true;
}

void RequestEnvelope::Clear() {
  servable = method = {};
  version = 0;
  spec = {};
  instances.clear();
  joined_spec.clear();
}

void RequestEnvelope::ShrinkIfLarge() {
  if (instances.capacity() > kKeptInstances) {
    std::vector<std::span<const uint8_t>>().swap(instances);
  }
  if (joined_spec.capacity() > kKeptSpecBytes) {
    std::string().swap(joined_spec);
  }
}

Status ParseEnvelope(std::span<const uint8_t> message, RequestEnvelope* envelope) {
  envelope->Clear();
  Status status = ParseFields(message, envelope);
  if (!status.ok()) {
    envelope->Clear();
  }
  return status;
}

Status ParseInstances(const RequestEnvelope& envelope, const MethodSignature& signature, RequestInstances* out) {
  out->Clear();
  if (envelope.instances.empty()) {
    return Invalid("The request has no instances");
  }
  const size_t inputs = signature.inputs.size();
  out->count = envelope.instances.size();
  out->tensors.resize(out->count * inputs);
  bool complete = true;
  TensorView* row = out->tensors.data();
  InstanceLayout layout;
  for (const std::span<const uint8_t> instance : envelope.instances) {
    if (layout.Fill(instance, row)) {
      row += inputs;
      continue;
    }
    size_t guess = 0;
    Status status = ForEachItem(instance, [&](std::string_view name, const RawTensor& tensor) {
      const size_t input = FindInput(signature.inputs, name, guess);
      if (input < inputs) {
        guess = input + 1;
        if (!ViewTensor(tensor, &row[input])) {
          row[input].dtype = DataType::kUnknown;
          row[input].rank = kRefused;
        }
      }
    });
    if (!status.ok()) {
      out->Clear();
      return status;
    }
    bool given = true;
    for (size_t i = 0; i < inputs; ++i) {
      given &= row[i].dtype != DataType::kUnknown;
    }
    complete &= given;
    if (given && out->count > 1) {
      layout.Learn(instance, {row, inputs});
    }
    row += inputs;
  }
  if (!complete) {
    Status status = ExplainFault(envelope, signature, out->tensors);
    out->Clear();
    return status;
  }
  return Status::Ok();
}

namespace {

constexpr size_t kMaxMessage = 384;  // what Shorten() leaves alone

// Fields 1, 3 and 4 of PredictReply and the parts below, written front to back; large tensors become slices.
class ReplyWriter {
 public:
  ReplyWriter(OutgoingBody* out, size_t size) : out_(out), begin_(out->encoded.Prepare(size)), at_(begin_) {}

  void Spec(std::span<const uint8_t> spec) {
    if (!spec.empty()) {
      at_ = wire::WriteBytes(at_, 1, spec.data(), spec.size());
    }
  }

  void BeginInstance(size_t size) { at_ = wire::WritePrefix(at_, 3, size); }

  // Returns where the tensor's content goes.
  const uint8_t* Item(std::string_view name, const TensorView& view) {
    const ItemSizes size = SizeOfItem(name, view);
    at_ = wire::WritePrefix(at_, 1, size.entry);
    at_ = WriteItemHead(at_, name, view, size);
    const uint8_t* const content = at_;
    if (view.bytes >= kSliceBytes) {
      out_->slices.push_back({static_cast<size_t>(at_ - begin_), view.data, view.bytes});
    } else {
      at_ = wire::WriteRaw(at_, view.data, view.bytes);
    }
    return content;
  }

  // An instance like the one before: its bytes again, but for the tensors' content.
  void InstanceAgain(const uint8_t* before, std::span<const TensorView> outputs, std::span<const size_t> heads) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      at_ = wire::WriteRaw(at_, before, heads[i]);
      before += heads[i];
      if (outputs[i].bytes >= kSliceBytes) {
        out_->slices.push_back({static_cast<size_t>(at_ - begin_), outputs[i].data, outputs[i].bytes});
      } else {
        at_ = wire::WriteRaw(at_, outputs[i].data, outputs[i].bytes);
        before += outputs[i].bytes;
      }
    }
  }

  const uint8_t* at() const { return at_; }

  void Error(int code, std::string_view message, size_t size) {
    at_ = wire::WritePrefix(at_, 4, size);
    if (size > 0) {
      at_ = wire::WriteNumber(at_, 1, static_cast<uint64_t>(code));
      at_ = wire::WriteBytes(at_, 2, message.data(), message.size());
    }
  }

  void Finish() { out_->encoded.Commit(static_cast<size_t>(at_ - begin_)); }

 private:
  OutgoingBody* out_;
  uint8_t* begin_;
  uint8_t* at_;
};

size_t SizeOfInstance(const MethodSignature& signature, const InstanceResult& result) {
  size_t size = 0;
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    size += wire::FieldSize(SizeOfItem(signature.outputs[i], result.outputs[i]).entry);
  }
  return size;
}

// Their encodings differ in nothing but the tensors' content.
bool Alike(const InstanceResult& a, const InstanceResult& b) {
  if (a.outputs.size() != b.outputs.size()) {
    return false;
  }
  for (size_t i = 0; i < a.outputs.size(); ++i) {
    const TensorView& x = a.outputs[i];
    const TensorView& y = b.outputs[i];
    if (x.bytes != y.bytes || x.dtype != y.dtype || x.rank != y.rank || !std::equal(x.dims, x.dims + x.rank, y.dims)) {
      return false;
    }
  }
  return true;
}

// Bytes on the wire of an instance's field, without the tensors that become slices.
size_t EncodedInstance(const MethodSignature& signature, const InstanceResult& result) {
  size_t size = wire::FieldSize(SizeOfInstance(signature, result));
  for (const TensorView& view : result.outputs) {
    size -= view.bytes >= kSliceBytes ? view.bytes : 0;
  }
  return size;
}

constexpr size_t kMostHeads = 16;  // outputs of an instance whose encoding is used again

// `alike`: all of them are.
void WriteInstances(const MethodSignature& signature, std::span<const InstanceResult> results, bool alike,
                    ReplyWriter* writer) {
  const InstanceResult* before = nullptr;  // whose encoding begins at `begin`
  const uint8_t* begin = nullptr;
  size_t heads[kMostHeads];  // bytes before each output's content
  for (const InstanceResult& result : results) {
    const uint8_t* const at = writer->at();
    if (before != nullptr && (alike || Alike(*before, result))) {
      writer->InstanceAgain(begin, result.outputs, heads);
      continue;
    }
    const size_t outputs = result.outputs.size();
    const bool keep = outputs > 0 && outputs <= kMostHeads && results.size() > 1;
    const uint8_t* head = at;
    writer->BeginInstance(SizeOfInstance(signature, result));
    for (size_t i = 0; i < outputs; ++i) {
      const uint8_t* const end = writer->Item(signature.outputs[i], result.outputs[i]);
      if (keep) {
        heads[i] = static_cast<size_t>(end - head);
        head = writer->at();
      }
    }
    before = keep ? &result : nullptr;
    begin = at;
  }
}

// Of an ErrorMsg; success is the empty one.
size_t SizeOfError(int code, size_t message_size) {
  return 1 + wire::VarintSize(static_cast<uint64_t>(code)) + wire::FieldSize(message_size);
}

}  // namespace

void EncodeError(std::span<const uint8_t> spec, ErrorKind kind, std::string_view message, OutgoingBody* out) {
  std::string shortened;
  if (message.size() > kMaxMessage) {
    shortened = Shorten(message);
    message = shortened;
  }
  const int code = TraitsOf(kind).wire_code;
  const size_t size = SizeOfError(code, message.size());
  ReplyWriter writer(out, (spec.empty() ? 0 : wire::FieldSize(spec.size())) + wire::FieldSize(size));
  writer.Spec(spec);
  writer.Error(code, message, size);
  writer.Finish();
}

void EncodeReply(std::span<const uint8_t> spec, const MethodSignature& signature,
                 std::span<const InstanceResult> results, OutgoingBody* out) {
  const ReplySummary summary = Summarise(results);
  if (summary.whole_failed) {
    EncodeError(spec, summary.kind, summary.message, out);
    return;
  }
  size_t total = spec.empty() ? 0 : wire::FieldSize(spec.size());
  const InstanceResult* before = nullptr;
  size_t size = 0;
  bool alike = true;
  for (const InstanceResult& result : results) {
    assert(result.outputs.size() == (result.error == ErrorKind::kOk ? signature.outputs.size() : 0));
    if (before == nullptr || !Alike(*before, result)) {
      size = EncodedInstance(signature, result);
      alike = before == nullptr;
      before = &result;
    }
    total += size;
    if (summary.any_failed) {
      const size_t message = MaxInstanceMessage(result);
      total += result.error == ErrorKind::kOk ? wire::FieldSize(0)
                                              : wire::FieldSize(SizeOfError(TraitsOf(result.error).wire_code, message));
    }
  }
  ReplyWriter writer(out, total);
  writer.Spec(spec);
  WriteInstances(signature, results, alike, &writer);
  if (summary.any_failed) {
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].error == ErrorKind::kOk) {
        writer.Error(0, {}, 0);
        continue;
      }
      const int code = TraitsOf(results[i].error).wire_code;
      const std::string message = InstanceMessage(results, i);
      writer.Error(code, message, SizeOfError(code, message.size()));
    }
  }
  writer.Finish();
}

}  // namespace msserving
