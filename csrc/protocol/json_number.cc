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

// What the exponent field of a float says about its decimal form: the float c * 2^q has the decimal exponent k, and the
// high 64 bits of power * (c << shift) are c * 2^q * 10^-k * 2^32: with 32 bits behind the binary point.
struct Scale {
  uint64_t power;
  int32_t k;
  uint16_t shift;
  uint16_t narrow;  // 1: the gap below is half as wide as the one above
};

// Just above a power of two the gap below is narrow, which may take another k.
constexpr Scale ScaleOf(uint32_t biased, bool narrow) {
  const int q = biased != 0 ? static_cast<int>(biased) - 150 : -149;
  const int k = (q * 1'262'611 - (narrow ? 524'031 : 0)) >> 22;  // floor(log10(2^q)), or floor(log10(3/4 * 2^q))
  const int shift = q + ((-k * 1'741'647) >> 19) + 33;
  return {kScaledPowers[-k - kFirstPower], k, static_cast<uint16_t>(shift), narrow};
}

// By the exponent field.
struct ScaleTable {
  constexpr ScaleTable() {
    for (uint32_t biased = 0; biased < 255; ++biased) {
      usual[biased] = ScaleOf(biased, false);
      of_power_of_two[biased] = ScaleOf(biased, biased > 1);
    }
  }
  Scale usual[256] = {};
  Scale of_power_of_two[256] = {};
};
constexpr ScaleTable kScales;

// 1 if a < b, else 0, for numbers of less than 63 bits. Not as a comparison: what compilers make of many of those ties
// one float's steps to those of the float before.
inline uint64_t IsLess(uint64_t a, uint64_t b) { return (a - b) >> 63; }

// Normal floats but for powers of two; those; those below the normal ones.
enum class FloatKind { kUsual, kPowerOfTwo, kSubnormal };

// The shortest decimal inside a float's rounding interval, and of those the closest, by the method of R. Giulietti
// (The Schubfach way to render doubles). `fraction` and `biased` are the fields of a positive finite float. The digits
// may end in zeros. No branch depends on them: they are anybody's guess, the processor's too.
//
// Scaled numbers are four times their value. As the powers are rounded up, a scaled number that ought to be an integer
// has 0 or 1 in the 32 bits behind its binary point.
template <FloatKind kKind>
inline Decimal ShortestDecimal(uint32_t fraction, uint32_t biased) {
  const uint32_t c = kKind == FloatKind::kSubnormal ? fraction : fraction | (1U << 23);
  const Scale& scale = kKind == FloatKind::kPowerOfTwo ? kScales.of_power_of_two[biased] : kScales.usual[biased];
  const auto scaled = [&scale](uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(scale.power) * (bound << scale.shift)) >> 64);
  };
  // The interval has its ends if the fraction is even. A number n is above the lower one if lower < n, and below the
  // upper one if n < upper.
  const uint64_t is_odd = c & 1;
  const uint64_t lower = scaled(4 * c - 2 + (kKind == FloatKind::kPowerOfTwo ? scale.narrow : 0)) + 2 * is_odd - 2;
  const uint64_t value = scaled(4 * c);
  const uint64_t upper = scaled(4 * c + 2) - 2 * is_odd + 1;
  // One digit less: the interval is shorter than ten units, so that at most one of these two neighbours is inside.
  const uint64_t s = value >> 34;
  const uint64_t tens = s * 0xCCCCCCCD >> 35;
  const uint64_t scaled_tens = tens * 10 << 34;
  const uint64_t tens_down = IsLess(lower, scaled_tens);
  const uint64_t tens_up = IsLess(scaled_tens + (uint64_t{10} << 34), upper);
  const uint64_t shorter = 10 * (tens + tens_up);
  // Else one or both of these are: the closer one, ties to even. A narrow gap below may cut off just that.
  const uint64_t behind = value & ((uint64_t{1} << 34) - 1);
  const uint64_t closer_up = IsLess((uint64_t{1} << 33) + 1, behind + 2 * (s & 1));
  const uint64_t cut_off = kKind == FloatKind::kPowerOfTwo ? IsLess(lower, s << 34) ^ 1 : 0;
  const uint64_t longer = s + (closer_up | cut_off);
  return {static_cast<uint32_t>(longer ^ ((longer ^ shorter) & -(tens_up | tens_down))), scale.k};
}

constexpr int kDigits = 9;  // no float32 needs more

// The digits, left-aligned as kDigits digits; `point` becomes how many of them stand before the decimal point.
template <FloatKind kKind>
inline uint32_t Align(Decimal decimal, int* point) {
  static constexpr uint32_t kTens[] = {100'000'000, 10'000'000, 1'000'000, 100'000, 10'000, 1'000, 100, 10, 1};
  const uint32_t v = decimal.digits;
  uint64_t count = 7 + IsLess(9'999'999, v) + IsLess(99'999'999, v);
  if (kKind == FloatKind::kSubnormal && v < 1'000'000) {  // all others have at least seven
    for (count = 6; v < kTens[kDigits - count]; --count) {
    }
  }
  *point = static_cast<int>(count) + decimal.exponent;
  return v * kTens[count - 1];
}

// The numbers below 1000 as three characters (the first one lowest), and how many of those come before the zeros at the
// end.
struct ThreeDigitTable {
  constexpr ThreeDigitTable() {
    for (uint32_t i = 0; i < 1000; ++i) {
      text[i] = 0x303030 | i / 100 | i / 10 % 10 << 8 | i % 10 << 16;
      used[i] = i % 10 != 0 ? 3 : i % 100 != 0 ? 2 : i != 0 ? 1 : 0;
    }
  }
  uint32_t text[1000] = {};
  uint8_t used[1000] = {};
};
constexpr ThreeDigitTable kThreeDigits;

struct DigitText {
  char first;
  uint64_t eight;  // the ones behind it, the next one lowest
  int used;        // how many of the nine come before the zeros at the end
};

// Of kDigits digits, the first of them no zero.
inline DigitText TextOf(uint32_t nine) {
  const uint32_t millions = nine / 1'000'000;
  const uint32_t thousands = nine / 1'000;
  const uint32_t middle = thousands - millions * 1'000;
  const uint32_t last = nine - thousands * 1'000;
  const uint32_t begin = kThreeDigits.text[millions];
  const uint64_t eight =
      begin >> 8 | uint64_t{kThreeDigits.text[middle]} << 16 | uint64_t{kThreeDigits.text[last]} << 40;
  int used = kThreeDigits.used[millions];
  used = middle != 0 ? 3 + kThreeDigits.used[middle] : used;
  used = last != 0 ? 6 + kThreeDigits.used[last] : used;
  return {static_cast<char>(begin), eight, used};
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
template <FloatKind kKind>
[[gnu::always_inline]] inline char* WriteDecimal(uint32_t fraction, uint32_t biased, char* out) {
  int point;
  const auto [first, eight, used] = TextOf(Align<kKind>(ShortestDecimal<kKind>(fraction, biased), &point));

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

// All but the usual kind. The sign is written.
[[gnu::noinline]] char* WriteRare(uint32_t fraction, uint32_t biased, char* out) {
  if (biased != 0) {
    return WriteDecimal<FloatKind::kPowerOfTwo>(0, biased, out);
  }
  if (fraction != 0) {
    return WriteDecimal<FloatKind::kSubnormal>(fraction, 0, out);
  }
  std::memcpy(out, "0.0", 3);
  return out + 3;
}

[[gnu::always_inline]] inline char* WriteBits(uint32_t bits, char* out) {
  const uint32_t fraction = bits & ((1U << 23) - 1);
  const uint32_t biased = (bits >> 23) & 0xFF;
  if (biased == 0xFF) [[unlikely]] {
    std::memcpy(out, "null", 4);
    return out + 4;
  }
  *out = '-';
  out += bits >> 31;
  if (fraction == 0 || biased == 0) [[unlikely]] {
    return WriteRare(fraction, biased, out);
  }
  return WriteDecimal<FloatKind::kUsual>(fraction, biased, out);
}

}  // namespace

char* WriteFloat32(float value, char* out) { return WriteBits(std::bit_cast<uint32_t>(value), out); }

char* WriteFloat32s(const uint8_t* values, int64_t count, char* out) {
  for (const uint8_t* const end = values + 4 * count; values < end; values += 4) {
    uint32_t bits;
    std::memcpy(&bits, values, sizeof(bits));
    out = WriteBits(bits, out);
    *out++ = ',';
  }
  return out;
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
