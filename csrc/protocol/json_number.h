// Numbers as JSON writes them: read straight from text into tensors, and written in their shortest form.
// Pure functions; any thread.
#pragma once

#include <bit>
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

// Eight characters, digits as 0 to 9.
inline uint64_t LoadDigits(const uint8_t* p) {
  uint64_t bytes;
  std::memcpy(&bytes, p, sizeof(bytes));
  return bytes ^ 0x3030303030303030;
}

// The high bit of every byte that LoadDigits() found to be no digit. Right up to the first of these; behind it digits
// may be marked, too.
inline uint64_t NoDigits(uint64_t bytes) { return ((bytes + 0x7676767676767676) | bytes) & 0x8080808080808080; }

// The value of eight digits; pairs, then fours, then all eight are joined by one multiplication each.
inline uint64_t EightDigits(uint64_t bytes) {
  bytes = bytes * (1 + (10 << 8)) >> 8;
  bytes = (bytes & 0x00FF00FF00FF00FF) * (1 + (100 << 16)) >> 16;
  return (bytes & 0x0000FFFF0000FFFF) * (1 + (uint64_t{10000} << 32)) >> 32;
}

inline constexpr uint64_t kTens[] = {1, 10, 100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000};

// Appends the digits at p, if any, to *value.
inline const uint8_t* ReadDigits(const uint8_t* p, uint64_t* value) {
  uint64_t v = *value;
  uint64_t eight = LoadDigits(p);
  uint64_t others = NoDigits(eight);
  for (; others == 0; others = NoDigits(eight)) {
    v = v * 100'000'000 + EightDigits(eight);
    p += 8;
    eight = LoadDigits(p);
  }
  const int count = std::countr_zero(others) / 8;  // below 8; that many digits and zeros before them:
  *value = v * kTens[count] + EightDigits(eight << (56 - 8 * count) << 8);
  return p + count;
}

// What may follow a number, and what makes it a longer one.
struct NumberEnds {
  constexpr NumberEnds() {
    for (int c = 0; c < 256; ++c) {
      goes_on[c] = (c >= '0' && c <= '9') || c == 'e' || c == 'E';
    }
  }
  uint8_t goes_on[256] = {};
};
inline constexpr NumberEnds kNumberEnds;

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
    p = json_internal::ReadDigits(p, &mantissa);
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

// The usual real: one digit before the point, one to nine behind it and no exponent, as float32 values between -10 and
// 10 are written. Reads it and moves *text behind it; false, with nothing changed, if the number there is any other, or
// none: ScanNumber() tells. The text must end as it has to for that.
// Sign and length are anybody's guess, the processor's too, so nothing branches on them. Nor are they compared:
// compilers turn many comparisons into code that ties one number's steps to those of the number before.
[[gnu::always_inline]] inline bool ReadShortReal(const uint8_t** text, float* value) {
  static constexpr double kTenths[] = {1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9};
  const uint8_t* p = *text;
  const uint32_t begin = *p;
  const uint32_t negative = (begin - '0') >> 31;  // or another character below the digits
  p += negative;
  const uint32_t first = static_cast<uint8_t>(p[0] - '0');
  const uint64_t eight = json_internal::LoadDigits(p + 2);
  const uint64_t others = json_internal::NoDigits(eight);
  const uint64_t all_eight = ((others | -others) >> 63) ^ 1;
  const uint64_t count = static_cast<uint64_t>(std::countr_zero(others | uint64_t{1} << 63)) / 8 + all_eight;
  const uint32_t ninth = static_cast<uint8_t>(p[10] - '0');
  const uint64_t has_ninth = all_eight & ((ninth - 10) >> 31);
  const uint8_t* const end = p + 2 + count + has_ninth;
  const uint64_t unusual = (negative * (begin ^ '-')) | ((9 - first) >> 31) | (p[1] ^ uint32_t{'.'}) | (others & 0x80) |
                           json_internal::kNumberEnds.goes_on[*end];
  if (unusual != 0) {
    return false;
  }
  uint64_t mantissa = first * json_internal::kTens[count] + json_internal::EightDigits(eight << (64 - 8 * count));
  mantissa += (9 * mantissa + ninth) & -has_ninth;
  // Two roundings to double: off by at most 1.5 units in its last place. What ToFloat32() says of that is true here.
  const double d = static_cast<double>(static_cast<int64_t>(mantissa)) * kTenths[count + has_ninth];
  const uint64_t dropped = std::bit_cast<uint64_t>(d) & ((uint64_t{1} << 29) - 1);
  if (dropped - ((uint64_t{1} << 28) - 3) <= 6) [[unlikely]] {
    return false;
  }
  const auto magnitude = static_cast<float>(d);
  *value = std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | negative << 31);
  *text = end;
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
// Each followed by a comma. `values` need not be aligned.
char* WriteFloat32s(const uint8_t* values, int64_t count, char* out);

}  // namespace msserving
