// The client's side: requests written, replies read.
#include "protocol/predict_client_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "support/codec_messages.h"
#include "wire_builder.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(ClientCodecTest, RequestComesBackAsSent) {
  RequestInstances sent;
  sent.count = 2;
  sent.tensors = {View(DataType::kFloat32, {1, 2}, "abcdefgh"), View(DataType::kString, {}, ""),
                  View(DataType::kInt64, {3, 0}, ""), View(DataType::kBytes, {1}, "\xFF")};
  Buffer message;
  EncodeRequest("servable", "method", 12, kAdd.inputs, sent, &message);
  const auto parsed = Parse(message.bytes(), kAdd);
  ASSERT_TRUE(parsed->status.ok()) << parsed->status.message();
  EXPECT_EQ(parsed->envelope.servable, "servable");
  EXPECT_EQ(parsed->envelope.version, 12u);
  ASSERT_EQ(parsed->instances.tensors.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(Text(parsed->instances.tensors[i]), Text(sent.tensors[i]));
    EXPECT_EQ(parsed->instances.tensors[i].dtype, sent.tensors[i].dtype);
    EXPECT_TRUE(std::ranges::equal(parsed->instances.tensors[i].shape(), sent.tensors[i].shape()));
  }
}

TEST(ClientCodecTest, RepliesThatAreNotRepliesAreRefused) {
  ParsedReply reply;
  EXPECT_FALSE(ParseReply(BytesOf("\x1A\x7F"), &reply).ok());
  const Message bad_tensor = Message().Sub(3, Instance({Item("y", Tensor({3}, kFloat32, "abc"))}));
  EXPECT_NE(ParseReply(bad_tensor.bytes(), &reply).message().find("Output y has 3 bytes"), std::string::npos);
}

}  // namespace
}  // namespace msserving
