#include "protocol/json_reply.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "protocol/base64.h"
#include "protocol/json_number.h"

namespace msserving {
namespace {

void AppendText(std::string_view text, Buffer* out) { out->Append(text.data(), text.size()); }

float FromFloat16(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000U} << 16;
  const uint32_t exponent = (half >> 10) & 0x1F;
  const uint32_t fraction = half & 0x3FF;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t biased = exponent == 31 ? 0xFF : exponent + 112;
  return std::bit_cast<float>(sign | biased << 23 | fraction << 13);
}

// One element's text. Elements may be unaligned.
template <class T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

template <class T>
struct IntegerWriter {
  static constexpr size_t kItem = sizeof(T);
  static char* Write(const uint8_t* p, char* out) { return std::to_chars(out, out + kMaxNumberText, Load<T>(p)).ptr; }
};

struct Float16Writer {
  static constexpr size_t kItem = 2;
  static char* Write(const uint8_t* p, char* out) { return WriteFloat32(FromFloat16(Load<uint16_t>(p)), out); }
};

// Float32 goes in whole rows instead, see WriteBlock().
struct Float32Writer {
  static constexpr size_t kItem = 4;
};

struct Float64Writer {
  static constexpr size_t kItem = 8;
  static char* Write(const uint8_t* p, char* out) { return WriteFloat64(Load<double>(p), out); }
};

struct BoolWriter {
  static constexpr size_t kItem = 1;
  static char* Write(const uint8_t* p, char* out) {
    const bool value = *p != 0;
    std::memcpy(out, value ? "true" : "false", 5);
    return out + (value ? 4 : 5);
  }
};

// Innermost rows are written in blocks, so that a long row needs no more room at once than this.
constexpr int64_t kBlock = 256;

// Each element with a comma behind it.
template <class Writer>
char* WriteBlock(const uint8_t* p, int64_t count, char* out) {
  for (int64_t i = 0; i < count; ++i, p += Writer::kItem) {
    out = Writer::Write(p, out);
    *out++ = ',';
  }
  return out;
}

template <>
char* WriteBlock<Float32Writer>(const uint8_t* p, int64_t count, char* out) {
  return WriteFloat32s(p, count, out);
}

template <class Writer>
void WriteRow(const uint8_t* p, int64_t count, Buffer* out) {
  while (count > 0) {
    const int64_t block = std::min(count, kBlock);
    auto* const begin = reinterpret_cast<char*>(out->Prepare(static_cast<size_t>(block) * (kMaxNumberText + 1)));
    const char* const end = WriteBlock<Writer>(p, block, begin);
    p += static_cast<size_t>(block) * Writer::kItem;
    count -= block;
    out->Commit(static_cast<size_t>(end - begin) - (count == 0));  // no comma behind the last one
  }
}

// Returns what follows the elements that were written.
template <class Writer>
const uint8_t* WriteLevel(const TensorView& tensor, int depth, const uint8_t* p, Buffer* out) {
  if (depth == tensor.rank) {
    WriteRow<Writer>(p, 1, out);
    return p + Writer::kItem;
  }
  AppendText("[", out);
  const int64_t count = tensor.dims[depth];
  if (depth + 1 == tensor.rank) {
    WriteRow<Writer>(p, count, out);
    p += static_cast<size_t>(count) * Writer::kItem;
  } else {
    for (int64_t i = 0; i < count; ++i) {
      if (i > 0) {
        AppendText(",", out);
      }
      p = WriteLevel<Writer>(tensor, depth + 1, p, out);
    }
  }
  AppendText("]", out);
  return p;
}

template <class Writer>
void WriteTensor(const TensorView& tensor, Buffer* out) {
  WriteLevel<Writer>(tensor, 0, tensor.data, out);
}

void WriteBytes(const TensorView& tensor, Buffer* out) {
  AppendText("{\"b64\":\"", out);
  const size_t size = Base64EncodedSize(tensor.bytes);
  EncodeBase64(tensor.data, tensor.bytes, reinterpret_cast<char*>(out->Prepare(size)));
  out->Commit(size);
  AppendText("\"}", out);
}

// Output positions in the order of their names.
class SortedOutputs {
 public:
  explicit SortedOutputs(const std::vector<std::string>& names) {
    if (names.size() > few_.size()) {
      many_.resize(names.size());
      order_ = many_;
    } else {
      order_ = std::span(few_).first(names.size());
    }
    std::iota(order_.begin(), order_.end(), uint32_t{0});
    std::sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) { return names[a] < names[b]; });
  }
  std::span<const uint32_t> order() const { return order_; }

 private:
  std::array<uint32_t, 32> few_;
  std::vector<uint32_t> many_;
  std::span<uint32_t> order_;
};

void WriteErrorObject(std::string_view message, Buffer* out) {
  AppendText("{\"error_msg\":", out);
  EncodeJsonString(Shorten(message), out);
  AppendText("}", out);
}

}  // namespace

void EncodeJsonTensor(const TensorView& tensor, Buffer* out) {
  switch (tensor.dtype) {
    case DataType::kBool: return WriteTensor<BoolWriter>(tensor, out);
    case DataType::kInt8: return WriteTensor<IntegerWriter<int8_t>>(tensor, out);
    case DataType::kUint8: return WriteTensor<IntegerWriter<uint8_t>>(tensor, out);
    case DataType::kInt16: return WriteTensor<IntegerWriter<int16_t>>(tensor, out);
    case DataType::kUint16: return WriteTensor<IntegerWriter<uint16_t>>(tensor, out);
    case DataType::kInt32: return WriteTensor<IntegerWriter<int32_t>>(tensor, out);
    case DataType::kUint32: return WriteTensor<IntegerWriter<uint32_t>>(tensor, out);
    case DataType::kInt64: return WriteTensor<IntegerWriter<int64_t>>(tensor, out);
    case DataType::kUint64: return WriteTensor<IntegerWriter<uint64_t>>(tensor, out);
    case DataType::kFloat16: return WriteTensor<Float16Writer>(tensor, out);
    case DataType::kFloat32: return WriteTensor<Float32Writer>(tensor, out);
    case DataType::kFloat64: return WriteTensor<Float64Writer>(tensor, out);
    case DataType::kString:
    case DataType::kBytes:
      if (tensor.rank > 0) {
        AppendText("[", out);
      }
      if (tensor.dtype == DataType::kBytes) {
        WriteBytes(tensor, out);
      } else {
        EncodeJsonString({reinterpret_cast<const char*>(tensor.data), tensor.bytes}, out);
      }
      if (tensor.rank > 0) {
        AppendText("]", out);
      }
      return;
    case DataType::kUnknown: AppendText("null", out);
  }
}

void EncodeJsonReply(const MethodSignature& signature, std::span<const InstanceResult> results,
                     const ReplySummary& summary, Buffer* out) {
  if (summary.whole_failed) {
    return WriteErrorObject(summary.message, out);
  }
  const SortedOutputs outputs(signature.outputs);
  AppendText("{\"instances\":[", out);
  bool first_instance = true;
  for (size_t number = 0; number < results.size(); ++number) {
    const InstanceResult& result = results[number];
    if (!std::exchange(first_instance, false)) {
      AppendText(",", out);
    }
    if (result.error != ErrorKind::kOk) {
      WriteErrorObject(InstanceMessage(results, number), out);
      continue;
    }
    bool first = true;
    for (const uint32_t i : outputs.order()) {
      AppendText(std::exchange(first, false) ? "{" : ",", out);
      EncodeJsonString(signature.outputs[i], out);
      AppendText(":", out);
      EncodeJsonTensor(result.outputs[i], out);
    }
    AppendText(first ? "{}" : "}", out);
  }
  AppendText("]}", out);
}

void EncodeJsonReply(const MethodSignature& signature, std::span<const InstanceResult> results, Buffer* out) {
  EncodeJsonReply(signature, results, Summarise(results), out);
}

void EncodeJsonError(std::string_view message, Buffer* out) { WriteErrorObject(message, out); }

}  // namespace msserving
