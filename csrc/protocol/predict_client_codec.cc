#include "protocol/predict_client_codec.h"

#include <algorithm>
#include <utility>

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

struct Item {
  std::string_view name;
  const TensorView& view;
};

// A PredictRequest on the wire. `rows(visit)` calls visit(count, item) for each instance, item(i) being its i-th Item.
template <class Rows>
class Layout {
 public:
  Layout(std::string_view servable, std::string_view method, uint64_t version, Rows rows)
      : servable_(servable), method_(method), version_(version), rows_(std::move(rows)) {}

  size_t size() const {
    size_t total = wire::FieldSize(SpecSize());
    rows_([&](size_t count, const auto& item) { total += wire::FieldSize(RowSize(count, item)); });
    return total;
  }

  void Write(uint8_t* at) const {
    at = wire::WritePrefix(at, 1, SpecSize());
    at = wire::WriteBytes(at, 1, servable_.data(), servable_.size());
    at = wire::WriteBytes(at, 2, method_.data(), method_.size());
    if (version_ != 0) {
      at = wire::WriteNumber(at, 3, version_);
    }
    rows_([&](size_t count, const auto& item) {
      at = wire::WritePrefix(at, 2, RowSize(count, item));
      for (size_t i = 0; i < count; ++i) {
        const Item one = item(i);
        const ItemSizes size = SizeOfItem(one.name, one.view);
        at = wire::WritePrefix(at, 1, size.entry);
        at = WriteItemHead(at, one.name, one.view, size);
        at = wire::WriteRaw(at, one.view.data, one.view.bytes);
      }
    });
  }

 private:
  size_t SpecSize() const {
    return wire::FieldSize(servable_.size()) + wire::FieldSize(method_.size()) +
           (version_ != 0 ? 1 + wire::VarintSize(version_) : 0);
  }

  static size_t RowSize(size_t count, const auto& item) {
    size_t size = 0;
    for (size_t i = 0; i < count; ++i) {
      const Item one = item(i);
      size += wire::FieldSize(SizeOfItem(one.name, one.view).entry);
    }
    return size;
  }

  const std::string_view servable_;
  const std::string_view method_;
  const uint64_t version_;
  const Rows rows_;
};

auto RowsOf(const ClientRequest& request) {
  return [&request](const auto& visit) {
    const NamedTensor* next = request.tensors.data();
    for (const uint32_t count : request.counts) {
      visit(count, [next](size_t i) { return Item{next[i].name, next[i].view}; });
      next += count;
    }
  };
}

}  // namespace

size_t SizeOfRequest(const ClientRequest& request) {
  return Layout(request.servable, request.method, request.version, RowsOf(request)).size();
}

void WriteRequest(const ClientRequest& request, uint8_t* to) {
  Layout(request.servable, request.method, request.version, RowsOf(request)).Write(to);
}

void EncodeRequest(std::string_view servable, std::string_view method, uint64_t version,
                   std::span<const std::string> inputs, const RequestInstances& instances, Buffer* out) {
  const Layout layout(servable, method, version, [&](const auto& visit) {
    for (size_t row = 0; row < instances.count; ++row) {
      visit(inputs.size(), [&, row](size_t i) { return Item{inputs[i], instances.tensors[row * inputs.size() + i]}; });
    }
  });
  const size_t size = layout.size();
  layout.Write(out->Prepare(size));
  out->Commit(size);
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
