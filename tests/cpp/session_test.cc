// Session libraries through dlopen, and what the core checks before it runs one.
#include "session/session.h"

#include <gtest/gtest.h>

#include "session/input_rule.h"

namespace msserving {
namespace {

const SessionOptions kAdd{{"op", "add"}, {"inputs", "float32[2,2];float32[2,2]"}};

std::string OpenError(const std::string& library, const SessionOptions& options) {
  std::unique_ptr<Session> session;
  const Status status = OpenLibrarySession(library, options, &session);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(session, nullptr);
  return status.message();
}

TEST(Session, DescribesAndRuns) {
  std::unique_ptr<Session> session;
  ASSERT_TRUE(OpenLibrarySession(MSSERVING_TEST_SESSION_LIBRARY, kAdd, &session).ok());
  const SessionInfo& info = session->describe();
  ASSERT_EQ(info.inputs.size(), 2U);
  EXPECT_EQ(info.inputs[1].dtype, DataType::kFloat32);
  EXPECT_EQ(info.inputs[1].rank, 2);
  EXPECT_EQ(info.outputs.size(), 1U);
  EXPECT_TRUE(info.batch_sizes.empty());
  EXPECT_EQ(info.way, "test double");
  alignas(64) float values[4] = {1, 2, 3, 4};
  MsServingTensor input{values, sizeof(values), static_cast<int32_t>(DataType::kFloat32), 2, {2, 2}};
  const MsServingTensor inputs[2] = {input, input};
  MsServingTensor outputs[1];
  ASSERT_TRUE(session->Run(inputs, outputs).ok());
  EXPECT_EQ(static_cast<float*>(outputs[0].data)[3], 8);
}

TEST(Session, FailedRunTellsTheLibrarysReason) {
  std::unique_ptr<Session> session;
  ASSERT_TRUE(
      OpenLibrarySession(MSSERVING_TEST_SESSION_LIBRARY, {{"op", "fail"}, {"inputs", "float32[1]"}}, &session).ok());
  alignas(64) float value = 1;
  const MsServingTensor inputs[1] = {{&value, sizeof(value), static_cast<int32_t>(DataType::kFloat32), 1, {1}}};
  MsServingTensor outputs[1];
  const Status status = session->Run(inputs, outputs);
  EXPECT_EQ(status.kind(), ErrorKind::kStageFailed);
  EXPECT_EQ(status.message(), "the test double was told to fail every run");
}

TEST(Session, MissingLibraryIsNamed) {
  const std::string error = OpenError("/nowhere/libnothing.so", kAdd);
  EXPECT_NE(error.find("session library '/nowhere/libnothing.so': cannot be loaded"), std::string::npos) << error;
}

TEST(Session, LibraryOfAnotherKindIsNamed) {
  const std::string error = OpenError("libm.so.6", kAdd);
  EXPECT_NE(error.find("is not a session library"), std::string::npos) << error;
}

TEST(Session, RefusedOptionsTellTheLibrarysReason) {
  const std::string error = OpenError(MSSERVING_TEST_SESSION_LIBRARY, {{"colour", "blue"}});
  EXPECT_NE(error.find("colour"), std::string::npos) << error;
}

TensorInfo Info(DataType dtype, std::vector<int64_t> dims) {
  TensorInfo info;
  info.dtype = dtype;
  info.rank = static_cast<int>(dims.size());
  std::copy(dims.begin(), dims.end(), info.dims.begin());
  return info;
}

TensorView View(DataType dtype, std::vector<int64_t> dims) {
  TensorView view;
  view.dtype = dtype;
  view.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), view.dims);
  view.bytes = static_cast<uint64_t>(ElementCount(dims)) * ItemSize(dtype);
  return view;
}

TEST(InputRule, FixedShapeTakesAReshape) {
  const InputRule rule(Info(DataType::kFloat32, {2, 3}), false);
  EXPECT_TRUE(rule.Fits(View(DataType::kFloat32, {2, 3})));
  EXPECT_TRUE(rule.Fits(View(DataType::kFloat32, {6})));
  EXPECT_FALSE(rule.Fits(View(DataType::kFloat32, {2, 2})));
  EXPECT_FALSE(rule.Fits(View(DataType::kInt32, {2, 3})));
}

TEST(InputRule, DynamicShapeMustFitDimensionByDimension) {
  const InputRule rule(Info(DataType::kFloat32, {-1, 3}), false);
  EXPECT_TRUE(rule.Fits(View(DataType::kFloat32, {7, 3})));
  EXPECT_TRUE(rule.Fits(View(DataType::kFloat32, {0, 3})));
  EXPECT_FALSE(rule.Fits(View(DataType::kFloat32, {3, 7})));
  EXPECT_FALSE(rule.Fits(View(DataType::kFloat32, {21})));
  EXPECT_EQ(rule.Explain(2, View(DataType::kFloat32, {3, 7})).message(),
            "Given model input 2 shape [3, 7] not match the shape [-1, 3] defined in model");
}

TEST(InputRule, BatchDimensionIsNotTheInstances) {
  const InputRule rule(Info(DataType::kInt8, {32, 5}), true);
  EXPECT_TRUE(rule.Fits(View(DataType::kInt8, {5})));
  EXPECT_FALSE(rule.Fits(View(DataType::kInt8, {32, 5})));
}

TEST(InputRule, TextNeverFits) {
  TensorView text;
  text.dtype = DataType::kString;
  text.rank = 0;
  text.bytes = 4;
  EXPECT_FALSE(InputRule(Info(DataType::kFloat32, {1}), false).Fits(text));
}

}  // namespace
}  // namespace msserving
