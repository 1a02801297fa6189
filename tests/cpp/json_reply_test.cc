#include "protocol/json_reply.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../support/json_builder.h"

namespace msserving {
namespace {

std::string Text(const Buffer& buffer) { return {buffer.data(), buffer.data() + buffer.size()}; }

std::string Tensor(const TensorView& tensor) {
  Buffer out;
  EncodeJsonTensor(tensor, &out);
  return Text(out);
}

template <class T>
std::string Tensor(DataType type, const std::vector<T>& values, const std::vector<int64_t>& dims) {
  return Tensor(TensorOf(type, values, dims));
}

std::string String(std::string_view text) {
  Buffer out;
  EncodeJsonString(text, &out);
  return Text(out);
}

std::string Reply(const MethodSignature& signature, const std::vector<InstanceResult>& results) {
  Buffer out;
  EncodeJsonReply(signature, results, &out);
  return Text(out);
}

InstanceResult Good(const std::vector<TensorView>& outputs) { return {ErrorKind::kOk, {}, outputs}; }

TEST(JsonReply, EveryTypeAndItsExtremes) {
  EXPECT_EQ(Tensor<int8_t>(DataType::kInt8, {-128, 127}, {2}), "[-128,127]");
  EXPECT_EQ(Tensor<uint8_t>(DataType::kUint8, {0, 255}, {2}), "[0,255]");
  EXPECT_EQ(Tensor<int16_t>(DataType::kInt16, {-32768, 32767}, {2}), "[-32768,32767]");
  EXPECT_EQ(Tensor<uint16_t>(DataType::kUint16, {65535}, {1}), "[65535]");
  EXPECT_EQ(Tensor<int32_t>(DataType::kInt32, {INT32_MIN, INT32_MAX}, {2}), "[-2147483648,2147483647]");
  EXPECT_EQ(Tensor<uint32_t>(DataType::kUint32, {UINT32_MAX}, {1}), "[4294967295]");
  EXPECT_EQ(Tensor<int64_t>(DataType::kInt64, {INT64_MIN}, {1}), "[-9223372036854775808]");
  EXPECT_EQ(Tensor<uint64_t>(DataType::kUint64, {UINT64_MAX}, {1}), "[18446744073709551615]");
  EXPECT_EQ(Tensor<uint8_t>(DataType::kBool, {0, 1, 2}, {3}), "[false,true,true]");
  EXPECT_EQ(Tensor<float>(DataType::kFloat32, {1.1F, 2, -0.5F, NAN, INFINITY, 1e-7F}, {6}),
            "[1.1,2.0,-0.5,null,null,1e-07]");
  EXPECT_EQ(Tensor<double>(DataType::kFloat64, {1.1, 2, NAN, -INFINITY, 1e300}, {5}), "[1.1,2.0,null,null,1e+300]");
}

TEST(JsonReply, HalfFloatsKeepTheirValue) {
  // 1, -2, 0, -0, 65504, the smallest subnormal and normal, 1/3, inf, nan
  EXPECT_EQ(Tensor<uint16_t>(DataType::kFloat16,
                             {0x3C00, 0xC000, 0x0000, 0x8000, 0x7BFF, 0x0001, 0x0400, 0x3555, 0x7C00, 0x7E00}, {10}),
            "[1.0,-2.0,0.0,-0.0,65504.0,5.9604645e-08,6.1035156e-05,0.33325195,null,null]");
}

TEST(JsonReply, ShapesAreNested) {
  const std::vector<int32_t> six{1, 2, 3, 4, 5, 6};
  EXPECT_EQ(Tensor(DataType::kInt32, six, {6}), "[1,2,3,4,5,6]");
  EXPECT_EQ(Tensor(DataType::kInt32, six, {2, 3}), "[[1,2,3],[4,5,6]]");
  EXPECT_EQ(Tensor(DataType::kInt32, six, {3, 1, 2}), "[[[1,2]],[[3,4]],[[5,6]]]");
  EXPECT_EQ(Tensor<int32_t>(DataType::kInt32, {7}, {}), "7");
  EXPECT_EQ(Tensor<int32_t>(DataType::kInt32, {7}, {1}), "[7]");
  EXPECT_EQ(Tensor<int32_t>(DataType::kInt32, {7}, {1, 1, 1, 1, 1, 1, 1, 1}), "[[[[[[[[7]]]]]]]]");
  EXPECT_EQ(Tensor<float>(DataType::kFloat32, {}, {0}), "[]");
  EXPECT_EQ(Tensor<float>(DataType::kFloat32, {}, {2, 0}), "[[],[]]");
}

TEST(JsonReply, LongRowsAreWhole) {
  std::vector<int32_t> values(1000);
  std::string expected = "[";
  for (int i = 0; i < 1000; ++i) {
    values[i] = i;
    expected += (i > 0 ? "," : "") + std::to_string(i);
  }
  EXPECT_EQ(Tensor(DataType::kInt32, values, {1000}), expected + "]");
}

TEST(JsonReply, MemoryNeedNotBeAligned) {
  std::vector<uint8_t> memory(9, 0);
  const float value = 2.5F;
  std::memcpy(memory.data() + 1, &value, 4);
  TensorView tensor = TensorOf(DataType::kFloat32, std::vector<float>{}, {});
  tensor.data = memory.data() + 1;
  tensor.bytes = 4;
  EXPECT_EQ(Tensor(tensor), "2.5");
}

TEST(JsonReply, TextAndBytes) {
  EXPECT_EQ(Tensor(TensorOf(DataType::kString, "abc")), "\"abc\"");
  EXPECT_EQ(Tensor(TensorOf(DataType::kString, "abc", {1})), "[\"abc\"]");
  EXPECT_EQ(Tensor(TensorOf(DataType::kBytes, std::string_view("\0\xff", 2))), "{\"b64\":\"AP8=\"}");
  EXPECT_EQ(Tensor(TensorOf(DataType::kBytes, "", {1})), "[{\"b64\":\"\"}]");
}

TEST(JsonReply, StringsAreEscapedWhereJsonDemandsIt) {
  EXPECT_EQ(String(""), "\"\"");
  EXPECT_EQ(String("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
  EXPECT_EQ(String("\n\r\t\b\f"), "\"\\n\\r\\t\\b\\f\"");
  EXPECT_EQ(String(std::string_view("\0\x1f\x7f", 3)), "\"\\u0000\\u001f\x7f\"");
  EXPECT_EQ(String("caf\xC3\xA9 \xE5\x8A\xA0 \xF0\x9F\x98\x80"), "\"caf\xC3\xA9 \xE5\x8A\xA0 \xF0\x9F\x98\x80\"");
  // Each special character at each place of a long plain text.
  for (const char c : {'"', '\\', '\n', '\x01'}) {
    for (size_t at = 0; at < 24; ++at) {
      std::string text(24, 'x');
      text[at] = c;
      const std::string written = String(text);
      EXPECT_EQ(written.size(), 24 + (c == '\x01' ? 7U : 3U)) << at;
      EXPECT_EQ(written[at + 1], '\\');
    }
  }
}

TEST(JsonReply, WrongUtf8IsReplaced) {
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(String("\x80"), '"' + mark + '"');
  EXPECT_EQ(String("a\xFFz"), "\"a" + mark + "z\"");
  EXPECT_EQ(String("\xC3"), '"' + mark + '"');
  EXPECT_EQ(String("\xC0\xAF"), '"' + mark + mark + '"');
  EXPECT_EQ(String("\xED\xA0\x80"), '"' + mark + mark + mark + '"');
  EXPECT_EQ(String("\xF4\x90\x80\x80"), '"' + mark + mark + mark + mark + '"');
  EXPECT_EQ(String("\xE5\x8A"), '"' + mark + mark + '"');
  EXPECT_EQ(String("\xF0\x9F\x98"), '"' + mark + mark + mark + '"');
}

TEST(JsonReply, KeysAreSorted) {
  const MethodSignature signature{"m", {}, {"z", "a", "m\"q"}};
  const std::vector<int32_t> values{1, 2, 3};
  std::vector<TensorView> tensors(3);
  for (int i = 0; i < 3; ++i) {
    tensors[i].data = reinterpret_cast<const uint8_t*>(&values[i]);
    tensors[i].bytes = 4;
    tensors[i].dtype = DataType::kInt32;
  }
  EXPECT_EQ(Reply(signature, {Good(tensors)}), R"({"instances":[{"a":2,"m\"q":3,"z":1}]})");
}

TEST(JsonReply, ManyOutputsAreSortedToo) {
  MethodSignature signature{"m", {}, {}};
  std::vector<TensorView> tensors;
  const int32_t value = 0;
  std::string expected;
  for (int i = 99; i >= 0; --i) {
    signature.outputs.push_back("o" + std::string(i < 10 ? "0" : "") + std::to_string(i));
    TensorView tensor;
    tensor.data = reinterpret_cast<const uint8_t*>(&value);
    tensor.bytes = 4;
    tensor.dtype = DataType::kInt32;
    tensors.push_back(tensor);
  }
  for (int i = 0; i < 100; ++i) {
    expected += (i > 0 ? "," : "") + ("\"" + signature.outputs[99 - i] + "\":0");
  }
  EXPECT_EQ(Reply(signature, {Good(tensors)}), "{\"instances\":[{" + expected + "}]}");
}

TEST(JsonReply, FailedInstancesStandInTheirPlace) {
  const MethodSignature signature{"m", {}, {"y"}};
  const std::vector<float> values{1.5F};
  const std::vector<TensorView> outputs{TensorOf(DataType::kFloat32, values, {1})};
  EXPECT_EQ(Reply(signature, {Good(outputs), {ErrorKind::kStageFailed, "bad \"x\"", {}}, Good(outputs)}),
            R"({"instances":[{"y":[1.5]},{"error_msg":"bad \"x\""},{"y":[1.5]}]})");
  EXPECT_EQ(Reply(signature, {{ErrorKind::kStageFailed, "a", {}}, {ErrorKind::kStageFailed, "b", {}}}),
            R"({"instances":[{"error_msg":"a"},{"error_msg":"b"}]})");
}

TEST(JsonReply, IdenticalFailuresAreOneError) {
  const MethodSignature signature{"m", {}, {"y"}};
  const InstanceResult failed{ErrorKind::kStageFailed, "Preprocess Failed", {}};
  EXPECT_EQ(Reply(signature, {failed, failed}), R"({"error_msg":"Preprocess Failed"})");
  EXPECT_EQ(Reply(signature, {failed}), R"({"error_msg":"Preprocess Failed"})");
}

TEST(JsonReply, LongMessagesAreCut) {
  Buffer out;
  EncodeJsonError(std::string(1000, 'x'), &out);
  EXPECT_EQ(Text(out), "{\"error_msg\":\"" + std::string(192, 'x') + "..." + std::string(192, 'x') + "\"}");
}

TEST(JsonReply, AMethodWithoutOutputsHasEmptyObjects) {
  EXPECT_EQ(Reply({"m", {}, {}}, {Good({}), Good({})}), R"({"instances":[{},{}]})");
}

}  // namespace
}  // namespace msserving
