#include "session/libraries/test_double/elementwise.h"

#include <bit>
#include <cmath>
#include <type_traits>

namespace msserving::test_double {
namespace {

// IEEE half precision as two bytes: C++20 has no type for it that every compiler knows.
struct Half {
  uint16_t bits;

  float ToFloat() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
    const int exponent = (bits >> 10) & 0x1f;
    const uint32_t mantissa = bits & 0x3ff;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
    const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                          : std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
    return sign != 0 ? -magnitude : magnitude;
  }

  static Half FromFloat(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value)) return {static_cast<uint16_t>(sign | 0x7e00)};
    const float magnitude = std::fabs(value);
    if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
    int exponent = 0;
    std::frexp(magnitude, &exponent);
    // The distance between neighbouring halves around this value; nearbyint() rounds ties to even.
    const int step = magnitude < 0x1p-14f ? -24 : exponent - 11;
    const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, -step)));
    // A mantissa that rounds up to 0x800 carries into the exponent by itself.
    const uint32_t body = step == -24 && magnitude < 0x1p-14f ? steps : ((step + 24) << 10) + steps;
    return {static_cast<uint16_t>(sign | body)};
  }
};

// Any byte but 0 is true, whoever wrote it.
struct Bool {
  uint8_t value;
};

// Calls function(pointer to the element type); false if the element type is unknown.
template <typename Function>
bool Dispatch(int32_t dtype, Function&& function) {
  switch (dtype) {
    case 1: function(static_cast<Bool*>(nullptr)); return true;
    case 2: function(static_cast<int8_t*>(nullptr)); return true;
    case 3: function(static_cast<uint8_t*>(nullptr)); return true;
    case 4: function(static_cast<int16_t*>(nullptr)); return true;
    case 5: function(static_cast<uint16_t*>(nullptr)); return true;
    case 6: function(static_cast<int32_t*>(nullptr)); return true;
    case 7: function(static_cast<uint32_t*>(nullptr)); return true;
    case 8: function(static_cast<int64_t*>(nullptr)); return true;
    case 9: function(static_cast<uint64_t*>(nullptr)); return true;
    case 10: function(static_cast<Half*>(nullptr)); return true;
    case 11: function(static_cast<float*>(nullptr)); return true;
    case 12: function(static_cast<double*>(nullptr)); return true;
    default: return false;
  }
}

template <typename T>
T Sum(T a, T b) {
  if constexpr (std::is_same_v<T, Half>) {
    return Half::FromFloat(a.ToFloat() + b.ToFloat());
  } else if constexpr (std::is_same_v<T, Bool>) {
    return Bool{a.value != 0 || b.value != 0};
  } else if constexpr (std::is_integral_v<T>) {
    // uint64_t: wraps around for every width, without the promotion to int that could overflow.
    return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  } else {
    return a + b;
  }
}

template <typename T>
T Negative(T a) {
  if constexpr (std::is_same_v<T, Half>) {
    return Half{static_cast<uint16_t>(a.bits ^ 0x8000)};
  } else if constexpr (std::is_same_v<T, Bool>) {
    return Bool{a.value == 0};
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(uint64_t{0} - static_cast<uint64_t>(a));
  } else {
    return -a;
  }
}

}  // namespace

int32_t DTypeFromName(std::string_view name) {
  constexpr std::string_view kNames[] = {"bool",   "int8",  "uint8",  "int16",   "uint16",  "int32",
                                         "uint32", "int64", "uint64", "float16", "float32", "float64"};
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == name) return static_cast<int32_t>(i) + 1;
  }
  return 0;
}

size_t ElementSize(int32_t dtype) {
  size_t size = 0;
  Dispatch(dtype, [&](auto* element) { size = sizeof(*element); });
  return size;
}

void AddInto(int32_t dtype, void* sum, size_t count, const void* values, size_t values_count) {
  Dispatch(dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    auto* to = static_cast<T*>(sum);
    const auto* from = static_cast<const T*>(values);
    for (size_t start = 0; start + values_count <= count && values_count > 0; start += values_count) {
      for (size_t i = 0; i < values_count; ++i) to[start + i] = Sum(to[start + i], from[i]);
    }
  });
}

void Negate(int32_t dtype, const void* values, void* negated, size_t count) {
  Dispatch(dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    for (size_t i = 0; i < count; ++i) static_cast<T*>(negated)[i] = Negative(static_cast<const T*>(values)[i]);
  });
}

double ElementAsDouble(int32_t dtype, const void* values, size_t index) {
  double result = 0;
  Dispatch(dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    const T value = static_cast<const T*>(values)[index];
    if constexpr (std::is_same_v<T, Half>) {
      result = static_cast<double>(value.ToFloat());
    } else if constexpr (std::is_same_v<T, Bool>) {
      result = value.value != 0 ? 1.0 : 0.0;
    } else {
      result = static_cast<double>(value);
    }
  });
  return result;
}

}  // namespace msserving::test_double
