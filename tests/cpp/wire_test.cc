#include "protocol/wire.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "wire_builder.h"

namespace msserving::wire {
namespace {

// The answer of reading one varint from `bytes`; -1 stands for a refusal.
std::string ReadOne(std::string_view bytes) {
  Reader reader(BytesOf(bytes));
  uint64_t value;
  return reader.ReadVarint(&value) ? std::to_string(value) : "refused";
}

bool SkipsAll(const Message& message) {
  Reader reader(message.bytes());
  while (!reader.done()) {
    uint32_t tag;
    if (!reader.ReadTag(&tag) || !reader.Skip(tag)) {
      return false;
    }
  }
  return true;
}

TEST(WireTest, VarintsComeBackAsWritten) {
  for (int bits = 0; bits < 64; ++bits) {
    for (const uint64_t value : {(uint64_t{1} << bits) - 1, uint64_t{1} << bits}) {
      uint8_t bytes[10];
      const size_t size = static_cast<size_t>(WriteVarint(bytes, value) - bytes);
      EXPECT_EQ(size, VarintSize(value)) << value;
      Reader reader({bytes, size});
      uint64_t back;
      ASSERT_TRUE(reader.ReadVarint(&back));
      EXPECT_EQ(back, value);
      EXPECT_TRUE(reader.done());
    }
  }
  EXPECT_EQ(VarintSize(UINT64_MAX), 10u);
}

TEST(WireTest, OverlongVarintIsReadUpToTenBytes) {
  EXPECT_EQ(ReadOne(std::string("\x81\x80\x80\x00", 4)), "1");
  EXPECT_EQ(ReadOne(std::string(9, '\xFF') + "\x01"), std::to_string(UINT64_MAX));
  EXPECT_EQ(ReadOne(std::string(9, '\xFF') + "\x7F"), std::to_string(UINT64_MAX));  // bits beyond 64 are dropped
  EXPECT_EQ(ReadOne(std::string(10, '\xFF') + "\x01"), "refused");
}

TEST(WireTest, CutVarintIsRefused) {
  EXPECT_EQ(ReadOne(""), "refused");
  EXPECT_EQ(ReadOne("\xFF"), "refused");
  EXPECT_EQ(ReadOne(std::string(9, '\xFF')), "refused");
}

TEST(WireTest, FieldNumberZeroIsRefused) {
  for (const std::string& bytes : {std::string("\x00", 1), std::string("\x02", 1), std::string("\x80\x00", 2)}) {
    Reader reader(BytesOf(bytes));
    uint32_t tag;
    EXPECT_FALSE(reader.ReadTag(&tag));
  }
}

TEST(WireTest, TagOfMoreThan32BitsIsRefused) {
  Reader reader(BytesOf("\xFF\xFF\xFF\xFF\x1F"));
  uint32_t tag;
  EXPECT_FALSE(reader.ReadTag(&tag));
  Reader largest(BytesOf("\xF8\xFF\xFF\xFF\x0F"));
  ASSERT_TRUE(largest.ReadTag(&tag));
  EXPECT_EQ(FieldOf(tag), (1u << 29) - 1);
}

TEST(WireTest, LengthBeyondTheEndIsRefused) {
  for (const uint64_t claimed : {uint64_t{3}, uint64_t{INT32_MAX}, uint64_t{UINT32_MAX}, UINT64_MAX, UINT64_MAX - 7}) {
    const std::string bytes = Varint(claimed) + "ab";
    Reader reader(BytesOf(bytes));
    std::span<const uint8_t> out;
    EXPECT_FALSE(reader.ReadBytes(&out)) << claimed;
  }
  Reader reader(
      BytesOf("\x02"
              "ab"));
  std::span<const uint8_t> out;
  ASSERT_TRUE(reader.ReadBytes(&out));
  EXPECT_EQ(AsText(out), "ab");
}

TEST(WireTest, UnknownFieldsOfEveryTypeAreSkipped) {
  EXPECT_TRUE(SkipsAll(Message()
                           .Number(100, UINT64_MAX)
                           .Bytes(200, "anything")
                           .Raw(Varint(300 << 3 | 1))
                           .Raw("12345678")
                           .Raw(Varint(400 << 3 | 5))
                           .Raw("1234")
                           .Raw(Varint(500 << 3 | 3))
                           .Number(1, 2)
                           .Bytes(3, "in a group")
                           .Raw(Varint(500 << 3 | 4))));
}

TEST(WireTest, CutFixedFieldsAreRefused) {
  EXPECT_FALSE(SkipsAll(Message().Raw(Varint(300 << 3 | 1)).Raw("1234567")));
  EXPECT_FALSE(SkipsAll(Message().Raw(Varint(400 << 3 | 5)).Raw("123")));
}

TEST(WireTest, TypesThatDoNotExistAreRefused) {
  EXPECT_FALSE(SkipsAll(Message().Raw(Varint(1 << 3 | 6)).Raw("12345678")));
  EXPECT_FALSE(SkipsAll(Message().Raw(Varint(1 << 3 | 7)).Raw("12345678")));
}

TEST(WireTest, GroupsMustCloseWhatTheyOpened) {
  const std::string open = Varint(9 << 3 | 3);
  const std::string close = Varint(9 << 3 | 4);
  const std::string close_other = Varint(8 << 3 | 4);
  EXPECT_TRUE(SkipsAll(Message().Raw(open + open + close + close)));
  EXPECT_FALSE(SkipsAll(Message().Raw(open)));
  EXPECT_FALSE(SkipsAll(Message().Raw(open + close_other)));
  EXPECT_FALSE(SkipsAll(Message().Raw(open + open + close)));
  EXPECT_FALSE(SkipsAll(Message().Raw(close)));
}

TEST(WireTest, GroupDepthIsBounded) {
  const auto nested = [](int depth) {
    Message message;
    for (int i = 0; i < depth; ++i) {
      message.Raw(Varint(9 << 3 | 3));
    }
    for (int i = 0; i < depth; ++i) {
      message.Raw(Varint(9 << 3 | 4));
    }
    return message;
  };
  EXPECT_TRUE(SkipsAll(nested(kMaxGroupDepth)));
  EXPECT_FALSE(SkipsAll(nested(kMaxGroupDepth + 1)));
  EXPECT_FALSE(SkipsAll(nested(1'000'000)));
}

TEST(WireTest, Utf8IsToldFromOtherBytes) {
  for (const std::string_view good :
       {"", "a", "plain ascii of some length", "häß", "ascii first, then \xF0\x9F\x8D\x80"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  for (const std::string_view bad :
       {"\xFF", "\xC0\x80", "ascii first, then \xE2\x82", "\xED\xA0\x80", "\xF4\x90\x80\x80"}) {
    EXPECT_FALSE(IsUtf8(bad));
  }
}

TEST(WireTest, WritersAndSizesAgree) {
  for (const size_t size : {0, 1, 127, 128, 16'383, 16'384, 100'000}) {
    const std::string content(size, 'x');
    std::vector<uint8_t> out(size + 16);
    EXPECT_EQ(static_cast<size_t>(WriteBytes(out.data(), 7, content.data(), size) - out.data()), FieldSize(size));
    EXPECT_EQ(std::string(out.begin(), out.begin() + static_cast<ptrdiff_t>(FieldSize(size))),
              Message().Bytes(7, content).text());
  }
}

}  // namespace
}  // namespace msserving::wire
