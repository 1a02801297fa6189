// Reading requests, in every form in which protobuf may write one.
#include "protocol/predict_codec.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "protocol/wire.h"
#include "support/codec_messages.h"
#include "wire_builder.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(ParseEnvelopeTest, UsualRequest) {
  const Message spec = Spec("add", "add_common", 3);
  const Message request = Request(spec, {Instance({}), Instance({Item("x", TextTensor(kString, "a"))})});
  RequestEnvelope envelope;
  ASSERT_TRUE(ParseEnvelope(request.bytes(), &envelope).ok());
  EXPECT_EQ(envelope.servable, "add");
  EXPECT_EQ(envelope.method, "add_common");
  EXPECT_EQ(envelope.version, 3u);
  EXPECT_EQ(wire::AsText(envelope.spec), spec.text());
  ASSERT_EQ(envelope.instances.size(), 2u);
  EXPECT_TRUE(envelope.instances[0].empty());
}

TEST(ParseEnvelopeTest, EmptyMessageIsEmptyRequest) {
  RequestEnvelope envelope;
  ASSERT_TRUE(ParseEnvelope({}, &envelope).ok());
  EXPECT_TRUE(envelope.servable.empty());
  EXPECT_TRUE(envelope.instances.empty());
}

TEST(ParseEnvelopeTest, SpecInPiecesIsMerged_LastScalarWins) {
  const Message request = Message()
                              .Sub(1, Message().Bytes(1, "old").Number(3, 1))
                              .Sub(2, Message())
                              .Sub(1, Message())
                              .Sub(1, Message().Bytes(2, "m").Bytes(1, "new").Number(3, 7));
  RequestEnvelope envelope;
  ASSERT_TRUE(ParseEnvelope(request.bytes(), &envelope).ok());
  EXPECT_EQ(envelope.servable, "new");
  EXPECT_EQ(envelope.method, "m");
  EXPECT_EQ(envelope.version, 7u);
  EXPECT_EQ(wire::AsText(envelope.spec),
            Message().Bytes(1, "old").Number(3, 1).Bytes(2, "m").Bytes(1, "new").Number(3, 7).text());
}

TEST(ParseEnvelopeTest, UnknownAndMistypedFieldsAreSkipped) {
  const Message request = Message()
                              .Number(1, 5)
                              .Raw(Varint(9 << 3 | 3))
                              .Number(1, 1)
                              .Raw(Varint(9 << 3 | 4))
                              .Sub(1, Message().Number(1, 3).Bytes(3, "x").Bytes(1, "add").Bytes(77, "?"))
                              .Number(2, 8);
  RequestEnvelope envelope;
  ASSERT_TRUE(ParseEnvelope(request.bytes(), &envelope).ok());
  EXPECT_EQ(envelope.servable, "add");
  EXPECT_EQ(envelope.version, 0u);
  EXPECT_TRUE(envelope.instances.empty());
}

TEST(ParseEnvelopeTest, EveryCutOfARequestIsRefusedOrStillAMessage) {
  const Message request = Request(Spec("add", "m", 300), {Instance({Item("x1", Tensor({2}, kFloat32, "12345678"))}),
                                                          Instance({Item("x2", TextTensor(kString, "abc"))})});
  for (size_t cut = 0; cut <= request.text().size(); ++cut) {
    const std::vector<uint8_t> bytes(request.text().begin(), request.text().begin() + static_cast<ptrdiff_t>(cut));
    RequestEnvelope envelope;
    RequestInstances instances;
    if (ParseEnvelope(bytes, &envelope).ok()) {
      (void)ParseInstances(envelope, kAdd, &instances).ok();
    } else {
      EXPECT_TRUE(envelope.spec.empty());
      EXPECT_TRUE(envelope.instances.empty());
    }
  }
}

TEST(ParseEnvelopeTest, NamesThatAreNotUtf8AreRefused) {
  RequestEnvelope envelope;
  EXPECT_FALSE(ParseEnvelope(Request(Spec("\xFF", "m"), {}).bytes(), &envelope).ok());
  EXPECT_FALSE(ParseEnvelope(Request(Spec("s", "\xC0\x80"), {}).bytes(), &envelope).ok());
}

TEST(ParseEnvelopeTest, InstanceCountIsBounded) {
  std::string message;
  for (size_t i = 0; i < kMaxInstances; ++i) {
    message += std::string("\x12\x00", 2);
  }
  RequestEnvelope envelope;
  ASSERT_TRUE(ParseEnvelope(BytesOf(message), &envelope).ok());
  message += std::string("\x12\x00", 2);
  const Status status = ParseEnvelope(BytesOf(message), &envelope);
  EXPECT_EQ(status.kind(), ErrorKind::kInvalidInput);
  EXPECT_NE(status.message().find("65536"), std::string::npos) << status.message();
  envelope.ShrinkIfLarge();
  EXPECT_EQ(envelope.instances.capacity(), 0u);
}

TEST(ParseInstancesTest, TensorsPointIntoTheMessage) {
  const Message request = Request(
      Spec("add", "add"),
      {Instance({Item("x2", Tensor({2}, kFloat32, "ABCDEFGH")), Item("x1", Tensor({2, 1}, kFloat32, "abcdefgh"))})});
  const auto parsed = Parse(request.bytes(), kAdd);
  ASSERT_TRUE(parsed->status.ok()) << parsed->status.message();
  ASSERT_EQ(parsed->instances.count, 1u);
  ASSERT_EQ(parsed->instances.tensors.size(), 2u);
  const TensorView& x1 = parsed->instances.tensors[0];
  EXPECT_EQ(Text(x1), "abcdefgh");
  EXPECT_EQ(std::vector<int64_t>(x1.shape().begin(), x1.shape().end()), (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(x1.data, request.bytes().data() + request.text().find("abcdefgh"));
  EXPECT_EQ(Text(parsed->instances.tensors[1]), "ABCDEFGH");
}

TEST(ParseInstancesTest, ObjectIsUsedAgainWithoutTraces) {
  RequestEnvelope envelope;
  RequestInstances instances;
  const Message full = Request(Spec("s", "one"), {Instance({Item("x", TextTensor(kString, "a"))})});
  ASSERT_TRUE(ParseEnvelope(full.bytes(), &envelope).ok());
  ASSERT_TRUE(ParseInstances(envelope, kOne, &instances).ok());
  const Message lacking = Request(Spec("s", "one"), {Instance({})});
  ASSERT_TRUE(ParseEnvelope(lacking.bytes(), &envelope).ok());
  EXPECT_FALSE(ParseInstances(envelope, kOne, &instances).ok());
}

TEST(ParseInstancesTest, DimsInEveryEncoding) {
  const auto with_shape = [](const Message& shape) { return Message().Sub(1, shape).Number(2, 3).Bytes(3, "abcdef"); };
  const std::string expected = "kMSI_Uint8 2 3: abcdef";
  EXPECT_EQ(OneInput(with_shape(Message().Packed(1, {2, 3}))), expected);
  EXPECT_EQ(OneInput(with_shape(Message().Number(1, 2).Number(1, 3))), expected);
  EXPECT_EQ(OneInput(with_shape(Message().Packed(1, {2}).Packed(1, {}).Number(1, 3))), expected);
  EXPECT_EQ(OneInput(with_shape(Message().Bytes(1, std::string_view("\x82\x00\x83\x80\x00", 5)))), expected);
  EXPECT_EQ(
      OneInput(Message().Sub(1, Message().Number(1, 2)).Number(2, 3).Bytes(3, "abcdef").Sub(1, Message().Number(1, 3))),
      expected);
}

TEST(ParseInstancesTest, LastScalarWins) {
  EXPECT_EQ(OneInput(Message().Number(2, 99).Bytes(3, "too long").Number(2, 3).Bytes(3, "a")), "kMSI_Uint8: a");
  EXPECT_EQ(OneInput(Message().Number(2, (uint64_t{7} << 32) | 3).Bytes(3, "a")), "kMSI_Uint8: a");
}

TEST(ParseInstancesTest, MapEntriesInEveryForm) {
  const Message tensor = Message().Number(2, 3).Bytes(3, "a");
  const auto outcome = [](const Message& entry) {
    const Message request = Request(Spec("s", "one"), {Message().Sub(1, entry)});
    return Parse(request.bytes(), kOne)->status.message();
  };
  EXPECT_EQ(outcome(Message().Sub(2, tensor).Bytes(1, "x")), "");
  EXPECT_EQ(outcome(Message().Bytes(1, "other").Sub(2, tensor).Bytes(1, "x").Bytes(9, "?")), "");
  EXPECT_EQ(outcome(Message().Bytes(1, "x").Sub(2, Message().Number(2, 3)).Sub(2, Message().Bytes(3, "a"))), "");
  EXPECT_EQ(outcome(Message().Sub(2, tensor)), "Cannot find input x in instance input, instance 0");
  EXPECT_NE(outcome(Message().Bytes(1, "x")).find("data type 0"), std::string::npos);
}

TEST(ParseInstancesTest, LastOfDuplicateKeysWins) {
  const Message good = Message().Number(2, 3).Bytes(3, "g");
  const Message bad = Message().Number(2, 3).Bytes(3, "too long");
  const auto parse = [](const Message& first, const Message& second) {
    const Message request = Request(Spec("s", "one"), {Instance({Item("x", first), Item("x", second)})});
    return Parse(request.bytes(), kOne)->status.ok();
  };
  EXPECT_TRUE(parse(good, good));
  EXPECT_TRUE(parse(bad, good));
  EXPECT_FALSE(parse(good, bad));
  EXPECT_FALSE(parse(good, Message()));  // replaced, not merged
}

TEST(ParseInstancesTest, ExtraInputsAreIgnoredButMustBeWellFormed) {
  const auto with_extra = [](const Message& extra) {
    const Message request =
        Request(Spec("s", "one"), {Instance({Item("extra", extra), Item("x", Message().Number(2, 3).Bytes(3, "a"))})});
    return Parse(request.bytes(), kOne)->status.message();
  };
  EXPECT_EQ(with_extra(Tensor({-1}, 99, "whatever")), "");
  EXPECT_EQ(with_extra(Message().Raw("\x1A\x7F")), "The request is not a well-formed PredictRequest message");
}

}  // namespace
}  // namespace msserving
