// What becomes of a group of ranks when one of its processes, or a connection, does not do what it should.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
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
using testing::kPatienceNs;
using testing::RankServerTest;
using testing::Sessions;
using testing::WaitUntil;

constexpr float kHang = -1;  // as in a collective that nobody else comes to
constexpr float kFail = -2;
constexpr float kDiffer = -4;  // as each rank was told
constexpr float kExtend = -3;  // answers with one element more

// Gives its input back, or misbehaves as the first element says.
class RankFailureTest : public RankServerTest {
 protected:
  Sessions Rank(bool misbehaves, float differs = 0) {
    return {std::make_shared<FunctionSession>(
        std::vector<TensorInfo>{FloatInfo({-1})}, FloatInfo({-1}),
        [this, misbehaves, differs](std::span<const MsServingTensor> given, std::vector<float>* out,
                                    std::vector<int64_t>* dims) {
          *out = Floats(given[0]);
          float order = misbehaves && !out->empty() ? (*out)[0] : 0;
          order = order == kDiffer ? differs : order;
          if (order == kHang) {
            float nothing = 0;
            hang_.Sum(&nothing);
          }
          if (order == kFail) {
            return Status(ErrorKind::kStageFailed, "no room");
          }
          if (order == kExtend) {
            out->push_back(0);
          }
          dims->push_back(static_cast<int64_t>(out->size()));
          return Status::Ok();
        })};
  }

  std::shared_ptr<Session> ReadySession() {
    ExpectReady();
    std::shared_ptr<Session> session;
    EXPECT_TRUE(server_->MakeSession(0, &session).ok());
    return session;
  }

  void TearDown() override {
    hang_.GiveUp();
    RankServerTest::TearDown();
  }

  AllReduce hang_{1000};
};

TEST_F(RankFailureTest, ARunThatFailsOnAllRanksFailsAlone) {
  StartServer(2);
  StartRanks({Rank(true), Rank(true)});
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kFail, 1}, {2}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kStageFailed);
  EXPECT_EQ(status.message(), "rank 0 on here failed: no room");
  EXPECT_TRUE(Run(session.get(), {4, 1}, {2}, &result).ok());
  EXPECT_EQ(result, (std::vector<float>{4, 1}));
  EXPECT_EQ(server_->Failure(), "");
}

TEST_F(RankFailureTest, ThreeFailedRunsInARowEndTheGroup) {
  StartServer(2);
  StartRanks({Rank(true), Rank(true)});
  const auto session = ReadySession();
  std::vector<float> result;
  for (const float value : {kFail, kFail, 1.0f, kFail, kFail, 2.0f, kFail, kFail}) {
    EXPECT_EQ(Run(session.get(), {value}, {1}, &result).ok(), value != kFail);
  }
  EXPECT_EQ(server_->Failure(), "");
  const Status status = Run(session.get(), {kFail}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message(), "rank 0 on here failed: no room; so have 3 runs in a row");
}

TEST_F(RankFailureTest, ARankThatFailsAloneEndsTheGroup_AsItMayBeOutOfStep) {
  StartServer(2);
  StartRanks({Rank(false), Rank(true)});
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kFail}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message(), "rank 1 on here failed: no room; the ranks are out of step");
  EXPECT_EQ(server_->Failure(), status.message());
}

TEST_F(RankFailureTest, WhatTheFailedRankHasPrintedIsAskedFor) {
  options_.obituary_ns = kPatienceNs;  // the failure waits for the launcher's word
  StartServer(2);
  StartRanks({Rank(false), Rank(true)});
  const auto session = ReadySession();
  std::thread launcher([this] {
    const LauncherEvent event = Next(launcher_.get());
    EXPECT_EQ(event.kind, LauncherEvent::Kind::kLogWanted);
    EXPECT_EQ(event.rank, 1u);
    launcher_->LogLines(0, "of nobody's interest");
    launcher_->LogLines(1, "first\nsecond");
  });
  std::vector<float> result;
  const Status status = Run(session.get(), {kFail}, {1}, &result);
  launcher.join();
  EXPECT_EQ(status.message(),
            "rank 1 on here failed: no room; the ranks are out of step; the last lines of its log:\nfirst\nsecond");
  EXPECT_EQ(server_->Failure(), status.message());
}

TEST_F(RankFailureTest, ALauncherThatSaysNothingOfAFailedRankIsNotWaitedForLong) {
  options_.obituary_ns = 50 * kNanosPerMilli;
  StartServer(2);
  StartRanks({Rank(false), Rank(true)});
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kExtend}, {1}, &result);
  EXPECT_EQ(status.message(), "rank 1 on here has answered with kMSI_Float32[2], rank 0 on here with kMSI_Float32[1]");
}

TEST_F(RankFailureTest, ASilentRankIsNamedWhenItsTimeIsOver) {
  options_.rank_timeout_ns = 300 * kNanosPerMilli;
  StartServer(2);
  StartRanks({Rank(false), Rank(true)});
  const auto session = ReadySession();
  std::atomic<int> told{0};
  server_->WhenFailed([&told] { ++told; });
  std::vector<float> result;
  const Status status = Run(session.get(), {kHang}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message(), "rank 1 on here did not answer within 300 ms (rank_timeout_seconds)");
  EXPECT_EQ(server_->Failure(), status.message());
  EXPECT_TRUE(WaitUntil([&] { return told == 1; }));
  EXPECT_EQ(Run(session.get(), {1}, {1}, &result).message(), status.message());
  EXPECT_EQ(agents_[0]->Join(), "worker gone");
  // The one that is stuck does not return: its process would have been ended.
  EXPECT_TRUE(WaitUntil([&] { return agents_[1]->forced() == "worker gone"; }));
}

TEST_F(RankFailureTest, ASilentRankOnAnotherMachineIsNamedWhenItsTimeIsOver) {
  options_.rank_timeout_ns = 300 * kNanosPerMilli;
  StartServer(2);
  StartRanks({Rank(true), Rank(false)}, testing::Path::kTcp);
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kHang}, {1}, &result);
  EXPECT_EQ(status.message(), "rank 0 on here did not answer within 300 ms (rank_timeout_seconds)");
}

TEST_F(RankFailureTest, AFailedRankWhoseOthersHangEndsTheGroup) {
  options_.grace_ns = 200 * kNanosPerMilli;
  StartServer(3);
  StartRanks({Rank(true, kHang), Rank(false), Rank(true, kFail)});
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kDiffer}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message(), "rank 2 on here failed: no room; rank 0 on here did not finish");
}

TEST_F(RankFailureTest, AnAnswerOfAnotherShapeThanTheOthersEndsTheGroup) {
  StartServer(2);
  StartRanks({Rank(false), Rank(true)});
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kExtend}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message(), "rank 1 on here has answered with kMSI_Float32[2], rank 0 on here with kMSI_Float32[1]");
  EXPECT_EQ(server_->Failure(), status.message());
}

TEST_F(RankFailureTest, OtherShapesInOtherStagesAreFine) {
  StartServer(2, 2);
  StartRanks({Rank(false), Rank(true)});
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kExtend}, {1}, &result);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(result, (std::vector<float>{kExtend, 0}));
}

TEST_F(RankFailureTest, AFailedRunOfSeveralStagesEndsTheGroup_AsSendersDoNotWait) {
  StartServer(2, 2);
  StartRanks({Rank(true), Rank(true)});
  const auto session = ReadySession();
  std::vector<float> result;
  const Status status = Run(session.get(), {kFail}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message(), "rank 0 on here failed: no room; the ranks are out of step");
  EXPECT_EQ(server_->Failure(), status.message());
}

TEST_F(RankFailureTest, AnAgentThatDiesWhileLoadingFailsTheStartWithItsLastWords) {
  StartServer(2);
  launcher_ = Connect();
  launcher_->Claim({0, 1}, "here", "");
  EXPECT_EQ(Next(launcher_.get()).kind, LauncherEvent::Kind::kLaunch);
  launcher_->AgentDied(1, "exit code 1: cannot open rank1.mindir");
  std::string text;
  EXPECT_EQ(server_->WaitReady(kPatienceNs, &text), RankServer::State::kFailed);
  EXPECT_EQ(text, "rank 1 on here has died: exit code 1: cannot open rank1.mindir");
  EXPECT_EQ(server_->Failure(), "");  // it has never been ready
}

TEST_F(RankFailureTest, OfTwoAgentsThatDieTogetherWhileLoadingOneIsToldOf) {
  StartServer(2);
  launcher_ = Connect();
  launcher_->Claim({0, 1}, "here", "");
  std::unique_ptr<RankAgent> agent;
  ASSERT_TRUE(RankAgent::Create(AgentOptions(1, Next(launcher_.get()).token), kPatienceNs, &agent).ok());
  agent.reset();
  std::string text;
  EXPECT_EQ(server_->WaitReady(100 * kNanosPerMilli, &text), RankServer::State::kGathering);  // rank 1 is missed
  launcher_->AgentDied(0, "exit code 1: cannot open rank0.mindir");
  EXPECT_EQ(server_->WaitReady(kPatienceNs, &text), RankServer::State::kFailed);
  EXPECT_EQ(text, "rank 0 on here has died: exit code 1: cannot open rank0.mindir");
}

TEST_F(RankFailureTest, ALauncherThatGoesBeforeAllIsReadyOnlyStartsTheGatheringAnew) {
  StartServer(2);
  launcher_ = Connect();
  launcher_->Claim({0, 1}, "here", "");
  const std::string old_token = Next(launcher_.get()).token;
  launcher_.reset();
  // Its ranks are free again as soon as its end is known.
  LauncherEvent event;
  EXPECT_TRUE(WaitUntil([&] {
    launcher_ = Connect();
    launcher_->Claim({0, 1}, "here", "");
    bool found = false;
    return launcher_->NextEvent(kPatienceNs, &found, &event).ok() && found &&
           event.kind == LauncherEvent::Kind::kLaunch;
  }));
  EXPECT_NE(event.token, old_token);
  testing::AgentThread late(AgentOptions(0, old_token), Rank(false));
  EXPECT_EQ(late.Join(), "refused: an agent for rank 0 does not show this start's token");
  testing::AgentThread first(AgentOptions(0, event.token), Rank(false));
  testing::AgentThread second(AgentOptions(1, event.token), Rank(false));
  ExpectReady();
  server_->Stop("done");
}

TEST_F(RankFailureTest, ARankIsClaimedOnce) {
  // A launcher of the same process would replace the first one, so the other is another process's: one that begins
  // before there are threads, and is told the address later.
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  UniqueFd hears(pipe_ends[0]);
  UniqueFd tells(pipe_ends[1]);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    char address[256];
    const ssize_t length = read(hears.get(), address, sizeof(address));
    if (length <= 0) {
      _exit(2);
    }
    RankLauncher other(WorkerAddress{std::string(address, static_cast<size_t>(length)), {}});
    std::string configuration;
    bool found = false;
    LauncherEvent event;
    const bool refused = other.Connect(kPatienceNs, &configuration).ok() &&
                         (other.Claim({1, 0}, "second", ""), other.NextEvent(kPatienceNs, &found, &event).ok()) &&
                         found && event.kind == LauncherEvent::Kind::kRefused &&
                         event.reason == "rank 0 is claimed from second, but it is claimed already, from first";
    _exit(refused ? 0 : 1);
  }
  StartServer(2);
  launcher_ = Connect();
  launcher_->Claim({0}, "first", "");
  EXPECT_TRUE(
      WaitUntil([&] { return server_->Progress() == "0 of 2 ranks are ready; no launcher has claimed rank 1"; }));
  const std::string& address = server_->address();
  ASSERT_EQ(write(tells.get(), address.data(), address.size()), static_cast<ssize_t>(address.size()));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(server_->Progress(), "0 of 2 ranks are ready; no launcher has claimed rank 1");
}

TEST_F(RankFailureTest, AClaimOfARankThatDoesNotExistIsRefused) {
  StartServer(2);
  launcher_ = Connect();
  launcher_->Claim({1, 2}, "here", "");
  const LauncherEvent event = Next(launcher_.get());
  EXPECT_EQ(event.kind, LauncherEvent::Kind::kRefused);
  EXPECT_EQ(event.reason, "rank 2 is claimed from here, but there are 2 ranks");
}

TEST_F(RankFailureTest, ALauncherThatComesAgainReplacesItsFormerSelf) {
  StartServer(2);
  auto former = Connect();
  former->Claim({0, 1}, "here", "");
  EXPECT_EQ(Next(former.get()).kind, LauncherEvent::Kind::kLaunch);
  EXPECT_TRUE(WaitUntil([&] {
    launcher_ = Connect();
    launcher_->Claim({0, 1}, "here", "");
    bool found = false;
    LauncherEvent event;
    return launcher_->NextEvent(kPatienceNs, &found, &event).ok() && found &&
           event.kind == LauncherEvent::Kind::kLaunch;
  }));
  bool found = false;
  LauncherEvent event;
  EXPECT_EQ(former->NextEvent(kPatienceNs, &found, &event).kind(), ErrorKind::kCancelled);
}

TEST_F(RankFailureTest, AnAgentWithoutTheTokenIsRefused) {
  StartServer(1);
  launcher_ = Connect();
  launcher_->Claim({0}, "here", "");
  const std::string token = Next(launcher_.get()).token;
  testing::AgentThread stranger(AgentOptions(0, std::string(32, '0')), Rank(false));
  EXPECT_EQ(stranger.Join(), "refused: an agent for rank 0 does not show this start's token");
  testing::AgentThread other(AgentOptions(7, token), Rank(false));
  EXPECT_EQ(other.Join(), "refused: rank 7 does not exist");
  testing::AgentThread right(AgentOptions(0, token), Rank(false));
  ExpectReady();
  testing::AgentThread second(AgentOptions(0, token), Rank(false));
  EXPECT_EQ(second.Join(), "refused: rank 0 has an agent already");
  server_->Stop("done");
}

TEST_F(RankFailureTest, ModelsThatDoNotFitTogetherFailTheStart) {
  StartServer(2);
  const auto rank = [](int64_t columns) {
    return Sessions{std::make_shared<FunctionSession>(
        std::vector<TensorInfo>{FloatInfo({4, columns})}, FloatInfo({4, 1}),
        [](std::span<const MsServingTensor>, std::vector<float>*, std::vector<int64_t>*) { return Status::Ok(); })};
  };
  StartRanks({rank(2), rank(3)});
  std::string text;
  EXPECT_EQ(server_->WaitReady(kPatienceNs, &text), RankServer::State::kFailed);
  EXPECT_EQ(text,
            "the inputs of sub-graph 0 disagree: rank 0 on here has kMSI_Float32[4, 2] (rank.mindir), rank 1 on here "
            "has kMSI_Float32[4, 3] (rank.mindir)");
}

// Somebody who connects and says these bytes.
class Stranger {
 public:
  Stranger(const std::string& address, const std::string& bytes) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    inet_pton(AF_INET, "127.0.0.1", &name.sin_addr);
    const timeval patience{60, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
    Say(bytes);
  }
  void Say(const std::string& bytes) {
    EXPECT_EQ(send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // The server has ended the connection, after whatever it had to say.
  bool SeesTheEnd() {
    char bytes[4096];
    ssize_t got = 0;
    while ((got = recv(fd_.get(), bytes, sizeof(bytes), 0)) > 0) {
    }
    return got == 0 || errno == ECONNRESET;
  }

 private:
  UniqueFd fd_;
};

std::string Frame(FrameKind kind, const std::string& body, uint32_t claimed = 0) {
  uint8_t header[kFrameHeaderBytes];
  MakeFrameHeader(kind, claimed != 0 ? claimed : static_cast<uint32_t>(body.size()), &header);
  return std::string(reinterpret_cast<const char*>(header), sizeof(header)) + body;
}

std::string LauncherHello(const std::string& identity) {
  FrameWriter hello;
  hello.U32(kFrameMagic);
  hello.Text(identity);
  return Frame(FrameKind::kHelloLauncher, hello.body());
}

TEST_F(RankFailureTest, HostileBytesEndTheirOwnConnectionAndNothingElse) {
  StartServer(2);
  StartRanks({Rank(false), Rank(false)});
  const auto session = ReadySession();
  FrameWriter claim;
  claim.Text("host");
  claim.Text("");
  claim.U32(0xffffffff);
  const std::vector<std::string> sayings{
      "GET / HTTP/1.1\r\n\r\n",
      std::string(1000, '\0'),
      std::string(1000, '\xff'),
      Frame(FrameKind::kHelloLauncher, "", 0xffffffff),
      Frame(FrameKind::kHelloLauncher, "MRK1 and more"),
      Frame(FrameKind::kClaim, ""),
      Frame(FrameKind::kAgentDied, std::string(8, '\0')),
      Frame(FrameKind::kRegister, std::string(60'000, 'x')),
      Frame(FrameKind::kAttached, "\1"),
      Frame(FrameKind::kReady, ""),
      Frame(FrameKind::kDone, std::string(100, '\1')),
      Frame(FrameKind::kRun, ""),
      LauncherHello("a") + LauncherHello("a"),
      LauncherHello("b") + Frame(FrameKind::kClaim, claim.body()),
      LauncherHello("c") + Frame(FrameKind::kAgentDied, std::string(8, '\0')),
      LauncherHello(std::string(10'000, 'i')),
  };
  for (const std::string& bytes : sayings) {
    Stranger stranger(server_->address(), bytes);
    EXPECT_TRUE(stranger.SeesTheEnd()) << bytes.substr(0, 30);
    std::vector<float> result;
    const Status status = Run(session.get(), {7}, {1}, &result);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  server_->Stop("done");
}

TEST_F(RankFailureTest, ALauncherThatIsNotHeardOfIsGivenUp) {
  options_.heartbeat_ns = 50 * kNanosPerMilli;
  options_.silence_ns = 300 * kNanosPerMilli;
  StartServer(2);
  FrameWriter claim;
  claim.Text("far");
  claim.Text("");
  claim.U32(1);
  claim.U32(0);
  Stranger silent(server_->address(), LauncherHello("silent") + Frame(FrameKind::kClaim, claim.body()));
  EXPECT_TRUE(silent.SeesTheEnd());
  EXPECT_TRUE(WaitUntil([&] { return server_->Progress().find("claimed ranks 0, 1") != std::string::npos; }));
}

TEST_F(RankFailureTest, ALauncherThatEndsWhenAllAreReadyEndsTheGroup) {
  StartServer(2);
  StartRanks({Rank(false), Rank(false)});
  const auto session = ReadySession();
  launcher_.reset();
  for (auto& agent : agents_) {
    EXPECT_EQ(agent->Join(), "worker gone");
  }
  std::vector<float> result;
  const Status status = Run(session.get(), {1}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message().find("the launcher of rank 0, 1 on here is gone"), 0u) << status.message();
}

TEST_F(RankFailureTest, ARunAfterARemoteRanksEndFailsLikeTheRunsBeforeIt) {
  StartServer(2);
  StartRanks({Rank(false), Rank(false)}, testing::Path::kTcp);
  const auto session = ReadySession();
  std::vector<float> result;
  ASSERT_TRUE(Run(session.get(), {1}, {1}, &result).ok());
  agents_[1]->Kill();
  EXPECT_EQ(agents_[1]->Join(), "stopped");
  // The launcher knows nothing of it: for a second it is waited for what that has to say.
  const Status status = Run(session.get(), {1}, {1}, &result);
  EXPECT_EQ(status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(status.message(), "rank 1 on here is gone: the other side has closed the connection");
}

TEST_F(RankFailureTest, AnAddressInUseIsNamed) {
  StartServer(1);
  std::unique_ptr<RankServer> second;
  RankServerOptions options;
  options.address = server_->address();
  const Status status = RankServer::Create(options, &second);
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find(server_->address()), std::string::npos) << status.message();
}

}  // namespace
}  // namespace msserving
