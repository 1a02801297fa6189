// The acl session library against a test double of AscendCL (tests/support/fake_ascendcl): not against hardware.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "fake_ascendcl.h"
#include "session/session.h"
#include "session_tensor.h"

namespace msserving {
namespace {

const std::string kFakeHome = MSSERVING_TEST_FAKE_ASCEND;
const std::string kFakeLibrary = kFakeHome + "/lib64/libascendcl.so";

constexpr const char* kAdd = "fake-om\ninput a float32 2,3\ninput b float32 2,3\noutput sum float32 2,3\nrun add\n";
// The batch size's input is not the last one, as in real models it need not be.
constexpr const char* kBatches =
    "fake-om\nrun add\ninput rows int32 -1,2\nbatches 4,1,2\ninput bias int32 2\noutput y int32 -1,2\n";

void* FakeSymbol(const char* name) {
  static void* handle = dlopen(kFakeLibrary.c_str(), RTLD_NOW | RTLD_GLOBAL);
  EXPECT_NE(handle, nullptr) << dlerror();
  return dlsym(handle, name);
}
size_t Live() { return reinterpret_cast<decltype(&fake_ascendcl_live)>(FakeSymbol("fake_ascendcl_live"))(); }
std::string BrokenRules() {
  return reinterpret_cast<decltype(&fake_ascendcl_broken_rules)>(FakeSymbol("fake_ascendcl_broken_rules"))();
}
size_t Calls(const char* function) {
  return reinterpret_cast<decltype(&fake_ascendcl_calls)>(FakeSymbol("fake_ascendcl_calls"))(function);
}

class SessionAcl : public testing::Test {
 protected:
  void SetUp() override {
    setenv("ASCEND_HOME_PATH", kFakeHome.c_str(), 1);
    for (const char* name : {"FAIL", "FAIL_AFTER", "DEVICES", "ON_DEVICE", "FOREIGN", "REPORT"}) Set(name, nullptr);
    reinterpret_cast<decltype(&fake_ascendcl_reset)>(FakeSymbol("fake_ascendcl_reset"))();
  }
  void TearDown() override {
    Set("FAIL", nullptr);
    session_.reset();
    EXPECT_EQ(Live(), 0U) << "something was not given back";
    EXPECT_EQ(BrokenRules(), "");
    if (!file_.empty()) std::filesystem::remove(file_);
  }

  static void Set(const char* name, const char* value) {
    const std::string variable = std::string("FAKE_ASCENDCL_") + name;
    value != nullptr ? setenv(variable.c_str(), value, 1) : unsetenv(variable.c_str());
  }

  // The options for this model.
  SessionOptions Options(const std::string& model, const std::string& device = "1") {
    if (file_.empty()) {
      std::string path = std::filesystem::temp_directory_path() / "session_acl_XXXXXX";
      const int fd = mkstemp(path.data());
      EXPECT_GE(fd, 0);
      close(fd);
      file_ = path;
    }
    std::ofstream(file_, std::ios::trunc) << model;
    return {{"file", file_}, {"device_id", device}, {"library", kFakeLibrary}};
  }
  std::string OpenError(const SessionOptions& options) {
    std::unique_ptr<Session> session;
    const Status status = OpenLibrarySession(MSSERVING_TEST_ACL_SESSION_LIBRARY, options, &session);
    EXPECT_FALSE(status.ok());
    return status.message();
  }
  void Open(const std::string& model) {
    const Status status = OpenLibrarySession(MSSERVING_TEST_ACL_SESSION_LIBRARY, Options(model), &session_);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  Status Run(const std::vector<MsServingTensor>& inputs) {
    outputs_.assign(session_->describe().outputs.size(), MsServingTensor{});
    return session_->Run(inputs, outputs_);
  }
  Status RunAdd() {
    const Tensor<float> a(DataType::kFloat32, {2, 3}, {1, 2, 3, 4, 5, 6});
    const Tensor<float> b(DataType::kFloat32, {2, 3}, {10, 20, 30, 40, 50, 60});
    return Run({a.view, b.view});
  }

  std::string file_;
  std::unique_ptr<Session> session_;
  std::vector<MsServingTensor> outputs_;
};

TEST_F(SessionAcl, DescribesTheModel) {
  Open(kAdd);
  const SessionInfo& info = session_->describe();
  ASSERT_EQ(info.inputs.size(), 2U);
  EXPECT_EQ(info.inputs[1].name, "b");
  EXPECT_EQ(info.inputs[1].dtype, DataType::kFloat32);
  EXPECT_EQ(info.inputs[1].rank, 2);
  EXPECT_EQ(info.inputs[1].dims[1], 3);
  ASSERT_EQ(info.outputs.size(), 1U);
  EXPECT_EQ(info.outputs[0].name, "sum");
  EXPECT_TRUE(info.batch_sizes.empty());
  EXPECT_EQ(info.way, "acl");
}

TEST_F(SessionAcl, RunsOnTheDevice) {
  Open(kAdd);
  ASSERT_TRUE(RunAdd().ok());
  EXPECT_EQ(Values<float>(outputs_[0]), (std::vector<float>{11, 22, 33, 44, 55, 66}));
  EXPECT_EQ(outputs_[0].rank, 2);
  EXPECT_EQ(outputs_[0].dims[1], 3);
}

TEST_F(SessionAcl, ARunMakesNothingNew) {
  Open(kAdd);
  ASSERT_TRUE(RunAdd().ok());
  const size_t live = Live(), allocations = Calls("aclrtMalloc");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(RunAdd().ok());
  EXPECT_EQ(Live(), live);
  EXPECT_EQ(Calls("aclrtMalloc"), allocations);
  EXPECT_EQ(Calls("aclmdlExecute"), 12U) << "the trial run at load too";
  EXPECT_EQ(Calls("aclmdlLoadFromFile"), 1U);
}

TEST_F(SessionAcl, EachBatchSizeIsTriedWhenTheModelIsLoaded) {
  Open(kBatches);
  EXPECT_EQ(Calls("aclmdlExecute"), 3U);
  Open(kAdd);
  EXPECT_EQ(Calls("aclmdlExecute"), 4U);
}

TEST_F(SessionAcl, AModelThatCannotRunIsNotLoaded) {
  Set("FAIL", "aclmdlExecute=507011");
  Set("FAIL_AFTER", "1");
  const std::string error = OpenError(Options(kBatches));
  EXPECT_NE(error.find("a trial run with zeros in batch size 2 failed: aclmdlExecute() failed with error 507011"),
            std::string::npos)
      << error;
  EXPECT_EQ(Live(), 0U);
}

TEST_F(SessionAcl, EveryElementTypeIsMapped) {
  const std::vector<std::string> names = {"bool",   "int8",  "uint8",  "int16",   "uint16",  "int32",
                                          "uint32", "int64", "uint64", "float16", "float32", "float64"};
  std::string model = "fake-om\nrun negate\n";
  for (const auto& name : names) model += "input " + name + " " + name + " -\noutput " + name + " " + name + " -\n";
  Open(model);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(session_->describe().inputs[i].dtype, static_cast<DataType>(i + 1)) << names[i];
    EXPECT_EQ(session_->describe().outputs[i].dtype, static_cast<DataType>(i + 1)) << names[i];
    EXPECT_EQ(session_->describe().outputs[i].rank, 0) << names[i];
  }
}

TEST_F(SessionAcl, RunsEveryBatchSizeOfTheModel) {
  Open(kBatches);
  const SessionInfo& info = session_->describe();
  EXPECT_EQ(info.batch_sizes, (std::vector<int64_t>{1, 2, 4}));
  ASSERT_EQ(info.inputs.size(), 2U) << "the batch size is no input of the user's";
  EXPECT_EQ(info.inputs[0].dims[0], 4);
  EXPECT_EQ(info.inputs[1].rank, 1);
  EXPECT_EQ(info.outputs[0].dims[0], 4);
  const Tensor<int32_t> bias(DataType::kInt32, {2}, {100, 200});
  for (const int64_t rows : {4, 1, 2}) {
    std::vector<int32_t> values(static_cast<size_t>(rows) * 2);
    std::iota(values.begin(), values.end(), 0);
    const Tensor<int32_t> x(DataType::kInt32, {rows, 2}, values);
    const Status status = Run({x.view, bias.view});
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(outputs_[0].dims[0], rows);
    for (size_t i = 0; i < values.size(); ++i) values[i] += i % 2 == 0 ? 100 : 200;
    EXPECT_EQ(Values<int32_t>(outputs_[0]), values) << rows;
  }
  const Tensor<int32_t> three(DataType::kInt32, {3, 2}, {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(Run({three.view, bias.view}).message(), "the model was not built for batch size 3");
}

TEST_F(SessionAcl, AnyThreadMayRunIt) {
  Open(kAdd);
  for (int i = 0; i < 2; ++i) {
    Status status;
    std::thread([&] { status = RunAdd(); }).join();
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(Values<float>(outputs_[0])[5], 66);
  }
  std::thread([&] { session_.reset(); }).join();
  EXPECT_EQ(Live(), 0U);
}

TEST_F(SessionAcl, SessionsShareOneDeviceAndTheLastOneEndsIt) {
  Open(kAdd);
  std::unique_ptr<Session> other;
  ASSERT_TRUE(OpenLibrarySession(MSSERVING_TEST_ACL_SESSION_LIBRARY, Options(kAdd), &other).ok());
  EXPECT_EQ(Calls("aclInit"), 1U);
  EXPECT_EQ(Calls("aclrtSetDevice"), 1U);
  other.reset();
  EXPECT_EQ(Calls("aclrtResetDevice"), 0U);
  EXPECT_TRUE(RunAdd().ok());
  session_.reset();
  EXPECT_EQ(Calls("aclrtResetDevice"), 1U);
  EXPECT_EQ(Calls("aclFinalize"), 1U);
}

TEST_F(SessionAcl, OnTheDeviceItselfMemoryIsTheDevices) {
  Set("ON_DEVICE", "1");
  Open(kAdd);
  EXPECT_TRUE(RunAdd().ok());
  EXPECT_EQ(Values<float>(outputs_[0])[0], 11);
}

TEST_F(SessionAcl, WhatSomebodyElseInitialisedIsNotTakenDown) {
  Set("FOREIGN", "1");
  Open(kAdd);
  EXPECT_TRUE(RunAdd().ok());
  session_.reset();
  EXPECT_EQ(Calls("aclFinalize"), 0U);
  EXPECT_EQ(Calls("aclrtResetDevice"), 0U);
  Set("FOREIGN", nullptr);
  // Takes down what the double has left from this test.
  reinterpret_cast<int (*)(int)>(FakeSymbol("aclrtResetDevice"))(1);
  reinterpret_cast<int (*)()>(FakeSymbol("aclFinalize"))();
}

// Whatever fails while a model is loaded: the error names it with its code and AscendCL's own words, everything made
// before it is given back, and the next attempt works.
class SessionAclOpenFailure : public SessionAcl, public testing::WithParamInterface<const char*> {};

TEST_P(SessionAclOpenFailure, IsToldAndLeavesNothingBehind) {
  const std::string function = GetParam();
  Set("FAIL", (function + "=507899").c_str());
  const std::string error = OpenError(Options(kBatches));
  const bool makes_object = function.find("Create") != std::string::npos && function != "aclrtCreateContext";
  EXPECT_NE(error.find(function + (makes_object ? "() returned no object" : "() failed with error 507899") +
                       ": EH9999: Inner Error! [Fake]" + function + " was told to fail."),
            std::string::npos)
      << error;
  EXPECT_EQ(Live(), 0U);
  Set("FAIL", nullptr);
  Open(kBatches);
}

INSTANTIATE_TEST_SUITE_P(Every, SessionAclOpenFailure,
                         testing::Values("aclInit", "aclrtSetDevice", "aclrtGetRunMode", "aclrtCreateContext",
                                         "aclrtSetCurrentContext", "aclmdlLoadFromFile", "aclmdlCreateDesc",
                                         "aclmdlGetDesc", "aclmdlGetDynamicBatch", "aclmdlGetInputDimsV2",
                                         "aclmdlGetOutputDims", "aclrtMalloc", "aclCreateDataBuffer",
                                         "aclmdlCreateDataset", "aclmdlAddDatasetBuffer", "aclrtMemcpy",
                                         "aclmdlSetDynamicBatchSize", "aclmdlExecute", "aclmdlGetCurOutputDims"));

class SessionAclRunFailure : public SessionAcl, public testing::WithParamInterface<const char*> {};

TEST_P(SessionAclRunFailure, IsToldAndTheNextRunWorks) {
  const std::string function = GetParam();
  Open(kBatches);
  const Tensor<int32_t> x(DataType::kInt32, {1, 2}, {1, 2});
  const Tensor<int32_t> bias(DataType::kInt32, {2}, {100, 200});
  Set("FAIL", (function + "=507011").c_str());
  const Status status = Run({x.view, bias.view});
  EXPECT_EQ(status.message(),
            function + "() failed with error 507011: EH9999: Inner Error! [Fake]" + function + " was told to fail.");
  Set("FAIL", nullptr);
  ASSERT_TRUE(Run({x.view, bias.view}).ok());
  EXPECT_EQ(Values<int32_t>(outputs_[0]), (std::vector<int32_t>{101, 202}));
}

INSTANTIATE_TEST_SUITE_P(Every, SessionAclRunFailure,
                         testing::Values("aclrtSetCurrentContext", "aclrtMemcpy", "aclmdlSetDynamicBatchSize",
                                         "aclmdlExecute", "aclmdlGetCurOutputDims"));

TEST_F(SessionAcl, AFailureWhileClosingIsLogged) {
  Open(kAdd);
  testing::internal::CaptureStderr();
  Set("FAIL", "aclrtResetDevice=507033");
  session_.reset();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("while a session is closed, aclrtResetDevice() failed with error 507033: EH9999"),
            std::string::npos)
      << log;
  EXPECT_NE(log.find("aclFinalize() failed"), std::string::npos) << "the double found the device still set: " << log;
  // The double takes a failed call for not done: done now, so that the next test begins with nothing.
  Set("FAIL", nullptr);
  reinterpret_cast<int (*)(const char*)>(FakeSymbol("aclInit"))(nullptr);
  reinterpret_cast<int (*)(int)>(FakeSymbol("aclrtResetDevice"))(1);
  reinterpret_cast<int (*)()>(FakeSymbol("aclFinalize"))();
  reinterpret_cast<decltype(&fake_ascendcl_reset)>(FakeSymbol("fake_ascendcl_reset"))();
}

TEST_F(SessionAcl, ADeviceThatIsNotThereIsNamed) {
  const std::string error = OpenError(Options(kAdd, "7"));
  EXPECT_NE(error.find("device 7 cannot be used: aclrtSetDevice() failed with error 107001: EH9999: Inner Error! "
                       "invalid device ID 7; devices here: 2"),
            std::string::npos)
      << error;
}

TEST_F(SessionAcl, AFileThatIsNoModelIsRefused) {
  const std::string error = OpenError(Options("\x08\x01 a MindIR"));
  EXPECT_NE(error.find("aclmdlLoadFromFile() failed with error 100014: EH9999: Inner Error! Load model from file["),
            std::string::npos)
      << error;
}

TEST_F(SessionAcl, ModelsThatCannotBeServedSayWhatToDo) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"input x float32 2\nextra_input ascend_dynamic_aipp_data\noutput y float32 2\n", "dynamic AIPP"},
      {"input x float32 2\nseveral_sizes\noutput y float32 2\n", "atc --dynamic_batch_size"},
      {"input x float32 2,-1\noutput y float32 2\n", "input 0 ('x') has the shape [2, -1]: dynamic dimensions"},
      {"batches 1,2\ninput x float32 2,2\noutput y float32 2,2\n", "none of its inputs has a dynamic leading"},
      {"input x float32 1,1,1,1,1,1,1,1,1\noutput y float32 1\n", "has 9 dimensions; at most 8 can be served"},
      {"input x bfloat16 2\noutput y float32 2\n", "element type 27, which cannot be served"},
  };
  for (const auto& [model, expected] : cases) {
    const std::string error = OpenError(Options("fake-om\n" + model));
    EXPECT_NE(error.find(expected), std::string::npos) << error;
  }
}

TEST_F(SessionAcl, BadOptionsAreNamed) {
  EXPECT_NE(OpenError({}).find("option 'file' is missing"), std::string::npos);
  EXPECT_NE(OpenError({{"colour", "blue"}}).find("option 'colour' = 'blue': unknown option"), std::string::npos);
  EXPECT_NE(OpenError({{"file", "x"}, {"device_id", "-1"}}).find("'device_id' = '-1'"), std::string::npos);
}

TEST_F(SessionAcl, WithoutAscendClTheErrorSaysWhatToDo) {
  setenv("LD_LIBRARY_PATH", "/somewhere", 1);
  const std::string error = OpenError({{"file", "x"}, {"library", "/nowhere/libascendcl.so"}});
  for (const char* part : {"libascendcl.so cannot be loaded (/nowhere/libascendcl.so: cannot open shared object file",
                           "LD_LIBRARY_PATH is '/somewhere'", "set_env.sh"}) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
  }
}

TEST_F(SessionAcl, AnotherLibraryOfThatNameIsRefused) {
  const std::string error = OpenError({{"file", "x"}, {"library", "libm.so.6"}});
  EXPECT_NE(error.find("libm.so.6 has no function aclInit()"), std::string::npos) << error;
}

TEST_F(SessionAcl, TheLibraryIsFoundInTheInstallationsFolder) {
  SessionOptions options = Options(kAdd);
  options.pop_back();  // without `library`
  const Status status = OpenLibrarySession(MSSERVING_TEST_ACL_SESSION_LIBRARY, options, &session_);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(RunAdd().ok());
}

}  // namespace
}  // namespace msserving
