#include "protocol/tensor_wire.h"

#include <algorithm>

#include "protocol/wire.h"

namespace msserving {
namespace {

using wire::Reader;
using wire::Tag;
using wire::Type;

void AddDim(uint64_t dim, RawTensor* tensor) {
  if (tensor->rank < kMaxRank) {
    tensor->dims[tensor->rank] = static_cast<int64_t>(dim);
  }
  ++tensor->rank;
}

bool ParseShape(std::span<const uint8_t> message, RawTensor* tensor) {
  Reader reader(message);
  while (!reader.done()) {
    uint32_t tag;
    uint64_t dim;
    if (!reader.ReadTag(&tag)) {
      return false;
    }
    if (tag == Tag(1, Type::kBytes)) {
      std::span<const uint8_t> packed;
      if (!reader.ReadBytes(&packed)) {
        return false;
      }
      for (Reader dims(packed); !dims.done();) {
        if (!dims.ReadVarint(&dim)) {
          return false;
        }
        AddDim(dim, tensor);
      }
    } else if (tag == Tag(1, Type::kVarint)) {
      if (!reader.ReadVarint(&dim)) {
        return false;
      }
      AddDim(dim, tensor);
    } else if (!reader.Skip(tag)) {
      return false;
    }
  }
  return true;
}

bool ParseTensor(std::span<const uint8_t> message, RawTensor* tensor) {
  Reader reader(message);
  while (!reader.done()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag)) {
      return false;
    }
    std::span<const uint8_t> bytes;
    switch (tag) {
      case Tag(1, Type::kBytes):
        if (!reader.ReadBytes(&bytes) || !ParseShape(bytes, tensor)) {
          return false;
        }
        break;
      case Tag(2, Type::kVarint): {
        uint64_t dtype;
        if (!reader.ReadVarint(&dtype)) {
          return false;
        }
        tensor->dtype = static_cast<uint32_t>(dtype);  // an enum is 32 bits wide, the rest is dropped
        break;
      }
      case Tag(3, Type::kBytes):
        if (!reader.ReadBytes(&tensor->data)) {
          return false;
        }
        break;
      case Tag(4, Type::kBytes):
        if (!reader.ReadBytes(&bytes)) {
          return false;
        }
        if (tensor->texts++ == 0) {
          tensor->text = bytes;
        }
        break;
      default:
        if (wire::FieldOf(tag) == 5) {
          tensor->names_shared_memory = true;
        }
        if (!reader.Skip(tag)) {
          return false;
        }
    }
  }
  return true;
}

std::string ShapeText(const RawTensor& raw) {
  std::string text = "[";
  const size_t shown = std::min<size_t>(raw.rank, kMaxRank);
  for (size_t i = 0; i < shown; ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(raw.dims[i]);
  }
  return text + (raw.rank > shown ? ", ...]" : "]");
}

std::string ExplainText(const RawTensor& raw) {
  if (raw.texts != 1) {
    return "has " + std::to_string(raw.texts) + " elements in bytes_val, exactly 1 is allowed for " +
           NameOf(static_cast<DataType>(raw.dtype));
  }
  if (raw.rank > 1 || (raw.rank == 1 && raw.dims[0] != 1)) {
    return "has shape " + ShapeText(raw) + ", allowed for " + NameOf(static_cast<DataType>(raw.dtype)) +
           " are [] and [1]";
  }
  if (raw.dtype == static_cast<uint32_t>(DataType::kString) && !wire::IsUtf8(wire::AsText(raw.text))) {
    return "is a string that is not UTF-8; send it as bytes (kMSI_Bytes)";
  }
  return {};
}

// Bytes that the shape takes; -1 if the shape is not allowed.
int64_t BytesOfShape(std::span<const int64_t> dims, size_t item_size) {
  auto bytes = static_cast<int64_t>(item_size);
  for (size_t i = 0; i < dims.size(); ++i) {
    const bool allowed = dims[i] > 0 || (dims[i] == 0 && i + 1 == dims.size());
    if (!allowed || __builtin_mul_overflow(bytes, dims[i], &bytes)) {
      return -1;
    }
  }
  return bytes;
}

std::string ExplainNumbers(const RawTensor& raw) {
  const std::span<const int64_t> dims(raw.dims, raw.rank);
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] < 0) {
      return "has shape " + ShapeText(raw) + ", dimension " + std::to_string(dims[i]) + " should be >= 0";
    }
    if (dims[i] == 0 && i + 1 < dims.size()) {
      return "has shape " + ShapeText(raw) + ", a dimension of 0 is allowed only as the last one";
    }
  }
  const auto dtype = static_cast<DataType>(raw.dtype);
  const int64_t bytes = BytesOfShape(dims, ItemSize(dtype));
  if (bytes < 0) {
    return "has shape " + ShapeText(raw) + ", more elements than any memory holds";
  }
  if (static_cast<uint64_t>(bytes) != raw.data.size()) {
    return "has " + std::to_string(raw.data.size()) + " bytes of data, shape " + ShapeText(raw) + " of " +
           NameOf(dtype) + " takes " + std::to_string(bytes);
  }
  return {};
}

}  // namespace

bool ParseItem(std::span<const uint8_t> entry, std::string_view* name, RawTensor* tensor) {
  Reader reader(entry);
  *name = {};
  while (!reader.done()) {
    uint32_t tag;
    std::span<const uint8_t> bytes;
    if (!reader.ReadTag(&tag)) {
      return false;
    }
    if (tag == Tag(1, Type::kBytes)) {
      if (!reader.ReadBytes(&bytes) || !wire::IsUtf8(wire::AsText(bytes))) {
        return false;
      }
      *name = wire::AsText(bytes);
    } else if (tag == Tag(2, Type::kBytes)) {
      if (!reader.ReadBytes(&bytes) || !ParseTensor(bytes, tensor)) {
        return false;
      }
    } else if (!reader.Skip(tag)) {
      return false;
    }
  }
  return true;
}

bool ViewTensor(const RawTensor& raw, TensorView* view) {
  if (!IsValid(raw.dtype) || raw.rank > kMaxRank) {
    return false;
  }
  const auto dtype = static_cast<DataType>(raw.dtype);
  std::span<const uint8_t> content = raw.data;
  if (IsText(dtype)) {
    if (!ExplainText(raw).empty()) {
      return false;
    }
    content = raw.text;
  } else if (BytesOfShape({raw.dims, raw.rank}, ItemSize(dtype)) != static_cast<int64_t>(raw.data.size())) {
    return false;
  }
  view->data = content.data();
  view->bytes = content.size();
  view->dtype = dtype;
  view->rank = static_cast<uint8_t>(raw.rank);
  std::copy_n(raw.dims, raw.rank, view->dims);
  return true;
}

std::string ExplainTensor(const RawTensor& raw) {
  if (!IsValid(raw.dtype)) {
    return "has data type " + std::to_string(static_cast<int32_t>(raw.dtype)) + ", allowed are 1 (" +
           NameOf(DataType::kBool) + ") to " + std::to_string(kDataTypeCount - 1) + " (" + NameOf(DataType::kBytes) +
           ")";
  }
  if (raw.rank > kMaxRank) {
    return "has " + std::to_string(raw.rank) + " dimensions, at most " + std::to_string(kMaxRank) + " are allowed";
  }
  return IsText(static_cast<DataType>(raw.dtype)) ? ExplainText(raw) : ExplainNumbers(raw);
}

namespace {

size_t SizeOfDims(const TensorView& view) {
  size_t size = 0;
  for (const int64_t dim : view.shape()) {
    size += wire::VarintSize(static_cast<uint64_t>(dim));
  }
  return size;
}

// Numbers of no bytes are the default and left out; a text is there even if empty.
bool HasContent(const TensorView& view) { return view.bytes > 0 || IsText(view.dtype); }

}  // namespace

ItemSizes SizeOfItem(std::string_view name, const TensorView& view) {
  size_t tensor = 1 + wire::VarintSize(static_cast<uint64_t>(view.dtype));
  if (view.rank > 0) {
    tensor += wire::FieldSize(wire::FieldSize(SizeOfDims(view)));
  }
  if (HasContent(view)) {
    tensor += wire::FieldSize(view.bytes);
  }
  return {tensor, wire::FieldSize(name.size()) + wire::FieldSize(tensor)};
}

uint8_t* WriteItemHead(uint8_t* to, std::string_view name, const TensorView& view, const ItemSizes& size) {
  to = wire::WriteBytes(to, 1, name.data(), name.size());
  to = wire::WritePrefix(to, 2, size.tensor);
  if (view.rank > 0) {
    const size_t dims_size = SizeOfDims(view);
    to = wire::WritePrefix(to, 1, wire::FieldSize(dims_size));
    to = wire::WritePrefix(to, 1, dims_size);
    for (const int64_t dim : view.shape()) {
      to = wire::WriteVarint(to, static_cast<uint64_t>(dim));
    }
  }
  to = wire::WriteNumber(to, 2, static_cast<uint64_t>(view.dtype));
  if (HasContent(view)) {
    to = wire::WritePrefix(to, IsText(view.dtype) ? 4 : 3, view.bytes);
  }
  return to;
}

}  // namespace msserving
