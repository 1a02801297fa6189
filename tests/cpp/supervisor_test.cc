#include "server/supervisor.h"

#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace msserving {
namespace {

// A worker in a few lines of Python: speaks the control protocol, then does what its configuration says.
constexpr const char* kWorker = R"(
import os, socket, struct, sys, time
s = socket.socket(fileno=int(sys.argv[-1]))
def read(n):
    b = b""
    while len(b) < n:
        b += s.recv(n - len(b))
    return b
kind, fds, size = struct.unpack("<cxxxIQ", read(16))
config = read(size).decode()
def say(kind, text):
    s.sendall(struct.pack("<cxxxIQ", kind, 0, len(text)) + text.encode())
print("worker says", config, flush=True)
if config == "exit": sys.exit(3)
if config == "fail":
    say(b"F", "the model is broken"); sys.exit(1)
say(b"R", '{"methods":[{"name":"m","inputs":["x"],"outputs":["y"]}]}')
if config == "stubborn":
    time.sleep(60)
s.recv(1)
)";

class SupervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/supervisor_test_XXXXXX";
    directory_ = mkdtemp(name);
    ASSERT_TRUE(front_end_.Start().ok());
    SupervisorOptions options;
    options.first_backoff_ns = 10 * kNanosPerMilli;
    options.grace_ns = 500 * kNanosPerMilli;
    supervisor_ = std::make_unique<Supervisor>(&front_end_, options);
    supervisor_->Start();
  }
  void TearDown() override {
    supervisor_->Stop(kNanosPerSecond);
    front_end_.Stop();
    std::filesystem::remove_all(directory_);
  }

  uint64_t Add(const std::string& config, uint64_t version = 1, bool joins_later = false) {
    return supervisor_->Add({"add",
                             version,
                             {{"add, version " + std::to_string(version) + ", device 0", config, Log()}},
                             {"python3", "-c", kWorker},
                             {},
                             joins_later});
  }
  Supervisor::Progress Wait(uint64_t version, std::string* error) {
    return supervisor_->WaitReady(std::array{version}, 30 * kNanosPerSecond, error);
  }
  std::string Log() const { return directory_ + "/worker log.txt"; }
  Supervisor::Progress Wait(std::string* error) { return supervisor_->WaitReady(30 * kNanosPerSecond, error); }
  int Pid() { return supervisor_->Workers().at(0).pid; }

  std::string directory_;
  FrontEnd front_end_{FrontEndOptions{2, 1 << 20, 1 << 20}};
  std::unique_ptr<Supervisor> supervisor_;
};

TEST_F(SupervisorTest, ReadyWorkerIsReportedAndLeavesWhenTold) {
  Add("good");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  const int pid = Pid();
  EXPECT_EQ(kill(pid, 0), 0);
  supervisor_->Stop(10 * kNanosPerSecond);
  EXPECT_NE(kill(pid, 0), 0);
}

TEST_F(SupervisorTest, DeathBeforeReadyQuotesTheLog) {
  Add("exit");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kFailed);
  EXPECT_NE(error.find("exited with status 3"), std::string::npos) << error;
  EXPECT_NE(error.find("worker says exit"), std::string::npos) << error;
}

TEST_F(SupervisorTest, WorkersOwnWordsAreTheError) {
  Add("fail");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kFailed);
  EXPECT_NE(error.find("the model is broken"), std::string::npos) << error;
}

TEST_F(SupervisorTest, KilledWorkerIsStartedAgain) {
  Add("good");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  const int before = Pid();
  kill(before, SIGKILL);
  for (int i = 0; i < 1000; ++i) {
    const auto state = supervisor_->Workers().at(0);
    if (state.pid != before && state.state == "running") {
      EXPECT_EQ(state.restarts, 1u);
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  FAIL() << "not started again";
}

TEST_F(SupervisorTest, WorkerThatDoesNotLeaveIsKilled) {
  Add("stubborn");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  const int pid = Pid();
  supervisor_->Stop(200 * kNanosPerMilli);
  EXPECT_NE(kill(pid, 0), 0);
}

TEST_F(SupervisorTest, StopIsHurriedWhileItWaits) {
  Add("stubborn");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  const int pid = Pid();
  supervisor_->Stop(3600 * kNanosPerSecond, [asked = 0]() mutable { return ++asked > 3; });
  EXPECT_NE(kill(pid, 0), 0);
}

TEST_F(SupervisorTest, RetiredVersionLeaves_TheOtherStays) {
  const uint64_t first = Add("good", 1);
  const uint64_t second = Add("good", 2, true);
  std::string error;
  ASSERT_EQ(Wait(first, &error), Supervisor::Progress::kReady) << error;
  ASSERT_EQ(Wait(second, &error), Supervisor::Progress::kReady) << error;
  EXPECT_NE(supervisor_->Describe(second).find("\"methods\""), std::string::npos);
  const int pid = Pid();
  EXPECT_FALSE(supervisor_->WaitGone(first, kNanosPerMilli));
  supervisor_->Retire(first, 10 * kNanosPerSecond);
  ASSERT_TRUE(supervisor_->WaitGone(first, 30 * kNanosPerSecond));
  EXPECT_NE(kill(pid, 0), 0);
  ASSERT_EQ(supervisor_->Workers().size(), 1u);
  EXPECT_EQ(supervisor_->Workers()[0].label, "add, version 2, device 0");
  EXPECT_EQ(supervisor_->Describe(first), "");
  EXPECT_EQ(Wait(first, &error), Supervisor::Progress::kFailed);
  const uint64_t again = Add("good", 1, true);
  EXPECT_EQ(Wait(again, &error), Supervisor::Progress::kReady) << error;
}

TEST_F(SupervisorTest, FailedLaterVersionTakesItsWorkersAlongAndNothingElse) {
  const uint64_t first = Add("good", 1);
  std::string error;
  ASSERT_EQ(Wait(first, &error), Supervisor::Progress::kReady) << error;
  const uint64_t second = supervisor_->Add(
      {"add", 2, {{"a", "stubborn", Log()}, {"b", "fail", Log()}}, {"python3", "-c", kWorker}, {}, true});
  EXPECT_EQ(Wait(second, &error), Supervisor::Progress::kFailed);
  EXPECT_NE(error.find("the model is broken"), std::string::npos) << error;
  ASSERT_TRUE(supervisor_->WaitGone(second, 30 * kNanosPerSecond));
  ASSERT_EQ(supervisor_->Workers().size(), 1u);
  EXPECT_EQ(supervisor_->Workers()[0].state, "running");
}

TEST_F(SupervisorTest, VersionThatRunsIsNotAddedTwice) {
  const uint64_t first = Add("good");
  const uint64_t second = Add("good");
  std::string error;
  EXPECT_EQ(Wait(second, &error), Supervisor::Progress::kFailed);
  EXPECT_NE(error.find("running already"), std::string::npos) << error;
  EXPECT_EQ(Wait(first, &error), Supervisor::Progress::kReady) << error;
}

TEST_F(SupervisorTest, StubbornVersionIsKilledAfterItsGrace) {
  const uint64_t first = Add("stubborn");
  std::string error;
  ASSERT_EQ(Wait(first, &error), Supervisor::Progress::kReady) << error;
  supervisor_->Retire(first, 10 * kNanosPerSecond);
  EXPECT_TRUE(supervisor_->WaitGone(first, 30 * kNanosPerSecond));
}

TEST_F(SupervisorTest, VersionMayLeaveWhileItStarts_AndWhileItsWorkerIsDead) {
  const uint64_t starting = Add("stubborn", 1);
  supervisor_->Retire(starting, 0);
  EXPECT_TRUE(supervisor_->WaitGone(starting, 30 * kNanosPerSecond));
  const uint64_t killed = Add("good", 2);
  std::string error;
  ASSERT_EQ(Wait(killed, &error), Supervisor::Progress::kReady) << error;
  kill(Pid(), SIGKILL);
  supervisor_->Retire(killed, 10 * kNanosPerSecond);
  EXPECT_TRUE(supervisor_->WaitGone(killed, 30 * kNanosPerSecond));
  EXPECT_TRUE(supervisor_->Workers().empty());
}

TEST_F(SupervisorTest, VersionsComeAndGoWhileWorkersAreKilled) {
  std::atomic<bool> over{false};
  std::thread killer([this, &over] {
    for (int turn = 0; !over; ++turn) {
      const auto workers = supervisor_->Workers();
      if (!workers.empty() && workers[static_cast<size_t>(turn) % workers.size()].pid > 0) {
        kill(workers[static_cast<size_t>(turn) % workers.size()].pid, SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(40 + turn * 17 % 60));
    }
  });
  std::vector<uint64_t> there;
  for (uint64_t version = 1; version <= 12; ++version) {
    const uint64_t added = Add("good", version, version > 1);
    std::string error;
    if (Wait(added, &error) == Supervisor::Progress::kReady) {
      there.push_back(added);
    } else {
      EXPECT_NE(error.find("signal 9"), std::string::npos) << error;
      EXPECT_TRUE(supervisor_->WaitGone(added, 30 * kNanosPerSecond));
    }
    if (there.size() > 1) {
      supervisor_->Retire(there.front(), 10 * kNanosPerSecond);
      EXPECT_TRUE(supervisor_->WaitGone(there.front(), 30 * kNanosPerSecond));
      there.erase(there.begin());
    }
  }
  over = true;
  killer.join();
  for (const uint64_t version : there) {
    supervisor_->Retire(version, 10 * kNanosPerSecond);
    EXPECT_TRUE(supervisor_->WaitGone(version, 30 * kNanosPerSecond));
  }
  EXPECT_TRUE(supervisor_->Workers().empty());
}

TEST_F(SupervisorTest, CommandThatDoesNotExistFailsWithItsName) {
  supervisor_->Add({"add", 1, {{"add", "", ""}}, {"/no/such/program"}, {}});
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kFailed);
  EXPECT_NE(error.find("/no/such/program"), std::string::npos) << error;
}

}  // namespace
}  // namespace msserving
