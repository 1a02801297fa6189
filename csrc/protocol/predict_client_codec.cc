#include "protocol/predict_client_codec.h"

#include <algorithm>

#include "protocol/predict_codec.h"
#include "protocol/tensor_wire.h"
#include "protocol/wire.h"

namespace msserving {
namespace {

using wire::AsText;
using wire::Reader;
using wire::Tag;
using wire::Type;

Status Malformed() { return {ErrorKind::kInternal, "The reply is not a well-formed PredictReply message"}; }

Status ParseInstance(std::span<const uint8_t> message, std::vector<NamedTensor>* outputs) {
  Reader reader(message);
  while (!reader.done()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) {
      return Malformed();
    }
    if (tag != Tag(1, Type::kBytes)) {
      if (!reader.Skip(tag)) {
        return Malformed();
      }
      continue;
    }
    std::span<const uint8_t> entry;
    RawTensor raw;
    NamedTensor item;
    if (!reader.ReadBytes(&entry) || !ParseItem(entry, &item.name, &raw)) {
      return Malformed();
    }
    if (!ViewTensor(raw, &item.view)) {
      return {ErrorKind::kInternal, "Output " + std::string(item.name) + " " + ExplainTensor(raw)};
    }
    const auto same = std::find_if(outputs->begin(), outputs->end(),
                                   [&](const NamedTensor& other) { return other.name == item.name; });
    if (same == outputs->end()) {
      outputs->push_back(item);
    } else {
      *same = item;
    }
  }
  return Status::Ok();
}

bool ParseError(std::span<const uint8_t> message, ReplyError* error) {
  Reader reader(message);
  while (!reader.done()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) {
      return false;
    }
    if (tag == Tag(1, Type::kVarint)) {
      uint64_t code;
      if (!reader.ReadVarint(&code)) {
        return false;
      }
      error->code = static_cast<int64_t>(code);
    } else if (tag == Tag(2, Type::kBytes)) {
      std::span<const uint8_t> text;
      if (!reader.ReadBytes(&text)) {
        return false;
      }
      error->message = AsText(text);
    } else if (!reader.Skip(tag)) {
      return false;
    }
  }
  return true;
}

}  // namespace

void EncodeRequest(std::string_view servable, std::string_view method, uint64_t version,
                   std::span<const std::string> inputs, const RequestInstances& instances, Buffer* out) {
  const size_t spec = wire::FieldSize(servable.size()) + wire::FieldSize(method.size()) +
                      (version != 0 ? 1 + wire::VarintSize(version) : 0);
  const auto row_size = [&](size_t row) {
    size_t size = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      size += wire::FieldSize(SizeOfItem(inputs[i], instances.tensors[row * inputs.size() + i]).entry);
    }
    return size;
  };
  size_t total = wire::FieldSize(spec);
  for (size_t row = 0; row < instances.count; ++row) {
    total += wire::FieldSize(row_size(row));
  }
  uint8_t* const begin = out->Prepare(total);
  uint8_t* at = wire::WritePrefix(begin, 1, spec);
  at = wire::WriteBytes(at, 1, servable.data(), servable.size());
  at = wire::WriteBytes(at, 2, method.data(), method.size());
  if (version != 0) {
    at = wire::WriteNumber(at, 3, version);
  }
  for (size_t row = 0; row < instances.count; ++row) {
    at = wire::WritePrefix(at, 2, row_size(row));
    for (size_t i = 0; i < inputs.size(); ++i) {
      const TensorView& view = instances.tensors[row * inputs.size() + i];
      const ItemSizes size = SizeOfItem(inputs[i], view);
      at = wire::WritePrefix(at, 1, size.entry);
      at = WriteItemHead(at, inputs[i], view, size);
      at = wire::WriteRaw(at, view.data, view.bytes);
    }
  }
  out->Commit(static_cast<size_t>(at - begin));
}

Status ParseReply(std::span<const uint8_t> message, ParsedReply* reply) {
  *reply = {};
  Reader reader(message);
  while (!reader.done()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) {
      return Malformed();
    }
    const bool is_message = wire::TypeOf(tag) == Type::kBytes;
    const uint32_t field = wire::FieldOf(tag);
    if (!is_message || (field != 1 && field != 3 && field != 4)) {
      if (!reader.Skip(tag)) {
        return Malformed();
      }
      continue;
    }
    std::span<const uint8_t> bytes;
    if (!reader.ReadBytes(&bytes)) {
      return Malformed();
    }
    if (field == 1) {
      // Pieces of one message: the next one goes on where this one ends.
      if (!ParseSpec(bytes, &reply->servable, &reply->method, &reply->version)) {
        return Malformed();
      }
    } else if (field == 3) {
      Status status = ParseInstance(bytes, &reply->instances.emplace_back());
      if (!status.ok()) {
        return status;
      }
    } else if (!ParseError(bytes, &reply->errors.emplace_back())) {
      return Malformed();
    }
  }
  return Status::Ok();
}

}  // namespace msserving
