// Writing replies and errors.
#include "protocol/predict_codec.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "protocol/predict_client_codec.h"
#include "support/codec_messages.h"
#include "wire_builder.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(EncodeReplyTest, SmallTensorsAreCopied) {
  const Message spec = Spec("add", "m");
  const TensorView y = View(DataType::kFloat32, {2, 1}, "abcdefgh");
  const InstanceResult result{ErrorKind::kOk, {}, {&y, 1}};
  OutgoingBody body;
  EncodeReply(spec.bytes(), kOne, {&result, 1}, &body);
  EXPECT_TRUE(body.slices.empty());
  EXPECT_EQ(Assemble(body),
            Message().Sub(1, spec).Sub(3, Instance({Item("y", Tensor({2, 1}, kFloat32, "abcdefgh"))})).text());
}

TEST(EncodeReplyTest, LargeTensorsAreSlicesOfTheirOwnMemory) {
  const MethodSignature two{"two", {}, {"small", "large"}};
  const std::string large(kSliceBytes, 'L');
  const TensorView outputs[] = {View(DataType::kString, {}, "text"),
                                View(DataType::kUint8, {static_cast<int64_t>(kSliceBytes)}, large)};
  const InstanceResult results[] = {{ErrorKind::kOk, {}, outputs}, {ErrorKind::kOk, {}, outputs}};
  OutgoingBody body;
  EncodeReply({}, two, results, &body);
  ASSERT_EQ(body.slices.size(), 2u);
  EXPECT_EQ(static_cast<const void*>(body.slices[0].data), large.data());
  const Message tensor = Tensor({static_cast<int64_t>(kSliceBytes)}, 3, large);
  const Message instance = Instance({Item("small", TextTensor(kString, "text")), Item("large", tensor)});
  EXPECT_EQ(Assemble(body), Message().Sub(3, instance).Sub(3, instance).text());
}

TEST(EncodeReplyTest, OneByteLessThanTheLimitIsCopied) {
  const std::string bytes(kSliceBytes - 1, 'c');
  const TensorView y = View(DataType::kUint8, {static_cast<int64_t>(bytes.size())}, bytes);
  const InstanceResult result{ErrorKind::kOk, {}, {&y, 1}};
  OutgoingBody body;
  EncodeReply({}, kOne, {&result, 1}, &body);
  EXPECT_TRUE(body.slices.empty());
}

// Instances that differ in their content alone are encoded once; what comes out must not show it.
TEST(EncodeReplyTest, EachInstanceIsEncodedAsIfAlone) {
  const MethodSignature two{"two", {}, {"a", "long_name"}};
  const std::string large(kSliceBytes, 'l');
  const auto small = [](std::string_view bytes) { return View(DataType::kFloat32, {2}, bytes); };
  const TensorView wide = View(DataType::kFloat32, {static_cast<int64_t>(large.size() / 4)}, large);
  const std::vector<std::vector<TensorView>> rows = {
      {small("abcdefgh"), small("ijklmnop")},
      {small("qrstuvwx"), small("yzABCDEF")},
      {small("GHIJKLMN"), View(DataType::kFloat32, {2, 1}, "OPQRSTUV")},
      {wide, small("abcdefgh")},
      {wide, small("ijklmnop")},
      {View(DataType::kInt32, {2}, "abcdefgh"), wide},
      {View(DataType::kString, {}, "abcdefgh"), View(DataType::kFloat32, {0}, "")},
      {View(DataType::kString, {}, "ijklmnop"), View(DataType::kFloat32, {0}, "")},
  };
  std::vector<InstanceResult> results;
  std::string want;
  for (const auto& row : rows) {
    results.push_back({ErrorKind::kOk, {}, row});
    OutgoingBody alone;
    EncodeReply({}, two, {&results.back(), 1}, &alone);
    want += Assemble(alone);
  }
  OutgoingBody together;
  EncodeReply({}, two, results, &together);
  EXPECT_EQ(Assemble(together), want);
}

TEST(EncodeReplyTest, FailedInstanceLeavesAnEmptyOneAndAnErrorPerInstance) {
  const TensorView y = View(DataType::kUint8, {}, "a");
  const InstanceResult results[] = {{ErrorKind::kOk, {}, {&y, 1}}, {ErrorKind::kStageFailed, "Preprocess Failed", {}}};
  OutgoingBody body;
  EncodeReply({}, kOne, results, &body);
  EXPECT_EQ(Assemble(body), Message()
                                .Sub(3, Instance({Item("y", Message().Number(2, 3).Bytes(3, "a"))}))
                                .Sub(3, Message())
                                .Sub(4, Message())
                                .Sub(4, Message().Number(1, 2).Bytes(2, "Preprocess Failed"))
                                .text());
}

TEST(EncodeReplyTest, EqualFailuresCollapseToOne) {
  const InstanceResult results[] = {{ErrorKind::kWorkerUnavailable, "gone", {}},
                                    {ErrorKind::kWorkerUnavailable, "gone", {}}};
  OutgoingBody body;
  EncodeReply({}, kOne, results, &body);
  EXPECT_EQ(Assemble(body), Message().Sub(4, Message().Number(1, 4).Bytes(2, "gone")).text());
}

TEST(EncodeReplyTest, DifferentFailuresStayApart) {
  const InstanceResult results[] = {{ErrorKind::kStageFailed, "one", {}}, {ErrorKind::kStageFailed, "other", {}}};
  OutgoingBody body;
  EncodeReply({}, kOne, results, &body);
  ParsedReply reply;
  const std::string bytes = Assemble(body);
  ASSERT_TRUE(ParseReply(BytesOf(bytes), &reply).ok());
  EXPECT_EQ(reply.instances.size(), 2u);
  ASSERT_EQ(reply.errors.size(), 2u);
  EXPECT_EQ(reply.errors[1].message, "other");
}

TEST(EncodeReplyTest, MessagesOfEveryLengthFitTheRoomTaken) {
  for (size_t size = 380; size < 400; ++size) {
    const std::string text(size, 'e');
    const std::string other(size + 500, 'o');
    const InstanceResult results[] = {{ErrorKind::kStageFailed, text, {}}, {ErrorKind::kInvalidInput, other, {}}};
    OutgoingBody body;
    EncodeReply({}, kOne, results, &body);
    const std::string bytes = Assemble(body);
    ParsedReply reply;
    ASSERT_TRUE(ParseReply(BytesOf(bytes), &reply).ok());
    EXPECT_EQ(reply.errors[0].message, Shorten(text));
    EXPECT_EQ(reply.errors[1].message, Shorten(other));
  }
}

TEST(EncodeErrorTest, CarriesSpecCodeAndShortenedText) {
  const Message spec = Spec("s", "m");
  OutgoingBody body;
  EncodeError(spec.bytes(), ErrorKind::kServableUnavailable, "servable is not available", &body);
  EXPECT_EQ(Assemble(body),
            Message().Sub(1, spec).Sub(4, Message().Number(1, 5).Bytes(2, "servable is not available")).text());
  OutgoingBody long_body;
  const std::string text(1000, 'x');
  EncodeError({}, ErrorKind::kInvalidInput, text, &long_body);
  EXPECT_EQ(Assemble(long_body), Message().Sub(4, Message().Number(1, 2).Bytes(2, Shorten(text))).text());
}

}  // namespace
}  // namespace msserving
