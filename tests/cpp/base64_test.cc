#include "protocol/base64.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace msserving {
namespace {

std::string Encode(std::string_view bytes) {
  std::string out(Base64EncodedSize(bytes.size()), '?');
  char* end = EncodeBase64(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), out.data());
  EXPECT_EQ(end, out.data() + out.size());
  return out;
}

bool Decode(std::string_view text, std::string* bytes) {
  bytes->assign(Base64DecodedBound(text.size()), '?');
  size_t size = 0;
  const bool good = DecodeBase64(text, reinterpret_cast<uint8_t*>(bytes->data()), &size);
  bytes->resize(size);
  return good;
}

TEST(Base64, TheVectorsOfTheStandard) {
  const std::pair<const char*, const char*> kVectors[] = {{"", ""},
                                                          {"f", "Zg=="},
                                                          {"fo", "Zm8="},
                                                          {"foo", "Zm9v"},
                                                          {"foob", "Zm9vYg=="},
                                                          {"fooba", "Zm9vYmE="},
                                                          {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : kVectors) {
    EXPECT_EQ(Encode(bytes), text);
    std::string decoded;
    EXPECT_TRUE(Decode(text, &decoded)) << text;
    EXPECT_EQ(decoded, bytes);
  }
}

TEST(Base64, EveryByteAndLengthComesBack) {
  std::mt19937 random(7);
  for (size_t size = 0; size < 300; ++size) {
    std::string bytes(size, 0);
    for (char& c : bytes) {
      c = static_cast<char>(random());
    }
    std::string decoded;
    ASSERT_TRUE(Decode(Encode(bytes), &decoded));
    ASSERT_EQ(decoded, bytes);
  }
}

TEST(Base64, RefusesEveryCharacterOutsideTheAlphabetAtEveryPlace) {
  const std::string good = "QUJDREVGR0hJSktM";
  std::string decoded;
  for (int c = 0; c < 256; ++c) {
    const bool allowed = isalnum(c) != 0 || c == '+' || c == '/';
    for (size_t at = 0; at < good.size(); ++at) {
      std::string text = good;
      text[at] = static_cast<char>(c);
      const bool padding_at_end = c == '=' && at == good.size() - 1;
      EXPECT_EQ(Decode(text, &decoded), (allowed && c < 128) || padding_at_end) << c << " at " << at;
    }
  }
}

TEST(Base64, RefusesWrongLengthsAndPadding) {
  std::string decoded;
  for (const char* text : {"Z", "Zg", "Zg=", "Zm9vY", "====", "Z===", "Zg=a", "Zg==Zg==", "=g==", "Zm9v\n"}) {
    EXPECT_FALSE(Decode(text, &decoded)) << text;
  }
}

}  // namespace
}  // namespace msserving
