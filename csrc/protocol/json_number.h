// Numbers as JSON writes them: read straight from text into tensors, and written in their shortest form.
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <cstring>

namespace msserving {

// What a number's text says, before it becomes an int32 or a float32.
struct ScannedNumber {
  const uint8_t* begin;
  const uint8_t* end;  // one behind the last character
  uint64_t mantissa;   // all digits as one integer; meaningless if `long_mantissa`
  int64_t exponent;    // value = mantissa * 10^exponent
  bool negative;
  bool real;           // has a fraction or an exponent
  bool long_mantissa;  // more than 19 significant digits
};

namespace json_internal {

inline bool IsDigit(uint8_t c) { return static_cast<uint8_t>(c - '0') < 10; }

// True if the eight bytes are all decimal digits: each high nibble is 3, and stays 3 when 6 is added.
inline bool AreEightDigits(uint64_t bytes) {
  constexpr uint64_t kHigh = 0xF0F0F0F0F0F0F0F0;
  constexpr uint64_t kThrees = 0x3030303030303030;
  return ((bytes & kHigh) == kThrees) & (((bytes + 0x0606060606060606) & kHigh) == kThrees);
}

// Their value; pairs, then fours, then all eight are joined by one multiplication each.
inline uint64_t EightDigits(uint64_t bytes) {
  bytes = (bytes & 0x0F0F0F0F0F0F0F0F) * (1 + (10 << 8)) >> 8;
  bytes = (bytes & 0x00FF00FF00FF00FF) * (1 + (100 << 16)) >> 16;
  return (bytes & 0x0000FFFF0000FFFF) * (1 + (uint64_t{10000} << 32)) >> 32;
}

inline const uint8_t* ReadDigits(const uint8_t* p, uint64_t* value) {
  uint64_t v = *value;
  uint64_t eight;
  std::memcpy(&eight, p, sizeof(eight));
  while (AreEightDigits(eight)) {
    v = v * 100'000'000 + EightDigits(eight);
    p += 8;
    std::memcpy(&eight, p, sizeof(eight));
  }
  while (IsDigit(*p)) {
    v = v * 10 + (*p++ - '0');
  }
  *value = v;
  return p;
}

}  // namespace json_internal

// Reads the number at p by JSON's grammar. False if there is none. The text must end in something that is no digit
// (a JSON document's last bracket), with 16 readable bytes behind.
inline bool ScanNumber(const uint8_t* p, ScannedNumber* number) {
  using json_internal::IsDigit;
  number->begin = p;
  number->negative = *p == '-';
  p += number->negative;
  const uint8_t* digits = p;
  uint64_t mantissa = 0;
  if (*p == '0') {
    ++p;
  } else if (IsDigit(*p)) {
    while (IsDigit(*p)) {
      mantissa = mantissa * 10 + (*p++ - '0');
    }
  } else {
    return false;
  }
  if (IsDigit(*p)) {
    return false;  // 01
  }
  int64_t exponent = 0;
  int64_t digit_count = p - digits;
  number->real = false;
  if (*p == '.') {
    const uint8_t* fraction = ++p;
    p = json_internal::ReadDigits(p, &mantissa);
    if (p == fraction) {
      return false;
    }
    exponent = fraction - p;
    digit_count -= exponent;
    number->real = true;
  }
  number->long_mantissa = false;
  if (digit_count > 19) [[unlikely]] {
    for (const uint8_t* q = digits; q < p && (*q == '0' || *q == '.'); ++q) {
      digit_count -= *q == '0';
    }
    number->long_mantissa = digit_count > 19;
  }
  if ((*p | 0x20) == 'e') {
    ++p;
    const bool negative_exponent = *p == '-';
    p += *p == '-' || *p == '+';
    if (!IsDigit(*p)) {
      return false;
    }
    int64_t e = 0;
    for (; IsDigit(*p); ++p) {
      e = e < 1'000'000'000'000 ? e * 10 + (*p - '0') : e;
    }
    exponent += negative_exponent ? -e : e;
    number->real = true;
  }
  number->mantissa = mantissa;
  number->exponent = exponent;
  number->end = p;
  return true;
}

// Correctly rounded (to nearest, ties to even). False if the value is beyond float32's range.
bool ToFloat32(const ScannedNumber& number, float* value);

// False if the number is not an integer of the int32 range.
inline bool ToInt32(const ScannedNumber& number, int32_t* value) {
  if (number.real || number.long_mantissa || number.mantissa > uint64_t{INT32_MAX} + number.negative) {
    return false;
  }
  const auto magnitude = static_cast<int64_t>(number.mantissa);
  *value = static_cast<int32_t>(number.negative ? -magnitude : magnitude);
  return true;
}

// The room that WriteFloat32(), WriteFloat64() and integers need; they may scribble behind the end they return.
inline constexpr int kMaxNumberText = 32;

// The shortest text that reads back as the same value of its type; always with a fraction or an exponent, so that it
// stays a real for JSON readers: 1.0, 0.1, 1e-07. NaN and infinities: null. Returns the end of what was written.
char* WriteFloat32(float value, char* out);
char* WriteFloat64(double value, char* out);

}  // namespace msserving
