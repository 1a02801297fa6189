// A server, a launcher and agents on threads of the test.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "rank_test_support.h"

namespace msserving::testing {

using Sessions = std::vector<std::shared_ptr<Session>>;

// What agents are reached by: the machine's memory, TCP, or ranks of both kinds.
enum class Path { kLocal, kTcp, kMixed };

class RankServerTest : public ::testing::Test {
 protected:
  void StartServer(uint32_t ranks, uint32_t stages = 1) {
    options_.address = "127.0.0.1:0";
    options_.rank_size = ranks;
    options_.stage_size = stages;
    options_.configuration = "the configuration";
    const Status status = RankServer::Create(options_, &server_);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  std::unique_ptr<RankLauncher> Connect() {
    auto launcher = std::make_unique<RankLauncher>(WorkerAddress{server_->address(), {}});
    std::string configuration;
    const Status status = launcher->Connect(kPatienceNs, &configuration);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(configuration, "the configuration");
    return launcher;
  }

  static LauncherEvent Next(RankLauncher* launcher) {
    bool found = false;
    LauncherEvent event;
    const Status status = launcher->NextEvent(kPatienceNs, &found, &event);
    EXPECT_TRUE(status.ok() && found) << status.message();
    return event;
  }

  RankAgentOptions AgentOptions(uint32_t rank, const std::string& token, bool local = true) {
    RankAgentOptions options;
    options.worker.address = server_->address();
    options.token = token;
    options.rank = rank;
    options.local_memory = local;
    return options;
  }

  // One launcher for all ranks.
  void StartRanks(const std::vector<Sessions>& sessions, Path path = Path::kLocal) {
    launcher_ = Connect();
    std::vector<uint32_t> ranks;
    for (uint32_t i = 0; i < sessions.size(); ++i) {
      ranks.push_back(i);
    }
    launcher_->Claim(ranks, "here", "127.0.0.1:7000");
    const LauncherEvent event = Next(launcher_.get());
    ASSERT_EQ(event.kind, LauncherEvent::Kind::kLaunch);
    EXPECT_EQ(event.scheduler, "127.0.0.1:7000");
    EXPECT_EQ(event.token.size(), 32u);
    for (uint32_t i = 0; i < sessions.size(); ++i) {
      const bool local = path == Path::kLocal || (path == Path::kMixed && i % 2 == 0);
      agents_.push_back(std::make_unique<AgentThread>(AgentOptions(i, event.token, local), sessions[i]));
    }
  }

  void ExpectReady() {
    std::string text;
    ASSERT_EQ(server_->WaitReady(kPatienceNs, &text), RankServer::State::kReady) << text;
  }

  Status Run(Session* session, std::vector<float> values, std::vector<int64_t> dims, std::vector<float>* result) {
    alignas(64) MsServingTensor output{};
    const MsServingTensor input = FloatTensor(&values, dims);
    const Status status = session->Run({&input, 1}, {&output, 1});
    if (status.ok()) {
      *result = Floats(output);
    }
    return status;
  }

  // Each rank multiplies by its number and one, and gives the sum over the ranks.
  static Sessions SummingRank(uint32_t rank, AllReduce* all, std::vector<TensorInfo> inputs = {FloatInfo({-1})}) {
    return {std::make_shared<FunctionSession>(
        std::move(inputs), FloatInfo({-1}),
        [rank, all](std::span<const MsServingTensor> given, std::vector<float>* out, std::vector<int64_t>* dims) {
          for (const float value : Floats(given[0])) {
            float part = value * static_cast<float>(rank + 1);
            if (!all->Sum(&part)) {
              return Status(ErrorKind::kStageFailed, "given up");
            }
            out->push_back(part);
          }
          dims->push_back(static_cast<int64_t>(out->size()));
          return Status::Ok();
        })};
  }

  void TearDown() override {
    launcher_.reset();
    server_.reset();
    agents_.clear();
  }

  RankServerTest() { options_.rank_timeout_ns = kPatienceNs; }

  RankServerOptions options_;
  std::unique_ptr<RankServer> server_;
  std::unique_ptr<RankLauncher> launcher_;
  std::vector<std::unique_ptr<AgentThread>> agents_;
};

}  // namespace msserving::testing
