#include "distributed/rank_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "rank_server_fixture.h"

namespace msserving {
namespace {

using testing::AllReduce;
using testing::FloatInfo;
using testing::Floats;
using testing::FunctionSession;
using testing::Path;
using testing::RankServerTest;
using testing::Sessions;

class RankPathTest : public RankServerTest, public ::testing::WithParamInterface<Path> {};

TEST_P(RankPathTest, AllRanksRunEveryRunInTheSameOrder) {
  AllReduce all(3);
  StartServer(3);
  StartRanks({SummingRank(0, &all), SummingRank(1, &all), SummingRank(2, &all)}, GetParam());
  ExpectReady();
  std::shared_ptr<Session> session;
  ASSERT_TRUE(server_->MakeSession(0, &session).ok());
  for (int i = 0; i < 200; ++i) {
    std::vector<float> result;
    const auto value = static_cast<float>(i);
    const Status status = Run(session.get(), {value, value + 1}, {2}, &result);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(result, (std::vector<float>{6 * value, 6 * (value + 1)}));
  }
  EXPECT_EQ(server_->Describe()[2].local, GetParam() != Path::kTcp);
  server_->Stop("enough");
  for (auto& agent : agents_) {
    EXPECT_EQ(agent->Join(), "stopped");
    EXPECT_EQ(agent->forced(), "");
  }
  EXPECT_EQ(Next(launcher_.get()).reason, "enough");
}

TEST_P(RankPathTest, InputsAndOutputsOfAnySizeGetThrough) {
  StartServer(2);
  const auto doubling = [](std::span<const MsServingTensor> given, std::vector<float>* out,
                           std::vector<int64_t>* dims) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(given[0].data) % MS_SERVING_SESSION_ALIGNMENT, 0u);
    for (const float value : Floats(given[0])) {
      out->push_back(2 * value);
    }
    dims->push_back(given[0].dims[0]);
    return Status::Ok();
  };
  const auto rank = [&] {
    return Sessions{
        std::make_shared<FunctionSession>(std::vector<TensorInfo>{FloatInfo({-1})}, FloatInfo({-1}), doubling)};
  };
  StartRanks({rank(), rank()}, GetParam());
  ExpectReady();
  std::shared_ptr<Session> session;
  ASSERT_TRUE(server_->MakeSession(0, &session).ok());
  for (const size_t size : {size_t{1}, size_t{1000}, size_t{300'000}, size_t{0}, size_t{700'000}, size_t{7}}) {
    std::vector<float> values(size);
    for (size_t i = 0; i < size; ++i) {
      values[i] = static_cast<float>(i % 1000);
    }
    std::vector<float> result;
    const Status status = Run(session.get(), values, {static_cast<int64_t>(size)}, &result);
    ASSERT_TRUE(status.ok()) << size << ": " << status.message();
    ASSERT_EQ(result.size(), size);
    for (size_t i = 0; i < size; ++i) {
      ASSERT_EQ(result[i], 2 * values[i]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, RankPathTest, ::testing::Values(Path::kLocal, Path::kTcp, Path::kMixed),
                         [](const auto& info) {
                           return info.param == Path::kLocal ? "Local" : info.param == Path::kTcp ? "Tcp" : "Mixed";
                         });

}  // namespace
}  // namespace msserving
