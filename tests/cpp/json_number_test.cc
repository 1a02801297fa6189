#include "protocol/json_number.h"

#include <gtest/gtest.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace msserving {
namespace {

std::string Padded(std::string text) { return text + "]" + std::string(32, '7'); }

// The text as a float32, by our reader. What the reader of short reals takes, it must read alike.
bool Read(const std::string& text, float* value) {
  const std::string padded = Padded(text);
  const auto* const begin = reinterpret_cast<const uint8_t*>(padded.data());
  ScannedNumber number;
  const bool good = ScanNumber(begin, &number) && ToFloat32(number, value);
  const uint8_t* p = begin;
  float short_value = 0;
  if (ReadShortReal(&p, &short_value)) {
    EXPECT_TRUE(good && number.real && p == number.end) << text;
    EXPECT_EQ(std::bit_cast<uint32_t>(short_value), std::bit_cast<uint32_t>(*value)) << text;
  } else {
    EXPECT_EQ(p, begin);
  }
  return good && number.end == begin + text.size();
}

std::string Write(float value) {
  char out[kMaxNumberText];
  return {out, WriteFloat32(value, out)};
}

std::string Write(double value) {
  char out[kMaxNumberText];
  return {out, WriteFloat64(value, out)};
}

TEST(JsonNumber, ReadsWhatTheStandardLibraryReads) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 400'000; ++i) {
    char text[64];
    const auto bits = static_cast<uint32_t>(random());
    const auto value = std::bit_cast<float>(bits);
    if (!std::isfinite(value)) {
      continue;
    }
    // As a double with all its digits, and with an arbitrary number of digits.
    const auto format = i % 2 == 0 ? std::chars_format::general : std::chars_format::scientific;
    auto end = i % 3 == 0 ? std::to_chars(text, text + 64, static_cast<double>(value)).ptr
                          : std::to_chars(text, text + 64, value, format, 1 + static_cast<int>(random() % 20)).ptr;
    const std::string written(text, end);
    float expected = 0;
    if (std::from_chars(text, end, expected).ec != std::errc()) {
      continue;  // rounded up to infinity, or down to zero
    }
    float read = 0;
    ASSERT_TRUE(Read(written, &read)) << written;
    ASSERT_EQ(std::bit_cast<uint32_t>(read), std::bit_cast<uint32_t>(expected)) << written;
  }
}

// Every sign, first digit and length that the reader of short reals takes, and each of these with one character
// changed.
TEST(JsonNumber, ShortRealsAreReadLikeAllOthers) {
  std::mt19937 random(2);
  int taken = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = i % 2 == 0 ? "" : "-";
    text += static_cast<char>('0' + i / 2 % 10);
    text += '.';
    for (size_t digits = 0; digits <= i / 20 % 12U; ++digits) {
      text += static_cast<char>('0' + (random() % 4 == 0 ? 9 * (random() % 2) : random() % 10));
    }
    float value = 0;
    ASSERT_TRUE(Read(text, &value)) << text;
    float expected = 0;
    std::from_chars(text.data(), text.data() + text.size(), expected);
    ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(expected)) << text;
    const std::string padded = Padded(text);
    const auto* p = reinterpret_cast<const uint8_t*>(padded.data());
    taken += ReadShortReal(&p, &value);
    text[random() % text.size()] = "-+.,]}eE /:0\x80\xb0\xff"[random() % 15];
    Read(text, &value);
  }
  EXPECT_GT(taken, 14'000);  // those of up to nine digits
}

TEST(JsonNumber, RoundsTheMiddleOfTwoFloatsToEven) {
  // 1 + 2^-24 is exactly between 1 and its successor; one digit more or less decides.
  float value = 0;
  ASSERT_TRUE(Read("1.000000059604644775390625", &value));
  EXPECT_EQ(value, 1.0F);
  ASSERT_TRUE(Read("1.0000000596046447753906250000000000000000000001", &value));
  EXPECT_EQ(value, std::nextafter(1.0F, 2.0F));
  ASSERT_TRUE(Read("1.0000000596046447", &value));  // a double would round this to the middle, then to even
  EXPECT_EQ(value, 1.0F);
  ASSERT_TRUE(Read("1.0000000596046449", &value));
  EXPECT_EQ(value, std::nextafter(1.0F, 2.0F));
}

TEST(JsonNumber, KnowsTheEndsOfTheRange) {
  float value = 0;
  ASSERT_TRUE(Read("3.4028235e38", &value));
  EXPECT_EQ(value, std::numeric_limits<float>::max());
  EXPECT_FALSE(Read("3.4028236e38", &value));
  EXPECT_FALSE(Read("1e39", &value));
  EXPECT_FALSE(Read("1e400", &value));
  EXPECT_FALSE(Read("-1e99999999999999999999", &value));
  EXPECT_FALSE(Read("0.00001e50", &value));
  ASSERT_TRUE(Read("1.4e-45", &value));
  EXPECT_EQ(value, std::numeric_limits<float>::denorm_min());
  ASSERT_TRUE(Read("1e-60", &value));
  EXPECT_EQ(value, 0.0F);
  ASSERT_TRUE(Read("-1e-99999999999999999999", &value));
  EXPECT_TRUE(value == 0.0F && std::signbit(value));
  ASSERT_TRUE(Read("-0.0", &value));
  EXPECT_TRUE(std::signbit(value));
  ASSERT_TRUE(Read("0e99999999999", &value));
  EXPECT_EQ(value, 0.0F);
  ASSERT_TRUE(Read("0.000000000000000000000000000000000000000000000000001e50", &value));
  EXPECT_EQ(value, 0.1F);
}

TEST(JsonNumber, FollowsTheGrammar) {
  ScannedNumber number;
  for (const char* text : {"", "-", "+1", ".5", "01", "-01", "1.", "1.e5", "1e", "1e+", "a", "-a", "--1"}) {
    const std::string padded = Padded(text);
    EXPECT_FALSE(ScanNumber(reinterpret_cast<const uint8_t*>(padded.data()), &number)) << text;
  }
  for (const char* text :
       {"0", "-0", "10", "1.5", "1.50", "1e5", "1E+5", "1e-5", "0.1e1", "123456789012345678901234"}) {
    const std::string padded = Padded(text);
    ASSERT_TRUE(ScanNumber(reinterpret_cast<const uint8_t*>(padded.data()), &number)) << text;
    EXPECT_EQ(number.end - number.begin, static_cast<ptrdiff_t>(std::string(text).size())) << text;
    EXPECT_EQ(number.real, std::string(text).find_first_of(".eE") != std::string::npos) << text;
  }
}

TEST(JsonNumber, IntegersOfInt32Only) {
  const auto read = [](const std::string& text, int32_t* value) {
    const std::string padded = Padded(text);
    ScannedNumber number;
    return ScanNumber(reinterpret_cast<const uint8_t*>(padded.data()), &number) && ToInt32(number, value);
  };
  int32_t value = 0;
  ASSERT_TRUE(read("2147483647", &value));
  EXPECT_EQ(value, INT32_MAX);
  ASSERT_TRUE(read("-2147483648", &value));
  EXPECT_EQ(value, INT32_MIN);
  ASSERT_TRUE(read("-0", &value));
  EXPECT_EQ(value, 0);
  for (const char* text : {"2147483648", "-2147483649", "18446744073709551616", "99999999999999999999999999", "1.0"}) {
    EXPECT_FALSE(read(text, &value)) << text;
  }
}

TEST(JsonNumber, WritesReadablyAndKeepsRealsReal) {
  EXPECT_EQ(Write(0.0F), "0.0");
  EXPECT_EQ(Write(-0.0F), "-0.0");
  EXPECT_EQ(Write(1.0F), "1.0");
  EXPECT_EQ(Write(1.1F), "1.1");
  EXPECT_EQ(Write(-0.1F), "-0.1");
  EXPECT_EQ(Write(0.0001F), "0.0001");
  EXPECT_EQ(Write(0.00001F), "1e-05");
  EXPECT_EQ(Write(1.5e-7F), "1.5e-07");
  EXPECT_EQ(Write(100.0F), "100.0");
  EXPECT_EQ(Write(16777216.0F), "16777216.0");
  EXPECT_EQ(Write(1e15F), "1000000000000000.0");
  EXPECT_EQ(Write(1e16F), "1e+16");
  EXPECT_EQ(Write(3.4028235e38F), "3.4028235e+38");
  EXPECT_EQ(Write(1.4e-45F), "1e-45");
  EXPECT_EQ(Write(std::nanf("")), "null");
  EXPECT_EQ(Write(-INFINITY), "null");
  EXPECT_EQ(Write(0.1), "0.1");
  EXPECT_EQ(Write(3.0), "3.0");
  EXPECT_EQ(Write(1e300), "1e+300");
  EXPECT_EQ(Write(std::nan("")), "null");
}

TEST(JsonNumber, RowsAreWrittenLikeTheirFloats) {
  std::vector<float> values = {0.0F, -0.0F, 1.0F, 0.5F, -2.0F, 1e-45F, std::nanf(""), INFINITY, 3.4028235e38F};
  std::mt19937 random(4);
  while (values.size() < 1000) {
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  }
  std::string expected;
  for (const float value : values) {
    expected += Write(value) + ",";
  }
  std::string bytes(1 + values.size() * 4, 0);  // unaligned
  std::memcpy(bytes.data() + 1, values.data(), values.size() * 4);
  std::string written(values.size() * (kMaxNumberText + 1), 0);
  const char* end = WriteFloat32s(reinterpret_cast<const uint8_t*>(bytes.data() + 1),
                                  static_cast<int64_t>(values.size()), written.data());
  EXPECT_EQ(written.substr(0, static_cast<size_t>(end - written.data())), expected);
  EXPECT_EQ(WriteFloat32s(nullptr, 0, written.data()), written.data());
}

// What was written is as short as the standard library's shortest form, and reads back the same. (Tried once with all
// 2^31 floats; here with every exponent and random fractions.)
TEST(JsonNumber, FloatsAreShortestAndComeBack) {
  std::mt19937 random(3);
  const auto digits_of = [](std::string text) {
    text = text.substr(0, text.find('e'));
    std::erase(text, '.');
    text.erase(0, text.find_first_not_of('0'));
    return text.substr(0, text.find_last_not_of('0') + 1);
  };
  for (uint32_t exponent = 0; exponent < 255; ++exponent) {
    for (int i = 0; i < 1500; ++i) {
      const uint32_t fraction = i == 0 ? 0 : i == 1 ? 1 : i == 2 ? 0x7FFFFF : random() & 0x7FFFFF;
      const auto value = std::bit_cast<float>(exponent << 23 | fraction);
      if (value == 0) {
        continue;
      }
      char shortest[64];
      const auto end = std::to_chars(shortest, shortest + 64, value, std::chars_format::scientific).ptr;
      const std::string written = Write(value);
      ASSERT_EQ(digits_of(written), digits_of({shortest, end})) << value;
      float read = 0;
      ASSERT_TRUE(Read(written, &read)) << written;
      ASSERT_EQ(std::bit_cast<uint32_t>(read), std::bit_cast<uint32_t>(value)) << written;
    }
  }
}

}  // namespace
}  // namespace msserving
