// The test double through the session ABI, opened as the core opens any session library.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <ctime>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "mindspore_serving/session.h"
#include "session_tensor.h"

namespace msserving {
namespace {

using Options = std::vector<MsServingOption>;

const MsServingSessionLibrary* Library() {
  static const MsServingSessionLibrary* library = [] {
    void* handle = dlopen(MSSERVING_TEST_SESSION_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(handle, nullptr) << dlerror();
    return reinterpret_cast<MsServingSessionLibraryFunction>(dlsym(handle, MS_SERVING_SESSION_ENTRY))();
  }();
  return library;
}

class Session {
 public:
  explicit Session(const Options& options) {
    char error[256] = "";
    EXPECT_EQ(Library()->open(options.data(), options.size(), &session_, error, sizeof(error)), 0) << error;
  }
  ~Session() { Library()->close(session_); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const MsServingSessionInfo& info() const { return *Library()->describe(session_); }
  std::string error() const { return Library()->last_error(session_); }
  bool Run(const std::vector<MsServingTensor>& inputs) {
    outputs.assign(info().outputs_count, MsServingTensor{});
    return Library()->run(session_, inputs.data(), outputs.data()) == 0;
  }

  std::vector<MsServingTensor> outputs;

 private:
  MsServingSession* session_ = nullptr;
};

std::string OpenError(const Options& options) {
  MsServingSession* session = nullptr;
  char error[256] = "";
  EXPECT_NE(Library()->open(options.data(), options.size(), &session, error, sizeof(error)), 0);
  EXPECT_EQ(session, nullptr);
  return error;
}

TEST(SessionTestDouble, DescribesWhatItWasOpenedWith) {
  Session session({{"op", "add"}, {"inputs", "float32[4,2,-1];float32[4,2,-1]"}, {"batch_sizes", "1,2,4"}});
  const MsServingSessionInfo& info = session.info();
  ASSERT_EQ(info.inputs_count, 2u);
  EXPECT_STREQ(info.inputs[1].name, "x1");
  EXPECT_EQ(info.inputs[1].dtype, 11);
  EXPECT_EQ(info.inputs[1].rank, 3);
  EXPECT_EQ(info.inputs[1].dims[2], -1);
  ASSERT_EQ(info.outputs_count, 1u);
  EXPECT_STREQ(info.outputs[0].name, "y0");
  ASSERT_EQ(info.batch_sizes_count, 3u);
  EXPECT_EQ(info.batch_sizes[2], 4);
  EXPECT_STREQ(info.way, "test double");
}

TEST(SessionTestDouble, AddsEveryBatchSizeItWasGivenAndNoOther) {
  Session session({{"op", "add"}, {"inputs", "int32[4,2];int32[4,2]"}, {"batch_sizes", "1,2,4"}});
  Tensor<int32_t> one(6, {1, 2}, {1, 2});
  ASSERT_TRUE(session.Run({one.view, one.view})) << session.error();
  EXPECT_EQ(Values<int32_t>(session.outputs[0]), (std::vector<int32_t>{2, 4}));
  EXPECT_EQ(session.outputs[0].dims[0], 1);
  Tensor<int32_t> two(6, {2, 2}, {1, 2, 3, INT32_MAX});
  ASSERT_TRUE(session.Run({two.view, two.view})) << session.error();
  EXPECT_EQ(Values<int32_t>(session.outputs[0]), (std::vector<int32_t>{2, 4, 6, -2}));
  Tensor<int32_t> three(6, {3, 2}, {1, 2, 3, 4, 5, 6});
  EXPECT_FALSE(session.Run({three.view, three.view}));
  EXPECT_FALSE(session.Run({one.view, two.view})) << "inputs of two batch sizes";
}

TEST(SessionTestDouble, AddUsesAnInputWithoutBatchForEveryRow) {
  Session session({{"op", "add"}, {"inputs", "int8[-1,2];int8[2]"}, {"without_batch_dim_inputs", "1"}});
  Tensor<int8_t> rows(2, {2, 2}, {1, 2, 3, 4});
  Tensor<int8_t> bias(2, {2}, {10, 20});
  ASSERT_TRUE(session.Run({rows.view, bias.view})) << session.error();
  EXPECT_EQ(Values<int8_t>(session.outputs[0]), (std::vector<int8_t>{11, 22, 13, 24}));
}

TEST(SessionTestDouble, IdentityHandsOutItsInputs) {
  Session session({{"op", "identity"}, {"inputs", "float64[];uint8[3]"}});
  Tensor<double> scalar(12, {}, {0.5});
  Tensor<uint8_t> bytes(3, {3}, {1, 2, 3});
  ASSERT_TRUE(session.Run({scalar.view, bytes.view})) << session.error();
  EXPECT_EQ(session.outputs[0].data, scalar.view.data);
  EXPECT_EQ(session.outputs[1].data, bytes.view.data);
}

TEST(SessionTestDouble, NegatesEveryElementType) {
  Session session({{"op", "negate"}, {"inputs", "bool[2];uint8[2];int64[2];float16[2];float32[2]"}});
  Tensor<uint8_t> flags(1, {2}, {0, 2});
  Tensor<uint8_t> bytes(3, {2}, {0, 1});
  Tensor<int64_t> longs(8, {2}, {-5, 7});
  Tensor<uint16_t> halves(10, {2}, {0x3c00, 0xc000});
  Tensor<float> floats(11, {2}, {1.5f, -2.0f});
  ASSERT_TRUE(session.Run({flags.view, bytes.view, longs.view, halves.view, floats.view})) << session.error();
  EXPECT_EQ(Values<uint8_t>(session.outputs[0]), (std::vector<uint8_t>{1, 0}));
  EXPECT_EQ(Values<uint8_t>(session.outputs[1]), (std::vector<uint8_t>{0, 255}));
  EXPECT_EQ(Values<int64_t>(session.outputs[2]), (std::vector<int64_t>{5, -7}));
  EXPECT_EQ(Values<uint16_t>(session.outputs[3]), (std::vector<uint16_t>{0xbc00, 0x4000}));
  EXPECT_EQ(Values<float>(session.outputs[4]), (std::vector<float>{-1.5f, 2.0f}));
}

TEST(SessionTestDouble, AddsHalvesWithIeeeRounding) {
  Session session({{"op", "add"}, {"inputs", "float16[6];float16[6]"}});
  // 1+1, 2048+1 (a tie, to even), 65504+65504 (overflow), two subnormals, inf-inf, 1+nan
  Tensor<uint16_t> a(10, {6}, {0x3c00, 0x6800, 0x7bff, 0x0001, 0x7c00, 0x3c00});
  Tensor<uint16_t> b(10, {6}, {0x3c00, 0x3c00, 0x7bff, 0x03ff, 0xfc00, 0x7e00});
  ASSERT_TRUE(session.Run({a.view, b.view})) << session.error();
  auto sum = Values<uint16_t>(session.outputs[0]);
  EXPECT_EQ(std::vector<uint16_t>(sum.begin(), sum.begin() + 4),
            (std::vector<uint16_t>{0x4000, 0x6800, 0x7c00, 0x0400}));
  EXPECT_EQ(sum[4] & 0x7fff, 0x7e00);
  EXPECT_EQ(sum[5] & 0x7fff, 0x7e00);
}

TEST(SessionTestDouble, RefusesTheRowItWasToldToRefuse) {
  Session session({{"op", "negate"}, {"inputs", "float32[-1,2]"}, {"fail_if_first_element", "13"}});
  Tensor<float> good(11, {2, 2}, {1, 13, 2, 13});
  EXPECT_TRUE(session.Run({good.view})) << session.error();
  Tensor<float> bad(11, {2, 2}, {1, 2, 13, 4});
  EXPECT_FALSE(session.Run({bad.view}));
  EXPECT_EQ(session.error(), "row 1 of input 0 is refused");
  EXPECT_TRUE(session.Run({good.view})) << "a failure leaves the session usable";
}

TEST(SessionTestDoubleDeathTest, CrashesOnTheRowItWasToldToCrashOn) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Session session({{"op", "negate"}, {"inputs", "float32[-1,2]"}, {"crash_if_first_element", "13"}});
  Tensor<float> bad(11, {1, 2}, {13, 0});
  EXPECT_DEATH(session.Run({bad.view}), "");
}

TEST(SessionTestDouble, FailsEveryRunWhenToldTo) {
  Session session({{"op", "fail"}, {"inputs", "int32[]"}});
  Tensor<int32_t> x(6, {}, {1});
  EXPECT_FALSE(session.Run({x.view}));
  EXPECT_NE(session.error().find("told to fail"), std::string::npos);
}

TEST(SessionTestDouble, RunTakesAtLeastTheTimeGiven) {
  for (const char* mode : {"spin", "sleep"}) {
    Session session({{"op", "identity"}, {"inputs", "int32[]"}, {"run_us", "3000"}, {"run_mode", mode}});
    Tensor<int32_t> x(6, {}, {1});
    timespec start{}, end{};
    clock_gettime(CLOCK_MONOTONIC, &start);
    ASSERT_TRUE(session.Run({x.view}));
    clock_gettime(CLOCK_MONOTONIC, &end);
    EXPECT_GE((end.tv_sec - start.tv_sec) * 1'000'000 + (end.tv_nsec - start.tv_nsec) / 1000, 2999) << mode;
  }
}

TEST(SessionTestDouble, ABadOptionIsNamed) {
  EXPECT_EQ(OpenError({{"inputs", "int32[]"}, {"colour", "red"}}),
            "test double: option 'colour' = 'red': unknown option");
  EXPECT_NE(OpenError({{"op", "add"}}).find("'inputs' is missing"), std::string::npos);
  EXPECT_NE(OpenError({{"inputs", "complex64[2]"}}).find("unknown element type"), std::string::npos);
  EXPECT_NE(OpenError({{"inputs", "int32[2"}}).find("expected e.g."), std::string::npos);
  EXPECT_NE(OpenError({{"inputs", "int32[x]"}}).find("not an integer"), std::string::npos);
  EXPECT_NE(OpenError({{"inputs", "int32[2];int8[2]"}}).find("one element type"), std::string::npos);
  EXPECT_NE(OpenError({{"inputs", "int32[2]"}, {"batch_sizes", "2,1"}}).find("must ascend"), std::string::npos);
  EXPECT_NE(OpenError({{"inputs", "int32[2]"}, {"run_us", "-1"}}).find("at least 0"), std::string::npos);
}

TEST(SessionTestDouble, AnErrorTextIsCutToTheRoomGiven) {
  MsServingOption option{"colour", "red"};
  MsServingSession* session = nullptr;
  char error[8];
  std::memset(error, 'x', sizeof(error));
  EXPECT_NE(Library()->open(&option, 1, &session, error, sizeof(error)), 0);
  EXPECT_EQ(std::string(error), "test do");
}

}  // namespace
}  // namespace msserving
