#include "worker/argmax.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace msserving {
namespace {

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU;
  const uint32_t fraction = half & 0x3FFU;
  if (exponent == 0x1F) {
    return std::bit_cast<float>(sign | 0x7F800000U | (fraction << 13));
  }
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

template <typename T>
T Load(const uint8_t* data, size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T, typename Read>
int64_t Largest(size_t count, Read read) {
  T best = read(0);
  size_t position = 0;
  for (size_t i = 1; i < count; ++i) {
    const T value = read(i);
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(best)) {
        break;
      }
      if (std::isnan(value)) {
        return static_cast<int64_t>(i);
      }
    }
    if (value > best) {
      best = value;
      position = i;
    }
  }
  return static_cast<int64_t>(position);
}

template <typename T>
int64_t LargestOf(const uint8_t* data, size_t count) {
  return Largest<T>(count, [data](size_t i) { return Load<T>(data, i); });
}

}  // namespace

Status Argmax(const TensorView& value, int64_t* position) {
  const size_t item = ItemSize(value.dtype);
  if (item == 0) {
    return Status(ErrorKind::kInvalidInput, std::string("argmax cannot take ") + NameOf(value.dtype));
  }
  const size_t count = value.bytes / item;
  if (count == 0) {
    return Status(ErrorKind::kInvalidInput, "argmax of an empty tensor");
  }
  const uint8_t* data = value.data;
  switch (value.dtype) {
    case DataType::kInt8: *position = LargestOf<int8_t>(data, count); break;
    case DataType::kInt16: *position = LargestOf<int16_t>(data, count); break;
    case DataType::kUint16: *position = LargestOf<uint16_t>(data, count); break;
    case DataType::kInt32: *position = LargestOf<int32_t>(data, count); break;
    case DataType::kUint32: *position = LargestOf<uint32_t>(data, count); break;
    case DataType::kInt64: *position = LargestOf<int64_t>(data, count); break;
    case DataType::kUint64: *position = LargestOf<uint64_t>(data, count); break;
    case DataType::kFloat32: *position = LargestOf<float>(data, count); break;
    case DataType::kFloat64: *position = LargestOf<double>(data, count); break;
    case DataType::kFloat16:
      *position = Largest<float>(count, [data](size_t i) { return HalfToFloat(Load<uint16_t>(data, i)); });
      break;
    default: *position = LargestOf<uint8_t>(data, count); break;  // bool and uint8
  }
  return Status::Ok();
}

}  // namespace msserving
