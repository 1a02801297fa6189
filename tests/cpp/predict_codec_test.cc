#include "protocol/predict_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "protocol/predict_client_codec.h"
#include "protocol/wire.h"
#include "wire_builder.h"

namespace msserving {
namespace {

constexpr uint64_t kFloat32 = 11;
constexpr uint64_t kString = 13;
constexpr uint64_t kBytes = 14;

const MethodSignature kAdd{"add", {"x1", "x2"}, {"y"}};
const MethodSignature kOne{"one", {"x"}, {"y"}};

struct Parsed {
  Status status;
  RequestEnvelope envelope;
  RequestInstances instances;
};

std::unique_ptr<Parsed> Parse(std::span<const uint8_t> message, const MethodSignature& signature) {
  auto parsed = std::make_unique<Parsed>();
  parsed->status = ParseEnvelope(message, &parsed->envelope);
  if (parsed->status.ok()) {
    parsed->status = ParseInstances(parsed->envelope, signature, &parsed->instances);
  }
  EXPECT_TRUE(parsed->status.ok() || parsed->status.kind() == ErrorKind::kInvalidInput);
  EXPECT_TRUE(parsed->status.ok() || parsed->instances.tensors.empty());
  return parsed;
}

// The outcome of a request with one instance that has the one input "x".
std::string OneInput(const Message& tensor) {
  const Message request = Request(Spec("s", "one"), {Instance({Item("x", tensor)})});
  const auto parsed = Parse(request.bytes(), kOne);
  if (!parsed->status.ok()) {
    return parsed->status.message();
  }
  const TensorView& view = parsed->instances.tensors[0];
  std::string text = NameOf(view.dtype);
  for (const int64_t dim : view.shape()) {
    text += " " + std::to_string(dim);
  }
  return text + ": " + std::string(reinterpret_cast<const char*>(view.data), view.bytes);
}

std::string Text(const TensorView& view) { return {reinterpret_cast<const char*>(view.data), view.bytes}; }

std::string Assemble(const OutgoingBody& body) {
  std::string out;
  size_t at = 0;
  for (const OutgoingBody::Slice& slice : body.slices) {
    out.append(reinterpret_cast<const char*>(body.encoded.data()) + at, slice.at - at);
    out.append(reinterpret_cast<const char*>(slice.data), slice.size);
    at = slice.at;
  }
  out.append(reinterpret_cast<const char*>(body.encoded.data()) + at, body.encoded.size() - at);
  EXPECT_EQ(out.size(), body.TotalSize());
  return out;
}

TensorView View(DataType dtype, std::initializer_list<int64_t> dims, std::string_view bytes) {
  TensorView view;
  view.data = reinterpret_cast<const uint8_t*>(bytes.data());
  view.bytes = bytes.size();
  view.dtype = dtype;
  for (const int64_t dim : dims) {
    view.dims[view.rank++] = dim;
  }
  return view;
}

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

// What each instance of a request is when it is sent alone.
void ExpectAsAlone(const std::vector<Message>& instances, const MethodSignature& signature) {
  const Message request = Request(Spec("s", "m"), instances);
  const auto together = Parse(request.bytes(), signature);
  ASSERT_TRUE(together->status.ok()) << together->status.message();
  const size_t inputs = signature.inputs.size();
  ASSERT_EQ(together->instances.tensors.size(), instances.size() * inputs);
  for (size_t i = 0; i < instances.size(); ++i) {
    const Message one = Request(Spec("s", "m"), {instances[i]});
    const auto alone = Parse(one.bytes(), signature);
    ASSERT_TRUE(alone->status.ok()) << alone->status.message();
    for (size_t k = 0; k < inputs; ++k) {
      const TensorView& got = together->instances.tensors[i * inputs + k];
      const TensorView& want = alone->instances.tensors[k];
      EXPECT_EQ(Text(got), Text(want)) << "instance " << i << " input " << k;
      EXPECT_EQ(got.dtype, want.dtype);
      EXPECT_TRUE(std::ranges::equal(got.shape(), want.shape()));
      EXPECT_GE(got.data, request.bytes().data());  // a view into the message, not into another instance's
      EXPECT_LE(got.data + got.bytes, request.bytes().data() + request.bytes().size());
    }
  }
}

TEST(ParseInstancesTest, AlikeInstancesAreReadAsIfAlone) {
  const auto add = [](std::string_view x1, std::string_view x2) {
    return Instance({Item("x2", Tensor({2}, kFloat32, x2)), Item("x1", Tensor({2}, kFloat32, x1))});
  };
  ExpectAsAlone({add("abcdefgh", "ijklmnop"), add("qrstuvwx", "yzABCDEF"), add("GHIJKLMN", "OPQRSTUV")}, kAdd);
}

TEST(ParseInstancesTest, InstancesThatAreNearlyAlikeAreReadAsIfAlone) {
  const auto add = [](std::string_view first, std::string_view second, int64_t rows, std::string_view more = {}) {
    Message instance = Instance(
        {Item(first, Tensor({rows, 2 / rows}, kFloat32, "abcdefgh")), Item(second, Tensor({2}, kFloat32, "ijklmnop"))});
    return more.empty() ? instance : instance.Sub(1, Item(more, Tensor({2}, kFloat32, "qrstuvwx")));
  };
  ExpectAsAlone(
      {add("x1", "x2", 2), add("x2", "x1", 2), add("x1", "x2", 1), add("x1", "x2", 2), add("x1", "x2", 2, "x1"),
       add("x1", "x2", 2, "x2"), add("x1", "x2", 2, "x3"), add("x1", "x2", 2, "x1")},
      kAdd);
}

TEST(ParseInstancesTest, TextsAndEmptyTensorsAmongAlikeInstancesAreReadAsIfAlone) {
  const auto text = [](std::string_view value) { return Instance({Item("x", TextTensor(kString, value))}); };
  ExpectAsAlone({text("one"), text("two"), text("six")}, kOne);
  const Message broken = Request(Spec("s", "one"), {text("one"), text("tw\xff")});
  EXPECT_FALSE(Parse(broken.bytes(), kOne)->status.ok());
  const Message empty = Instance({Item("x", Tensor({0}, kFloat32, ""))});
  ExpectAsAlone({empty, empty, empty}, kOne);
}

TEST(ParseInstancesTest, AFaultBehindAlikeInstancesIsFound) {
  const Message good = Instance({Item("x", Tensor({2}, kFloat32, "abcdefgh"))});
  const Message unfit = Instance({Item("x", Tensor({3}, kFloat32, "abcdefgh"))});
  const Message named = Instance({Item("z", Tensor({2}, kFloat32, "abcdefgh"))});
  for (const Message& bad : {unfit, named}) {
    const Message request = Request(Spec("s", "one"), {good, good, bad, good});
    const auto parsed = Parse(request.bytes(), kOne);
    EXPECT_NE(parsed->status.message().find("instance 2"), std::string::npos) << parsed->status.message();
  }
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
