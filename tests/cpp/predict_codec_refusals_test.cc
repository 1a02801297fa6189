// Which tensors and instances are taken, and what is said of those that are not.
#include "protocol/predict_codec.h"

#include <gtest/gtest.h>

#include <string>

#include "support/codec_messages.h"
#include "wire_builder.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(ParseInstancesTest, NoInstancesIsAnError) {
  const Message request = Request(Spec("s", "one"), {});
  EXPECT_EQ(Parse(request.bytes(), kOne)->status.message(), "The request has no instances");
}

TEST(ParseInstancesTest, MissingInputIsNamedBeforeAnyBadTensor) {
  const Message bad = Tensor({2}, kFloat32, "abc");
  const Message good = Tensor({}, kFloat32, "abcd");
  const Message request =
      Request(Spec("s", "add"), {Instance({Item("x1", bad), Item("x2", good)}), Instance({Item("x1", good)})});
  EXPECT_EQ(Parse(request.bytes(), kAdd)->status.message(), "Cannot find input x2 in instance input, instance 1");
}

TEST(ParseInstancesTest, ErrorNamesInputInstanceValueAndWhatIsAllowed) {
  const Message good = Item("x1", Tensor({}, kFloat32, "abcd"));
  const Message request = Request(Spec("s", "add"), {Instance({good, Item("x2", Tensor({}, kFloat32, "abcd"))}),
                                                     Instance({good, Item("x2", Tensor({2, 2}, kFloat32, "abcd"))})});
  EXPECT_EQ(Parse(request.bytes(), kAdd)->status.message(),
            "Input x2 of instance 1 has 4 bytes of data, shape [2, 2] of kMSI_Float32 takes 16");
}

TEST(ParseInstancesTest, RulesOfNumericTensors) {
  EXPECT_EQ(OneInput(Tensor({}, kFloat32, "abcd")), "kMSI_Float32: abcd");
  EXPECT_EQ(OneInput(Tensor({2, 0}, kFloat32, "")), "kMSI_Float32 2 0: ");
  EXPECT_EQ(OneInput(Tensor({0, 2}, kFloat32, "")),
            "Input x of instance 0 has shape [0, 2], a dimension of 0 is allowed only as the last one");
  EXPECT_EQ(OneInput(Tensor({2, -3}, kFloat32, "")),
            "Input x of instance 0 has shape [2, -3], dimension -3 should be >= 0");
  EXPECT_EQ(OneInput(Tensor({-1, -1}, 3, "a")),
            "Input x of instance 0 has shape [-1, -1], dimension -1 should be >= 0");
  EXPECT_EQ(OneInput(Tensor({1}, 0, "a")),
            "Input x of instance 0 has data type 0, allowed are 1 (kMSI_Bool) to 14 (kMSI_Bytes)");
  EXPECT_EQ(OneInput(Tensor({1}, 15, "a")).find("Input x of instance 0 has data type 15"), 0u);
  EXPECT_EQ(OneInput(Tensor({1}, UINT64_MAX, "a")).find("Input x of instance 0 has data type -1"), 0u);
  EXPECT_EQ(OneInput(Tensor({1, 1, 1, 1, 1, 1, 1, 1}, 3, "a")), "kMSI_Uint8 1 1 1 1 1 1 1 1: a");
  EXPECT_EQ(OneInput(Tensor({1, 1, 1, 1, 1, 1, 1, 1, 1}, 3, "a")),
            "Input x of instance 0 has 9 dimensions, at most 8 are allowed");
}

TEST(ParseInstancesTest, ShapesWhoseProductOverflowsAreRefused) {
  const int64_t huge = int64_t{1} << 32;
  EXPECT_NE(OneInput(Tensor({huge, huge}, 3, "")).find("more elements than any memory holds"), std::string::npos);
  EXPECT_NE(OneInput(Tensor({huge, huge, 0}, 3, "")).find("more elements"), std::string::npos);
  EXPECT_NE(OneInput(Tensor({int64_t{1} << 62, 4}, 3, "")).find("more elements"), std::string::npos);
  EXPECT_NE(OneInput(Tensor({INT64_MAX}, 9, "12345678")).find("more elements"), std::string::npos);
  EXPECT_NE(OneInput(Tensor({int64_t{1} << 61, 1}, 9, "")).find("more elements"), std::string::npos);
}

TEST(ParseInstancesTest, RulesOfTexts) {
  EXPECT_EQ(OneInput(TextTensor(kString, "ä")), "kMSI_String: ä");
  EXPECT_EQ(OneInput(TextTensor(kBytes, "\xFF")), "kMSI_Bytes: \xFF");
  EXPECT_EQ(OneInput(TextTensor(kBytes, "")), "kMSI_Bytes: ");
  EXPECT_EQ(OneInput(TextTensor(kString, "a").Sub(1, Message().Packed(1, {1}))), "kMSI_String 1: a");
  EXPECT_EQ(OneInput(Message().Number(2, kString).Bytes(3, "a")),
            "Input x of instance 0 has 0 elements in bytes_val, exactly 1 is allowed for kMSI_String");
  EXPECT_EQ(OneInput(TextTensor(kBytes, "a").Bytes(4, "b")),
            "Input x of instance 0 has 2 elements in bytes_val, exactly 1 is allowed for kMSI_Bytes");
  EXPECT_EQ(OneInput(TextTensor(kBytes, "a").Sub(1, Message().Packed(1, {2}))),
            "Input x of instance 0 has shape [2], allowed for kMSI_Bytes are [] and [1]");
  EXPECT_NE(OneInput(TextTensor(kBytes, "a").Sub(1, Message().Packed(1, {1, 1}))).find("[1, 1]"), std::string::npos);
  EXPECT_NE(OneInput(TextTensor(kString, "\xFF")).find("not UTF-8"), std::string::npos);
}

TEST(ParseInstancesTest, SharedMemoryFromClientsIsRefused) {
  const Message named = Message().Bytes(1, "/psm_1234").Number(2, 16);
  const Message in_tensor = Message().Number(2, 3).Bytes(3, "a").Sub(5, named);
  const Message in_instance = Instance({Item("x", Message().Number(2, 3).Bytes(3, "a"))}).Sub(2, named);
  EXPECT_NE(OneInput(in_tensor).find("shared memory"), std::string::npos);
  const Message request = Request(Spec("s", "one"), {in_instance});
  EXPECT_NE(Parse(request.bytes(), kOne)->status.message().find("shared memory"), std::string::npos);
  const Message ignored_input = Request(Spec("s", "one"), {Instance({Item("other", in_tensor)})});
  EXPECT_NE(Parse(ignored_input.bytes(), kOne)->status.message().find("shared memory"), std::string::npos);
}

}  // namespace
}  // namespace msserving
