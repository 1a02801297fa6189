// Instances that differ from the one before in their numbers alone are not parsed again; nobody may notice.
#include "protocol/predict_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "support/codec_messages.h"
#include "wire_builder.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

// Each instance of a request is what it is when it is sent alone.
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

}  // namespace
}  // namespace msserving
