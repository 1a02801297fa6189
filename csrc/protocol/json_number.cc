#include "protocol/json_number.h"

#include <bit>
#include <cfloat>
#include <charconv>
#include <cmath>

namespace msserving {
namespace {

constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr int64_t kLargestExactPower = 22;

bool ToFloat32Slowly(const ScannedNumber& number, float* value) {
  float parsed = 0;
  const auto result =
      std::from_chars(reinterpret_cast<const char*>(number.begin), reinterpret_cast<const char*>(number.end), parsed);
  if (result.ec == std::errc()) {
    *value = parsed;
    return !std::isinf(parsed);
  }
  // Out of range: too large, or so small that it rounds to zero. The text's own magnitude tells which: its first
  // non-zero digit stands at 10^position.
  int64_t position = number.exponent;
  for (const uint8_t* p = number.begin; p < number.end && (*p | 0x20) != 'e'; ++p) {
    if (*p >= '1' && *p <= '9') {
      for (; p < number.end && (*p | 0x20) != 'e'; ++p) {
        position += *p != '.';
      }
      break;
    }
  }
  *value = number.negative ? -0.0F : 0.0F;
  return position <= 0;
}

}  // namespace

bool ToFloat32(const ScannedNumber& number, float* value) {
  if (number.mantissa == 0 && !number.long_mantissa) {
    *value = number.negative ? -0.0F : 0.0F;
    return true;
  }
  if (number.long_mantissa || number.exponent < -kLargestExactPower || number.exponent > kLargestExactPower) {
    return ToFloat32Slowly(number, value);
  }
  // The mantissa rounded to double, then one multiplication or division by an exact power: off by at most 1.5 units
  // in the last place of a double. That decides the float unless it lies that close to the middle of two floats,
  // where the 29 bits that are dropped read 1 followed by zeros.
  double d = static_cast<double>(number.mantissa);
  d = number.exponent < 0 ? d / kPowersOfTen[-number.exponent] : d * kPowersOfTen[number.exponent];
  const uint64_t dropped = std::bit_cast<uint64_t>(d) & ((uint64_t{1} << 29) - 1);
  constexpr uint64_t kMiddle = uint64_t{1} << 28;
  if (dropped - (kMiddle - 3) <= 6 || d < FLT_MIN || d > FLT_MAX) [[unlikely]] {
    return ToFloat32Slowly(number, value);
  }
  const auto magnitude = static_cast<float>(d);
  *value = number.negative ? -magnitude : magnitude;
  return true;
}

namespace {

// ceil(10^e * 2^(63 - floor(log2 10^e))) for e = -31 ... 45: every power of ten that a float32 needs, as 64 bits with
// the highest one set.
constexpr int kFirstPower = -31;
constexpr uint64_t kScaledPowers[] = {
    0x81CEB32C4B43FCF5, 0xA2425FF75E14FC32, 0xCAD2F7F5359A3B3F, 0xFD87B5F28300CA0E, 0x9E74D1B791E07E49,
    0xC612062576589DDB, 0xF79687AED3EEC552, 0x9ABE14CD44753B53, 0xC16D9A0095928A28, 0xF1C90080BAF72CB2,
    0x971DA05074DA7BEF, 0xBCE5086492111AEB, 0xEC1E4A7DB69561A6, 0x9392EE8E921D5D08, 0xB877AA3236A4B44A,
    0xE69594BEC44DE15C, 0x901D7CF73AB0ACDA, 0xB424DC35095CD810, 0xE12E13424BB40E14, 0x8CBCCC096F5088CC,
    0xAFEBFF0BCB24AAFF, 0xDBE6FECEBDEDD5BF, 0x89705F4136B4A598, 0xABCC77118461CEFD, 0xD6BF94D5E57A42BD,
    0x8637BD05AF6C69B6, 0xA7C5AC471B478424, 0xD1B71758E219652C, 0x83126E978D4FDF3C, 0xA3D70A3D70A3D70B,
    0xCCCCCCCCCCCCCCCD, 0x8000000000000000, 0xA000000000000000, 0xC800000000000000, 0xFA00000000000000,
    0x9C40000000000000, 0xC350000000000000, 0xF424000000000000, 0x9896800000000000, 0xBEBC200000000000,
    0xEE6B280000000000, 0x9502F90000000000, 0xBA43B74000000000, 0xE8D4A51000000000, 0x9184E72A00000000,
    0xB5E620F480000000, 0xE35FA931A0000000, 0x8E1BC9BF04000000, 0xB1A2BC2EC5000000, 0xDE0B6B3A76400000,
    0x8AC7230489E80000, 0xAD78EBC5AC620000, 0xD8D726B7177A8000, 0x878678326EAC9000, 0xA968163F0A57B400,
    0xD3C21BCECCEDA100, 0x84595161401484A0, 0xA56FA5B99019A5C8, 0xCECB8F27F4200F3A, 0x813F3978F8940985,
    0xA18F07D736B90BE6, 0xC9F2C9CD04674EDF, 0xFC6F7C4045812297, 0x9DC5ADA82B70B59E, 0xC5371912364CE306,
    0xF684DF56C3E01BC7, 0x9A130B963A6C115D, 0xC097CE7BC90715B4, 0xF0BDC21ABB48DB21, 0x96769950B50D88F5,
    0xBC143FA4E250EB32, 0xEB194F8E1AE525FE, 0x92EFD1B8D0CF37BF, 0xB7ABC627050305AE, 0xE596B7B0C643C71A,
    0x8F7E32CE7BEA5C70, 0xB35DBF821AE4F38C};

struct Decimal {
  uint32_t digits;
  int exponent;
};

// The high 32 bits of g * c, with the lowest one set if anything below was not zero.
uint32_t RoundToOdd(uint64_t g, uint32_t c) {
  const unsigned __int128 product = static_cast<unsigned __int128>(g) * c;
  const auto high = static_cast<uint32_t>(product >> 64);
  const auto low = static_cast<uint32_t>(product >> 32);
  return high | static_cast<uint32_t>(low > 1);
}

// The shortest decimal inside a float's rounding interval, and of those the closest, by the method of R. Giulietti
// (The Schubfach way to render doubles). `fraction` and `biased` are the fields of a positive finite float.
Decimal ShortestDecimal(uint32_t fraction, uint32_t biased) {
  const uint32_t c = biased != 0 ? fraction | (1U << 23) : fraction;
  const int q = biased != 0 ? static_cast<int>(biased) - 150 : -149;
  const bool is_odd = (c & 1) != 0;
  // Just above a power of two the gap below is half as wide.
  const bool narrow_below = fraction == 0 && biased > 1;
  const uint32_t lower_bound = 4 * c - 2 + static_cast<uint32_t>(narrow_below);
  // floor(log10(2^q)), or floor(log10(3/4 * 2^q)) for the narrow case; then the power 10^-k brings the value to units.
  const int k = (q * 1'262'611 - (narrow_below ? 524'031 : 0)) >> 22;
  const int shift = q + ((-k * 1'741'647) >> 19) + 1;
  const uint64_t g = kScaledPowers[-k - kFirstPower];
  const uint32_t lower = RoundToOdd(g, lower_bound << shift) + is_odd;
  const uint32_t value = RoundToOdd(g, (4 * c) << shift);
  const uint32_t upper = RoundToOdd(g, (4 * c + 2) << shift) - is_odd;
  const uint32_t s = value / 4;
  if (s >= 10) {
    const uint32_t tens = s / 10;
    const bool down_fits = lower <= 40 * tens;
    const bool up_fits = 40 * tens + 40 <= upper;
    if (down_fits != up_fits) {
      return {tens + up_fits, k + 1};
    }
  }
  const bool down_fits = lower <= 4 * s;
  const bool up_fits = 4 * s + 4 <= upper;
  if (down_fits != up_fits) {
    return {s + up_fits, k};
  }
  const bool closer_up = value + (s & 1) > 4 * s + 2;  // ties to even
  return {s + closer_up, k};
}

int CountDigits(uint32_t v) {
  constexpr uint32_t kTens[] = {0, 10, 100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000, 1'000'000'000};
  const int guess = (std::bit_width(v) * 1233) >> 12;  // 1233 / 4096 is log10(2), closely enough for 32 bits
  return guess + static_cast<int>(v >= kTens[guess]);
}

// Eight decimal digits as eight bytes, the first digit lowest: split into fours, pairs and single digits, each step
// for all lanes of the word at once.
uint64_t SplitDigits(uint32_t v) {
  const uint64_t fours = v / 10'000 | uint64_t{v % 10'000} << 32;
  const uint64_t hundreds = (fours * 10'486 >> 20) & 0x0000007F'0000007F;
  const uint64_t pairs = hundreds | (fours - hundreds * 100) << 16;
  const uint64_t tens = (pairs * 103 >> 10) & 0x000F000F'000F000F;
  return tens | (pairs - tens * 10) << 8;
}

char* WriteExponent(int exponent, char* out) {
  *out++ = 'e';
  *out++ = exponent < 0 ? '-' : '+';
  const int magnitude = exponent < 0 ? -exponent : exponent;
  *out++ = static_cast<char>('0' + magnitude / 10);  // a float32's is below 100
  *out++ = static_cast<char>('0' + magnitude % 10);
  return out;
}

// Plain notation from 0.0001 to below 1e16, else scientific. Digits are stored in words of fixed length, more than
// needed: counting them, or loading again what was just stored, would cost more.
char* WriteDecimal(Decimal decimal, char* out) {
  static constexpr uint32_t kTens[] = {1, 10, 100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000};
  constexpr int kDigits = 9;  // no float32 needs more
  const int count = CountDigits(decimal.digits);
  const int point = count + decimal.exponent;  // digits before the decimal point
  // All nine digits, left-aligned: the first one and the eight behind it.
  const uint32_t nine = decimal.digits * kTens[kDigits - count];
  const auto first = static_cast<char>('0' + nine / 100'000'000);
  const uint64_t split = SplitDigits(nine % 100'000'000);
  const uint64_t eight = split | 0x30303030'30303030;
  const int used = split == 0 ? 1 : kDigits - std::countl_zero(split) / 8;

  if (point <= 0 && point > -4) {
    std::memcpy(out, "0.000000", 8);
    out += 2 - point;
    out[0] = first;
    std::memcpy(out + 1, &eight, 8);
    return out + used;
  }
  if (point > 0 && point < kDigits) {
    const int shift = 8 * (point - 1);
    const uint64_t before = (uint64_t{1} << shift) - 1;
    const uint64_t word = (eight & before) | uint64_t{'.'} << shift | (eight & ~before) << 8;
    out[0] = first;
    std::memcpy(out + 1, &word, 8);
    out[kDigits] = static_cast<char>(eight >> 56);
    return out + (used > point ? used + 1 : point + 2);
  }
  if (point > 0 && point <= 16) {
    std::memset(out, '0', 18);
    out[0] = first;
    std::memcpy(out + 1, &eight, 8);
    out[point] = '.';
    return out + point + 2;
  }
  out[0] = first;
  out[1] = '.';
  std::memcpy(out + 2, &eight, 8);
  return WriteExponent(point - 1, used == 1 ? out + 1 : out + used + 1);
}

}  // namespace

char* WriteFloat32(float value, char* out) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t fraction = bits & ((1U << 23) - 1);
  const uint32_t biased = (bits >> 23) & 0xFF;
  if (biased == 0xFF) {
    std::memcpy(out, "null", 4);
    return out + 4;
  }
  *out = '-';
  out += bits >> 31;
  if (biased == 0 && fraction == 0) {
    std::memcpy(out, "0.0", 3);
    return out + 3;
  }
  return WriteDecimal(ShortestDecimal(fraction, biased), out);
}

char* WriteFloat64(double value, char* out) {
  if (!std::isfinite(value)) {
    std::memcpy(out, "null", 4);
    return out + 4;
  }
  char* end = std::to_chars(out, out + kMaxNumberText, value).ptr;
  for (const char* p = out; p < end; ++p) {
    if (*p == '.' || *p == 'e') {
      return end;
    }
  }
  *end++ = '.';
  *end++ = '0';
  return end;
}

}  // namespace msserving
