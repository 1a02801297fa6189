// Element types, with the numbers of the wire's DataType enum.
#pragma once

#include <cstddef>
#include <cstdint>

namespace msserving {

enum class DataType : uint8_t {
  kUnknown = 0,
  kBool = 1,
  kInt8 = 2,
  kUint8 = 3,
  kInt16 = 4,
  kUint16 = 5,
  kInt32 = 6,
  kUint32 = 7,
  kInt64 = 8,
  kUint64 = 9,
  kFloat16 = 10,
  kFloat32 = 11,
  kFloat64 = 12,
  kString = 13,
  kBytes = 14,
};

inline constexpr int kDataTypeCount = 15;

// Bytes an element takes; 0 for unknown, string and bytes.
constexpr size_t ItemSize(DataType type) {
  constexpr uint8_t kSizes[kDataTypeCount] = {0, 1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8, 0, 0};
  const auto i = static_cast<size_t>(type);
  return i < kDataTypeCount ? kSizes[i] : 0;
}

constexpr bool IsText(DataType type) { return type == DataType::kString || type == DataType::kBytes; }
constexpr bool IsValid(uint64_t number) { return number > 0 && number < kDataTypeCount; }

// The name that error messages print, e.g. "kMSI_Float32".
constexpr const char* NameOf(DataType type) {
  constexpr const char* kNames[kDataTypeCount] = {"kMSI_Unknown", "kMSI_Bool",   "kMSI_Int8",    "kMSI_Uint8",
                                                  "kMSI_Int16",   "kMSI_Uint16", "kMSI_Int32",   "kMSI_Uint32",
                                                  "kMSI_Int64",   "kMSI_Uint64", "kMSI_Float16", "kMSI_Float32",
                                                  "kMSI_Float64", "kMSI_String", "kMSI_Bytes"};
  const auto i = static_cast<size_t>(type);
  return i < kDataTypeCount ? kNames[i] : kNames[0];
}

}  // namespace msserving
