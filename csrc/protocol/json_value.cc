#include "protocol/json_value.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "protocol/base64.h"
#include "protocol/json_number.h"

namespace msserving {
namespace {

namespace ondemand = simdjson::ondemand;

constexpr const char* kB64Types =
    "int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16 (fp16), float32 (fp32), float64 (fp64), bool, "
    "str, bytes";

DataType TypeOf(std::string_view name) {
  struct Entry {
    std::string_view name;
    DataType type;
  };
  static constexpr Entry kTypes[] = {
      {"bytes", DataType::kBytes},     {"str", DataType::kString},      {"uint8", DataType::kUint8},
      {"float32", DataType::kFloat32}, {"fp32", DataType::kFloat32},    {"float16", DataType::kFloat16},
      {"fp16", DataType::kFloat16},    {"float64", DataType::kFloat64}, {"fp64", DataType::kFloat64},
      {"int8", DataType::kInt8},       {"int16", DataType::kInt16},     {"int32", DataType::kInt32},
      {"int64", DataType::kInt64},     {"uint16", DataType::kUint16},   {"uint32", DataType::kUint32},
      {"uint64", DataType::kUint64},   {"bool", DataType::kBool}};
  for (const Entry& entry : kTypes) {
    if (entry.name == name) {
      return entry.type;
    }
  }
  return DataType::kUnknown;
}

}  // namespace

void JsonValueReader::Begin(std::span<const uint8_t> text) {
  const size_t needed = 2 * text.size() + 64;
  if (capacity_ < needed) {
    capacity_ = std::bit_ceil(needed);
    memory_.reset(new uint8_t[capacity_]);
  }
  next_ = memory_.get();
  text_end_ = text.data() + text.size();
  refusal_.position.clear();
  refusal_.what.clear();
}

void JsonValueReader::Free() {
  memory_.reset();
  capacity_ = 0;
}

bool JsonValueReader::Read(ondemand::value value, TensorView* tensor) {
  switch (FirstOf(value)) {
    case '[': return ReadArrayValue(value, tensor);
    case '{': return ReadB64(value, false, tensor);
    case '"': return ReadText(value, tensor);
    case 't':
    case 'f': return ReadBool(value, tensor);
    case 'n': return Refuse("null is no value of any type");
    default: return ReadNumber(value, tensor);
  }
}

bool JsonValueReader::ReadBool(ondemand::value value, TensorView* tensor) {
  bool flag;
  if (Fails(value.get_bool().get(flag))) {
    return false;
  }
  uint8_t* out = Align();
  *out = static_cast<uint8_t>(flag);
  Finish(out, out + 1, DataType::kBool, tensor);
  return true;
}

bool JsonValueReader::ReadNumber(ondemand::value value, TensorView* tensor) {
  ScannedNumber number;
  if (!ScanNumber(TextOf(value), &number) || !TokenEndsAt(value.raw_json_token(), number.end)) {
    return !Fails(simdjson::NUMBER_ERROR);
  }
  if (!StoreNumber(number, tensor)) {
    ArrayResult result;
    result.defect = ArrayDefect::kOutOfRange;
    result.at = number.begin;
    return RefuseArray(result, number.real ? DataType::kFloat32 : DataType::kInt32);
  }
  return true;
}

// False if its type cannot hold it.
bool JsonValueReader::StoreNumber(const ScannedNumber& number, TensorView* tensor) {
  uint8_t* out = Align();
  float real = 0;
  int32_t integer = 0;
  if (number.real ? !ToFloat32(number, &real) : !ToInt32(number, &integer)) {
    return false;
  }
  if (number.real) {
    std::memcpy(out, &real, sizeof(real));
  } else {
    std::memcpy(out, &integer, sizeof(integer));
  }
  Finish(out, out + 4, number.real ? DataType::kFloat32 : DataType::kInt32, tensor);
  return true;
}

bool JsonValueReader::ReadPlain(const uint8_t** text, TensorView* tensor) {
  const uint8_t* const p = *text;
  if (*p == '[') {
    const ArrayStart start = PeekArray(p);
    if (start.defect != ArrayDefect::kNone || start.type == DataType::kUnknown) {
      return false;
    }
    ArrayResult result;
    uint8_t* const out = Align();
    ReadArray(p, start, out, &result);
    if (result.defect != ArrayDefect::kNone) {
      return false;
    }
    FinishArray(out, start, result, tensor);
    *text = result.text_end;
    return true;
  }
  if (*p == 't' || *p == 'f') {
    const std::string_view word = *p == 't' ? "true" : "false";
    if (std::memcmp(p, word.data(), word.size()) != 0) {
      return false;
    }
    uint8_t* const out = Align();
    *out = static_cast<uint8_t>(*p == 't');
    Finish(out, out + 1, DataType::kBool, tensor);
    *text = p + word.size();
    return true;
  }
  ScannedNumber number;
  if (!ScanNumber(p, &number) || !StoreNumber(number, tensor)) {
    return false;
  }
  *text = number.end;
  return true;
}

bool JsonValueReader::ReadArrayValue(ondemand::value value, TensorView* tensor) {
  const uint8_t* text = TextOf(value);
  const ArrayStart start = PeekArray(text);
  ArrayResult result;
  if (start.defect != ArrayDefect::kNone) {
    result.defect = start.defect;
    return RefuseArray(result, DataType::kUnknown);
  }
  if (start.type == DataType::kUnknown) {
    if (start.rank > 1) {
      return Refuse("text, bytes and b64 objects only support one item: [\"text\"] is the only array of them, not " +
                    std::to_string(start.rank) + " dimensions");
    }
    return ReadTextArray(value, tensor);
  }
  uint8_t* out = Align();
  ReadArray(text, start, out, &result);
  if (result.defect != ArrayDefect::kNone) {
    return RefuseArray(result, start.type);
  }
  // Every character up to the closing bracket has been seen; this moves the document's position there.
  ondemand::array array;
  std::string_view raw;
  if (Fails(value.get_array().get(array)) || Fails(array.raw_json().get(raw))) {
    return false;
  }
  if (reinterpret_cast<const uint8_t*>(raw.data() + raw.size()) < result.text_end) {
    return !Fails(simdjson::TAPE_ERROR);
  }
  FinishArray(out, start, result, tensor);
  return true;
}

bool JsonValueReader::ReadTextArray(ondemand::value value, TensorView* tensor) {
  ondemand::array array;
  if (Fails(value.get_array().get(array))) {
    return false;
  }
  bool first = true;
  for (auto element : array) {
    ondemand::value item;
    if (Fails(std::move(element).get(item))) {
      return false;
    }
    if (!first) {
      return Refuse("text, bytes and b64 objects only support one item in an array");
    }
    first = false;
    const char begin = FirstOf(item);
    if (begin != '"' && begin != '{') {
      return Refuse(Excerpt(TextOf(item)) +
                    " is no value of any type: allowed are numbers, true, false, one text or one b64 object");
    }
    if (!(begin == '"' ? ReadText(item, tensor) : ReadB64(item, true, tensor))) {
      return false;
    }
    tensor->rank = 1;
    tensor->dims[0] = 1;
  }
  return true;
}

bool JsonValueReader::ReadText(ondemand::value value, TensorView* tensor) {
  std::string_view text;
  if (!walker_.Text(value, &text)) {
    return false;
  }
  tensor->data = reinterpret_cast<const uint8_t*>(text.data());
  tensor->bytes = text.size();
  tensor->dtype = DataType::kString;
  return true;
}

bool JsonValueReader::ReadB64(ondemand::value value, bool text_only, TensorView* tensor) {
  ondemand::object object;
  std::string_view b64;
  if (Fails(value.get_object().get(object)) || !ReadB64Keys(object, &b64, tensor)) {
    return false;
  }
  if (b64.data() == nullptr) {
    return Refuse("json object, 'b64' is missing; allowed is {\"b64\": ..., \"type\": ..., \"shape\": [...]}");
  }
  if (text_only && !IsText(tensor->dtype)) {
    return Refuse("a b64 object inside an array has to be of type str or bytes; give numbers their 'shape' instead");
  }
  return DecodeB64(b64, tensor);
}

bool JsonValueReader::ReadB64Keys(ondemand::object object, std::string_view* b64, TensorView* tensor) {
  static constexpr std::string_view kNames[] = {"b64", "type", "shape"};
  bool seen[3] = {};
  tensor->dtype = DataType::kBytes;
  for (auto entry : object) {
    ondemand::field field;
    std::string_view key;
    if (Fails(std::move(entry).get(field)) || !walker_.Key(&field, &key)) {
      return false;
    }
    const auto which = static_cast<size_t>(std::find(kNames, kNames + 3, key) - kNames);
    if (which == 3) {
      return Refuse("unknown key '" + Shorten(key) + "' in a b64 object, allowed are 'b64', 'type' and 'shape'");
    }
    const std::string quoted = "'" + std::string(key) + "'";
    if (std::exchange(seen[which], true)) {
      return Refuse(quoted + " should be specified only one time");
    }
    if (which == 2) {
      if (!ReadShape(field.value(), tensor)) {
        return false;
      }
      continue;
    }
    if (FirstOf(field.value()) != '"') {
      return Refuse(quoted + " should be a text, not " + Excerpt(TextOf(field.value())));
    }
    std::string_view text;
    if (!walker_.Text(field.value(), &text)) {
      return false;
    }
    if (which == 0) {
      *b64 = text;
    } else {
      tensor->dtype = TypeOf(text);
      if (tensor->dtype == DataType::kUnknown) {
        return Refuse("'type' is '" + Shorten(text) + "', allowed are " + kB64Types);
      }
    }
  }
  return true;
}

bool JsonValueReader::ReadShape(ondemand::value value, TensorView* tensor) {
  if (FirstOf(value) != '[') {
    return Refuse("'shape' should be an array of integers, not " + Excerpt(TextOf(value)));
  }
  ondemand::array array;
  if (Fails(value.get_array().get(array))) {
    return false;
  }
  for (auto element : array) {
    ondemand::value item;
    if (Fails(std::move(element).get(item))) {
      return false;
    }
    ScannedNumber number;
    if (!ScanNumber(TextOf(item), &number) || number.real || number.negative || number.long_mantissa ||
        number.mantissa > static_cast<uint64_t>(INT64_MAX) || !TokenEndsAt(item.raw_json_token(), number.end)) {
      return Refuse("'shape' has " + Excerpt(TextOf(item)) + ", allowed are integers from 0");
    }
    if (tensor->rank == kMaxRank) {
      return Refuse("'shape' has more than " + std::to_string(kMaxRank) + " dimensions");
    }
    if (tensor->rank > 0 && tensor->dims[tensor->rank - 1] == 0) {
      return Refuse("'shape' has a 0 that is not its last dimension");
    }
    tensor->dims[tensor->rank++] = static_cast<int64_t>(number.mantissa);
  }
  return true;
}

bool JsonValueReader::DecodeB64(std::string_view text, TensorView* tensor) {
  uint8_t* out = Align();
  size_t size;
  if (!DecodeBase64(text, out, &size)) {
    return Refuse(
        "'b64' is no base64: allowed are letters, digits, + and /, padded with = to a multiple of four "
        "characters (there are " +
        std::to_string(text.size()) + ")");
  }
  const int64_t count = ElementCount(tensor->shape());
  if (IsText(tensor->dtype)) {
    if (count != 1 || tensor->rank > 1) {
      return Refuse("size is not matched: str and bytes are one item, allowed shapes are [] and [1]");
    }
    if (tensor->dtype == DataType::kString && !simdjson::validate_utf8(reinterpret_cast<const char*>(out), size)) {
      return Refuse("'b64' of type str is no UTF-8; use type bytes");
    }
  } else {
    const size_t item = ItemSize(tensor->dtype);
    if (count < 0 || size % item != 0 || size / item != static_cast<uint64_t>(count)) {
      return Refuse("size is not matched: 'b64' has " + std::to_string(size) + " bytes, its shape and type want " +
                    (count < 0 ? "more than fits in memory" : std::to_string(count) + " x " + std::to_string(item)));
    }
  }
  Finish(out, out + size, tensor->dtype, tensor);
  return true;
}

uint8_t* JsonValueReader::Align() {
  next_ += -reinterpret_cast<uintptr_t>(next_) & 7;
  return next_;
}

void JsonValueReader::Finish(uint8_t* begin, uint8_t* end, DataType type, TensorView* tensor) {
  tensor->data = begin;
  tensor->bytes = static_cast<uint64_t>(end - begin);
  tensor->dtype = type;
  next_ = end;
}

void JsonValueReader::FinishArray(uint8_t* begin, const ArrayStart& start, const ArrayResult& result,
                                  TensorView* tensor) {
  Finish(begin, result.out_end, start.type, tensor);
  tensor->rank = static_cast<uint8_t>(start.rank);
  std::copy_n(result.dims, start.rank, tensor->dims);
}

bool JsonValueReader::Refuse(std::string what, std::string position) {
  refusal_.what = std::move(what);
  refusal_.position = std::move(position);
  return false;
}

bool JsonValueReader::RefuseArray(const ArrayResult& result, DataType type) {
  std::string position;
  for (int i = 0; i < result.depth; ++i) {
    position += '[' + std::to_string(result.position[i]) + ']';
  }
  const char* const kind = type == DataType::kInt32 ? "an integer" : type == DataType::kFloat32 ? "a real" : "a bool";
  switch (result.defect) {
    case ArrayDefect::kEmpty:
      return Refuse("json array, shape is empty; an array needs an element (send empty tensors as b64 objects)",
                    std::move(position));
    case ArrayDefect::kMixed:
      return Refuse(
          "elements type is not equal: " + Excerpt(result.at) + " is not " + kind + ", as the first element is",
          std::move(position));
    case ArrayDefect::kRagged:
      return Refuse("size is not matched: this array's length is " + std::to_string(result.length) +
                        ", the first one's of its depth is " + std::to_string(result.dims[result.depth]),
                    std::move(position));
    case ArrayDefect::kTooDeep: return Refuse("more than " + std::to_string(kMaxRank) + " dimensions");
    case ArrayDefect::kOutOfRange:
      return Refuse(
          Excerpt(result.at) +
              (type == DataType::kInt32
                   ? " is out of the int32 range [-2147483648, 2147483647]; send other integers as b64 objects"
                   : " is out of the float32 range; send float64 as b64 objects"),
          std::move(position));
    default: return !Fails(simdjson::TAPE_ERROR);
  }
}

std::string JsonValueReader::Excerpt(const uint8_t* value) const {
  constexpr ptrdiff_t kLongest = 32;
  // The place is set with every defect. NOLINTNEXTLINE(clang-analyzer-core.NullDereference)
  const bool text = value < text_end_ && *value == '"';
  const uint8_t* p = value;
  while (p < text_end_ && p - value < kLongest) {
    const auto c = static_cast<char>(*p);
    if (p > value && (text ? c == '"' : IsJsonSpace(c) || c == ',' || c == ']' || c == '}')) {
      return {value, p + text};
    }
    ++p;
  }
  while (p > value && p < text_end_ && (*p & 0xC0) == 0x80) {
    --p;
  }
  return std::string(value, p) + (p < text_end_ ? "..." : "");
}

}  // namespace msserving
