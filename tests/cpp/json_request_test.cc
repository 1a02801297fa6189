#include "protocol/json_request.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "../support/json_builder.h"

namespace msserving {
namespace {

class JsonRequest : public testing::Test {
 protected:
  Status Parse(std::string_view text) {
    body_ = std::make_unique<PaddedText>(text);
    return parser_.Parse(body_->bytes(), signature_, &request_);
  }

  // The one tensor x of {"instances": {"x": value}}.
  TensorView One(std::string_view value) {
    signature_.inputs = {"x"};
    const Status status = Parse("{\"instances\":{\"x\":" + std::string(value) + "}}");
    EXPECT_TRUE(status.ok()) << value << ": " << status.message();
    EXPECT_EQ(request_.count, 1U);
    return status.ok() ? request_.tensors.at(0) : TensorView{};
  }

  void ExpectRefused(std::string_view text, std::string_view token, bool prefix = true) {
    const Status status = Parse(text);
    EXPECT_EQ(status.kind(), ErrorKind::kInvalidInput) << text;
    EXPECT_NE(status.message().find(token), std::string::npos) << text << " gave: " << status.message();
    EXPECT_EQ(status.message().find("Parser request failed, ") == 0, prefix) << text << " gave: " << status.message();
    EXPECT_EQ(request_.count, 0U);
    EXPECT_TRUE(request_.tensors.empty());
  }

  // ... for the value of x in the second of two instances.
  void ExpectValueRefused(std::string_view value, std::string_view token) {
    signature_.inputs = {"x"};
    ExpectRefused("{\"instances\":[{\"x\":1},{\"x\":" + std::string(value) + "}]}", token);
  }

  void ExpectNoJson(std::string_view text) { ExpectRefused(text, "is not valid JSON", false); }

  MethodSignature signature_{"predict", {"x1", "x2"}, {"y"}};
  JsonRequestParser parser_;
  RequestInstances request_;
  std::unique_ptr<PaddedText> body_;
};

// Most requests are read without an index of the text; one more key with an escape makes the parser use one.
TEST_F(JsonRequest, TheShortWayAndTheLongOneReadTheSame) {
  std::mt19937 random(5);
  const auto pick = [&random](std::initializer_list<const char*> words) {
    return std::string(words.begin()[random() % words.size()]);
  };
  int accepted = 0;
  for (int i = 0; i < 30'000; ++i) {
    const auto value = [&] {
      const std::string item = pick({"1", "-7", "1.5", "-0.25", "1e3", "true", "false", "12345.678"});
      const std::string row = "[" + item + pick({",", ", ", " ,"}) + item + "]";
      return pick({item.c_str(), row.c_str(), ("[" + row + "]").c_str(), "\"text\""});
    };
    std::string text = "{" + pick({"", " "}) + "\"instances\":" + pick({"", " ", "\n"}) + "[";
    for (size_t count = 1 + random() % 3; count > 0; --count) {
      text += R"({"x1":)" + value() + pick({",", ", "}) + R"("x2":)" + value() + pick({"}", " }"});
      text += count > 1 ? pick({",", " , "}) : "";
    }
    text += pick({"]}", "] }", "]}\n"});
    if (random() % 2 == 0) {
      text[random() % text.size()] = pick({"{", "}", "[", "]", ",", ":", "\"", "1", "-", " ", "t", "\\"})[0];
    }
    const Status status = Parse(text);
    const RequestInstances first = request_;
    std::vector<std::string> values;
    for (const TensorView& tensor : first.tensors) {
      values.emplace_back(reinterpret_cast<const char*>(tensor.data), tensor.bytes);
    }
    accepted += status.ok();
    if (text[0] != '{') {
      continue;
    }
    const Status other = Parse(text.insert(1, R"("z":"\n",)"));
    ASSERT_EQ(status.ok(), other.ok()) << text << ": " << status.message() << other.message();
    if (!status.message().starts_with("The request body is not valid JSON")) {
      ASSERT_EQ(status.message(), other.message()) << text;
    }
    ASSERT_EQ(request_.tensors.size(), values.size()) << text;
    for (size_t k = 0; k < values.size(); ++k) {
      const TensorView& tensor = request_.tensors[k];
      ASSERT_EQ(tensor.dtype, first.tensors[k].dtype) << text;
      ASSERT_TRUE(std::ranges::equal(tensor.shape(), first.tensors[k].shape())) << text;
      ASSERT_EQ(std::string(reinterpret_cast<const char*>(tensor.data), tensor.bytes), values[k]) << text;
    }
  }
  EXPECT_GT(accepted, 10'000);
  EXPECT_LT(accepted, 29'000);
}

// What stands behind the body in memory may well complete it.
TEST_F(JsonRequest, NothingIsReadBehindTheBody) {
  signature_.inputs = {"x"};
  const std::string text = R"({"instances":[{"x":[1.25,2.5]},{"x":[3.0,4.0]},{"x":true}]})";
  const PaddedText all(text + text);
  for (size_t length = 0; length < text.size(); ++length) {
    const Status status = parser_.Parse(all.bytes().first(length), signature_, &request_);
    EXPECT_EQ(status.kind(), ErrorKind::kInvalidInput) << length;
  }
  EXPECT_FALSE(parser_.Parse(all.bytes(), signature_, &request_).ok());
}

TEST_F(JsonRequest, InstancesComeInOrderWithInputsInTheSignaturesOrder) {
  ASSERT_TRUE(Parse(R"({"instances":[{"x1":1,"x2":[1.5,2.5]},{"x2":[3.5,4.5],"x1":2}]})").ok());
  ASSERT_EQ(request_.count, 2U);
  ASSERT_EQ(request_.tensors.size(), 4U);
  EXPECT_EQ(ValuesOf<int32_t>(request_.tensors[0]), (std::vector<int32_t>{1}));
  EXPECT_EQ(ValuesOf<float>(request_.tensors[1]), (std::vector<float>{1.5, 2.5}));
  EXPECT_EQ(ValuesOf<int32_t>(request_.tensors[2]), (std::vector<int32_t>{2}));
  EXPECT_EQ(ValuesOf<float>(request_.tensors[3]), (std::vector<float>{3.5, 4.5}));
}

TEST_F(JsonRequest, OneObjectIsOneInstance) {
  ASSERT_TRUE(Parse(R"({"instances":{"x1":true,"x2":"text"}})").ok());
  EXPECT_EQ(request_.count, 1U);
  EXPECT_EQ(request_.tensors[0].dtype, DataType::kBool);
  EXPECT_EQ(request_.tensors[1].dtype, DataType::kString);
}

TEST_F(JsonRequest, ScalarsHaveNoDims) {
  const auto check = [&](std::string_view text, DataType type, size_t bytes) {
    const TensorView tensor = One(text);
    EXPECT_EQ(tensor.dtype, type) << text;
    EXPECT_EQ(tensor.rank, 0) << text;
    EXPECT_EQ(tensor.bytes, bytes) << text;
  };
  check("-7", DataType::kInt32, 4);
  check("1.25", DataType::kFloat32, 4);
  check("1e2", DataType::kFloat32, 4);
  check("true", DataType::kBool, 1);
  check("\"abc\"", DataType::kString, 3);
  check("\"\"", DataType::kString, 0);
  EXPECT_EQ(ValuesOf<int32_t>(One(" -7 ")), (std::vector<int32_t>{-7}));
  EXPECT_EQ(ValuesOf<float>(One("1e2")), (std::vector<float>{100}));
  EXPECT_EQ(ValuesOf<uint8_t>(One("false")), (std::vector<uint8_t>{0}));
}

TEST_F(JsonRequest, ArraysTakeTheirTypeFromTheFirstElement) {
  TensorView tensor = One("[[1, 2, 3], [4, 5, -6]]");
  EXPECT_EQ(tensor.dtype, DataType::kInt32);
  EXPECT_EQ(DimsOf(tensor), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(ValuesOf<int32_t>(tensor), (std::vector<int32_t>{1, 2, 3, 4, 5, -6}));
  tensor = One("[ [ [ 1.5 ] , [ -2e1 ] ] ]");
  EXPECT_EQ(tensor.dtype, DataType::kFloat32);
  EXPECT_EQ(DimsOf(tensor), (std::vector<int64_t>{1, 2, 1}));
  EXPECT_EQ(ValuesOf<float>(tensor), (std::vector<float>{1.5, -20}));
  tensor = One("[true,false,true]");
  EXPECT_EQ(tensor.dtype, DataType::kBool);
  EXPECT_EQ(ValuesOf<uint8_t>(tensor), (std::vector<uint8_t>{1, 0, 1}));
  EXPECT_EQ(DimsOf(One("[[[[[[[[1]]]]]]]]")), std::vector<int64_t>(8, 1));
}

TEST_F(JsonRequest, MixedTypesAreRefusedAndTheElementIsNamed) {
  ExpectValueRefused("[1, 2.5]", "instances[1].x[1]: elements type is not equal: 2.5 is not an integer");
  ExpectValueRefused("[1.5, 2]", "instances[1].x[1]: elements type is not equal: 2 is not a real");
  ExpectValueRefused("[[1,2],[3,\"a\"]]", "instances[1].x[1][1]: elements type is not equal: \"a\"");
  ExpectValueRefused("[true, 1]", "elements type is not equal: 1 is not a bool");
  ExpectValueRefused("[1, true]", "elements type is not equal");
  ExpectValueRefused("[1, null]", "elements type is not equal");
  ExpectValueRefused("[1, {}]", "elements type is not equal");
  ExpectValueRefused("[1, [2]]", "elements type is not equal");
  ExpectValueRefused("[[1], 2]", "elements type is not equal");
}

TEST_F(JsonRequest, ArraysMustBeRectangularAndNotEmpty) {
  ExpectValueRefused("[[1,2],[3]]", "instances[1].x[1]: size is not matched: this array's length is 1");
  ExpectValueRefused("[[1],[2,3]]", "size is not matched");
  ExpectValueRefused("[[[1],[2]],[[3]]]", "instances[1].x[1]: size is not matched");
  for (const char* empty : {"[]", "[ ]", "[[]]", "[[],[]]", "[[1],[]]", "[[[[]]]]"}) {
    ExpectValueRefused(empty, "json array, shape is empty");
  }
  ExpectValueRefused("[[[[[[[[[1]]]]]]]]]", "more than 8 dimensions");
}

TEST_F(JsonRequest, NumbersBeyondTheirTypeAreRefused) {
  ExpectValueRefused("[0, 2147483648]", "instances[1].x[1]: 2147483648 is out of the int32 range");
  ExpectValueRefused("-2147483649", "instances[1].x: -2147483649 is out of the int32 range");
  ExpectValueRefused("[1.0, 1e39]", "instances[1].x[1]: 1e39 is out of the float32 range");
  ExpectValueRefused("1.0e400", "out of the float32 range");
}

TEST_F(JsonRequest, TextIsUnescaped) {
  EXPECT_EQ(TextOf(One(R"("a\"b\\c\/\n\u00e9\ud83d\ude00")")), "a\"b\\c/\n\xC3\xA9\xF0\x9F\x98\x80");
  EXPECT_EQ(TextOf(One("\"caf\xC3\xA9\"")), "caf\xC3\xA9");
  const TensorView tensor = One("[\"one\"]");
  EXPECT_EQ(DimsOf(tensor), (std::vector<int64_t>{1}));
  EXPECT_EQ(TextOf(tensor), "one");
}

TEST_F(JsonRequest, TextArraysHaveOneItem) {
  ExpectValueRefused("[\"a\",\"b\"]", "only support one item");
  ExpectValueRefused("[\"a\",1]", "only support one item");
  ExpectValueRefused("[{\"b64\":\"\"},{\"b64\":\"\"}]", "only support one item");
  ExpectValueRefused("[[\"a\"]]", "only support one item");
  ExpectValueRefused("[null]", "null is no value");
  ExpectValueRefused("null", "null is no value");
}

TEST_F(JsonRequest, B64DefaultsToScalarBytes) {
  TensorView tensor = One(R"({"b64":"AQID"})");
  EXPECT_EQ(tensor.dtype, DataType::kBytes);
  EXPECT_EQ(tensor.rank, 0);
  EXPECT_EQ(TextOf(tensor), "\x01\x02\x03");
  tensor = One(R"({"b64":""})");
  EXPECT_EQ(tensor.dtype, DataType::kBytes);
  EXPECT_EQ(tensor.bytes, 0U);
  tensor = One(R"([{"b64":"AQID","type":"str"}])");
  EXPECT_EQ(tensor.dtype, DataType::kString);
  EXPECT_EQ(DimsOf(tensor), (std::vector<int64_t>{1}));
  EXPECT_EQ(TextOf(One(R"({"b64":"\u0041\/+/"})")), "\x03\xFF\xBF");
}

TEST_F(JsonRequest, B64CarriesEveryType) {
  const std::pair<const char*, DataType> kTypes[] = {
      {"int8", DataType::kInt8},       {"int16", DataType::kInt16},     {"int32", DataType::kInt32},
      {"int64", DataType::kInt64},     {"uint8", DataType::kUint8},     {"uint16", DataType::kUint16},
      {"uint32", DataType::kUint32},   {"uint64", DataType::kUint64},   {"float16", DataType::kFloat16},
      {"fp16", DataType::kFloat16},    {"float32", DataType::kFloat32}, {"fp32", DataType::kFloat32},
      {"float64", DataType::kFloat64}, {"fp64", DataType::kFloat64},    {"bool", DataType::kBool}};
  for (const auto& [name, type] : kTypes) {
    const size_t item = ItemSize(type);
    // 24 bytes of zeros are 24 / item elements.
    const TensorView tensor = One("{\"shape\":[" + std::to_string(24 / item) + "],\"type\":\"" + name +
                                  "\",\"b64\":\"" + std::string(32, 'A') + "\"}");
    EXPECT_EQ(tensor.dtype, type) << name;
    EXPECT_EQ(tensor.bytes, 24U) << name;
    EXPECT_EQ(DimsOf(tensor), (std::vector<int64_t>{static_cast<int64_t>(24 / item)})) << name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % item, 0U) << name;
  }
  const TensorView scalar = One(R"({"b64":"AACAPw==","type":"fp32"})");
  EXPECT_EQ(scalar.rank, 0);
  EXPECT_EQ(ValuesOf<float>(scalar), (std::vector<float>{1}));
  const TensorView none = One(R"({"b64":"","type":"fp32","shape":[2,0]})");
  EXPECT_EQ(DimsOf(none), (std::vector<int64_t>{2, 0}));
}

TEST_F(JsonRequest, B64DefectsAreNamed) {
  ExpectValueRefused(R"({"b64":"AA==","b64":"AA=="})", "'b64' should be specified only one time");
  ExpectValueRefused(R"({"b64":"AA==","type":"int8","type":"int8"})", "'type' should be specified only one time");
  ExpectValueRefused(R"({"b64":"AA==","shape":[],"shape":[]})", "'shape' should be specified only one time");
  ExpectValueRefused(R"({})", "'b64' is missing");
  ExpectValueRefused(R"({"type":"int8"})", "'b64' is missing");
  ExpectValueRefused(R"({"b64":7})", "'b64' should be a text, not 7");
  ExpectValueRefused(R"({"b64":"AA==","type":3})", "'type' should be a text");
  ExpectValueRefused(R"({"b64":"AA==","type":"complex64"})", "'type' is 'complex64', allowed are int8");
  ExpectValueRefused(R"({"b64":"AA==","dtype":"int8"})", "unknown key 'dtype'");
  ExpectValueRefused(R"({"b64":"AA"})", "is no base64");
  ExpectValueRefused(R"({"b64":"A?=="})", "is no base64");
  ExpectValueRefused(R"({"b64":"AAAA","type":"int16"})", "size is not matched");
  ExpectValueRefused(R"({"b64":"AAAA","type":"int8","shape":[2]})", "size is not matched");
  ExpectValueRefused(R"({"b64":"AAAA","type":"int8","shape":[4611686018427387904,4]})", "size is not matched");
  ExpectValueRefused(R"({"b64":"AAAA","shape":[3]})", "size is not matched");
  ExpectValueRefused(R"({"b64":"AAAA","shape":[1,1]})", "size is not matched");
  ExpectValueRefused(R"({"b64":"","type":"int8","shape":[0,2]})", "not its last dimension");
  ExpectValueRefused(R"({"b64":"AA==","type":"int8","shape":[-1]})", "'shape' has -1");
  ExpectValueRefused(R"({"b64":"AA==","type":"int8","shape":[1.0]})", "'shape' has 1.0");
  ExpectValueRefused(R"({"b64":"AA==","type":"int8","shape":1})", "'shape' should be an array");
  ExpectValueRefused(R"({"b64":"AA==","type":"int8","shape":[1,1,1,1,1,1,1,1,1]})", "more than 8 dimensions");
  ExpectValueRefused(R"({"b64":"AA==","type":"int8","shape":[99999999999999999999]})", "'shape' has 9999");
  ExpectValueRefused(R"([{"b64":"AA==","type":"int8","shape":[1]}])", "has to be of type str or bytes");
  ExpectValueRefused(R"({"b64":"/w==","type":"str"})", "no UTF-8");
}

TEST_F(JsonRequest, MissingInputsAndInstancesAreNamed) {
  ExpectRefused(R"({"instances":[{"x1":1,"x2":1},{"x1":1}]})", "Cannot find input x2 in instance input (instances[1])",
                false);
  ExpectRefused(R"({"instances":{"other":1}})", "Cannot find input x1 in instance input", false);
  ExpectRefused(R"({"instance":{}})", "instances: this key is missing");
  ExpectRefused(R"({"instances":[]})", "instances: json array, shape is empty");
  ExpectRefused(R"({"instances":{}})", "json object, is empty");
  ExpectRefused(R"({"instances":[{}]})", "instances[0]: json object, is empty");
  for (const char* wrong : {"1", "\"a\"", "null", "true"}) {
    ExpectRefused("{\"instances\":" + std::string(wrong) + "}", wrong);
  }
  ExpectRefused(R"({"instances":[1,2]})", "instances[0]: an instance has to be an object");
  ExpectRefused(R"({"instances":[[{"x1":1}]]})", "an instance has to be an object");
  ExpectRefused(R"([{"x1":1}])", "has to be an object with the key 'instances'");
  ExpectRefused("17", "has to be an object");
}

TEST_F(JsonRequest, TheSameKeyTwiceIsAnError) {
  ExpectRefused(R"({"instances":{"x1":1,"x2":2,"x1":3}})", "instances.x1: this input is given twice");
  ExpectRefused(R"({"instances":{"x1":1,"x2":2},"instances":{"x1":1,"x2":2}})", "instances: this key is given twice");
}

TEST_F(JsonRequest, OtherKeysAreIgnoredButMustBeJson) {
  EXPECT_TRUE(Parse(R"({"a":[{"b":[1,[null]]}],"instances":{"z":{"b64":[]},"x1":1,"x2":2},"c":1e999})").ok());
  ExpectNoJson(R"({"a":[01],"instances":{"x1":1,"x2":2}})");
  ExpectNoJson(R"({"instances":{"x1":1,"x2":2,"z":nul}})");
  ExpectNoJson(R"({"instances":{"x1":1,"x2":2},"c":"\q"})");
  const std::string deep = std::string(5000, '[') + std::string(5000, ']');
  EXPECT_EQ(Parse("{\"a\":" + deep + ",\"instances\":{\"x1\":1,\"x2\":2}}").kind(), ErrorKind::kInvalidInput);
  EXPECT_EQ(Parse("{\"instances\":{\"x1\":1,\"x2\":2,\"z\":" + deep + "}}").kind(), ErrorKind::kInvalidInput);
  EXPECT_EQ(Parse("{\"instances\":{\"x1\":" + deep + "}}").kind(), ErrorKind::kInvalidInput);
}

TEST_F(JsonRequest, EscapedKeysAreTheirText) { EXPECT_TRUE(Parse(R"({"inst\u0061nces":{"x\u0031":1,"x2":2}})").ok()); }

TEST_F(JsonRequest, WhatIsNoJsonIsSaidToBeNoJson) {
  signature_.inputs = {"x"};
  const char* kTexts[] = {"",
                          " ",
                          "{",
                          "}",
                          "[",
                          "x",
                          "nul",
                          "{\"instances\"",
                          "{\"instances\":",
                          "{\"instances\":[",
                          "{\"instances\":{}",
                          "{\"instances\":{\"x\":1}",
                          "{\"instances\":[{\"x\":1]}",
                          "{\"instances\":[{\"x\":1},]}",
                          "{\"instances\":{\"x\":1,}}",
                          "{\"instances\":{\"x\" 1}}",
                          "{\"instances\":{x:1}}",
                          "{\"instances\":{\"x\":01}}",
                          "{\"instances\":{\"x\":1.}}",
                          "{\"instances\":{\"x\":1 2}}",
                          "{\"instances\":{\"x\":-}}",
                          "{\"instances\":{\"x\":[1,2}}",
                          "{\"instances\":{\"x\":[1,,2]}}",
                          "{\"instances\":{\"x\":[1 2]}}",
                          "{\"instances\":{\"x\":[1,2,]}}",
                          "{\"instances\":{\"x\":[,1]}}",
                          "{\"instances\":{\"x\":[1.5.5]}}",
                          "{\"instances\":{\"x\":[1x]}}",
                          "{\"instances\":{\"x\":[truex]}}",
                          "{\"instances\":{\"x\":[true false]}}",
                          "{\"instances\":{\"x\":truee}}",
                          "{\"instances\":{\"x\":[tru]}}",
                          "{\"instances\":{\"x\":[[1],[2]}}",
                          "{\"instances\":{\"x\":[[1},{2]]}}",
                          "{\"instances\":{\"x\":\"a}}",
                          "{\"instances\":{\"x\":\"\\x\"}}",
                          "{\"instances\":{\"x\":\"\\ud800\"}}",
                          "{\"instances\":{\"x\":\"\xff\"}}",
                          "{\"instances\":{\"x\":\"a\nb\"}}",
                          "{\"instances\":{\"x\":1}} x",
                          "{\"instances\":{\"x\":1}}{}",
                          "{\"instances\":{\"x\":[1]]}}",
                          "{\"instances\":{\"x\":Infinity}}",
                          "{\"instances\":{\"x\":[NaN]}}",
                          "{\"instances\":{\"x\":[1.5,NaN]}}",
                          "{'instances':{'x':1}}",
                          "{\"instances\":{\"x\":{\"b64\":\"AA==\",\"type\"}}}"};
  for (const char* text : kTexts) {
    ExpectNoJson(text);
    const PaddedText padded(text);
    EXPECT_FALSE(parser_.Validate(padded.bytes()).ok()) << text;
  }
}

TEST_F(JsonRequest, ADefectInTheTextComesBeforeWhatItMeans) {
  signature_.inputs = {"x"};
  ExpectNoJson("{\"instances\":[{\"x\":null},{\"x\":1]}");
  ExpectNoJson("{\"instances\":[{\"y\":1},{\"x\":tru}]}");
}

TEST_F(JsonRequest, ValidateTakesAnyJson) {
  for (const char* text : {"{}", "[]", "1", "\"a\"", "null", " true ", "[{\"a\":[1.5,\"\\u0041\",null]}]"}) {
    const PaddedText padded(text);
    EXPECT_TRUE(parser_.Validate(padded.bytes()).ok()) << text;
  }
}

TEST_F(JsonRequest, EveryPrefixOfARequestIsRefused) {
  signature_.inputs = {"x1", "x2"};
  const std::string whole =
      R"({"instances":[{"x1":[[1.5,-2e3],[3.25,4.0]],"x2":{"b64":"AACAPw==","type":"fp32"}},{"x1":true,"x2":"a\n"}]})";
  ASSERT_TRUE(Parse(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    ExpectNoJson(std::string_view(whole).substr(0, size));
  }
}

// Whatever a request does to the parser, the next one is read as if it were the first.
TEST_F(JsonRequest, OneParserReadsManyRequests) {
  std::mt19937 random(5);
  signature_.inputs = {"x"};
  for (int round = 0; round < 300; ++round) {
    const int count = 1 + static_cast<int>(random() % 400);
    std::string text = "{\"instances\":[";
    std::vector<int32_t> expected;
    for (int i = 0; i < count; ++i) {
      expected.push_back(static_cast<int32_t>(random()));
      text += (i > 0 ? "," : "") + ("{\"x\":[" + std::to_string(expected.back()) + "]}");
    }
    ASSERT_TRUE(Parse(text + "]}").ok());
    ASSERT_EQ(request_.count, expected.size());
    for (int i = 0; i < count; ++i) {
      ASSERT_EQ(ValuesOf<int32_t>(request_.tensors[i]), std::vector<int32_t>{expected[i]});
    }
    ASSERT_FALSE(Parse(text).ok());
    if (round % 50 == 0) {
      parser_.Trim(0);
    }
  }
}

// The memory is sized from the text: the shortest texts for their bytes must fit.
TEST_F(JsonRequest, TheDensestRequestsFit) {
  signature_.inputs = {""};
  std::string text = "{\"instances\":[{\"\":1}";
  for (int i = 0; i < 5000; ++i) {
    text += i % 3 == 0 ? ",{\"\":1}" : i % 3 == 1 ? ",{\"\":[1,1]}" : ",{\"\":[true]}";
  }
  ASSERT_TRUE(Parse(text + "]}").ok());
  EXPECT_EQ(request_.count, 5001U);
  std::string row = "{\"instances\":{\"\":[1";
  for (int i = 1; i < 100'000; ++i) {
    row += ",1";
  }
  ASSERT_TRUE(Parse(row + "]}}").ok());
  EXPECT_EQ(ValuesOf<int32_t>(request_.tensors[0]), std::vector<int32_t>(100'000, 1));
}

TEST_F(JsonRequest, TheNumberOfTensorsIsLimited) {
  signature_.inputs = {"x"};
  std::string text = "{\"instances\":[{\"x\":1}";
  for (size_t i = 0; i < JsonRequestParser::kMaxTensors; ++i) {
    text += ",{\"x\":1}";
  }
  ExpectRefused(text + "]}", "more than 1048576 tensors");
}

}  // namespace
}  // namespace msserving
