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
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tensor/exchange.h"

namespace msserving {
namespace {

// A worker in a few lines of Python: speaks the control protocol, then does what its configuration says.
constexpr const char* kWorker = R"(
import mmap, os, socket, struct, sys, threading, time
s = socket.socket(fileno=int(sys.argv[-1]))
def read(n):
    b = b""
    while len(b) < n:
        b += s.recv(n - len(b))
    return b
head, fds, _, _ = socket.recv_fds(s, 16, 64)
kind, count, size = struct.unpack("<cxxxIQ", head)
board = mmap.mmap(fds[1], 0)
at = int(sys.argv[1])
config = read(size).decode()
def say(kind, text):
    s.sendall(struct.pack("<cxxxIQ", kind, 0, len(text)) + text.encode())
print("worker says", config, flush=True)
if config == "exit": sys.exit(3)
if config == "fail":
    say(b"F", "the model is broken"); sys.exit(1)
if config.startswith("takes leave "):
    import signal
    def leave(*_):
        open(config[12:] + " left", "w").close()
        os._exit(0)
    signal.signal(signal.SIGTERM, leave)
    open(config[12:], "w").close()
    time.sleep(60)
if config.startswith("ignores "):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(config[8:], "w").close()
    time.sleep(60)
def beat():
    n = 0
    while True:
        n += 1
        board[at:at + 8] = struct.pack("<Q", n)
        time.sleep(0.02)
if config != "silent":
    threading.Thread(target=beat, daemon=True).start()
if config == "hang":
    board[at + 16:at + 24] = struct.pack("<q", time.monotonic_ns() + 100_000_000)
say(b"R", '{"shortest_timeout_s":%s,"methods":[{"name":"m","inputs":["x"],"outputs":["y"]}]}' % (0.1 if config == "hang" else 0.0))
if config == "chatty":
    for i in range(2000):
        print("line", i, "x" * 40, flush=True)
if config.startswith("mute"):
    once = config.partition(" ")[2]  # a file: mute from the second process on
    if not once or os.path.exists(once):
        s.recv(1)
    open(once, "w").close()
if config.startswith("held "):
    while not os.path.exists(config.partition(" ")[2]):
        time.sleep(0.01)
def answer_probe(rings, replies, doorbell):
    rings, replies = mmap.mmap(rings, 0), mmap.mmap(replies, 0)
    while rings[0:8] == bytes(8):
        time.sleep(0.002)
    request, = struct.unpack("<Q", rings[192:200])
    text = b"broken within" if config == "broken" else b""
    replies[64:104] = struct.pack("<QIIIIIIQ", request, 0, 1, 0, 0, 1 if text else 0, len(text), 128)
    replies[128:128 + len(text)] = text
    at = int(sys.argv[2])
    rings[at + 192:at + 216] = struct.pack("<QQQ", request, 64, 128)
    rings[at:at + 8] = struct.pack("<Q", 1)
    os.write(doorbell, struct.pack("<Q", 1))
for i in range(1, len(fds), 4):
    answer_probe(fds[i], fds[i + 1], fds[i + 3])
if config == "family":
    child = os.fork()
    if child == 0:
        time.sleep(600)
    print("child is", child, flush=True)
if config == "stubborn":
    time.sleep(60)
if config.startswith("loses its ranks "):
    while not os.path.exists(config[16:]):
        time.sleep(0.01)
    os._exit(75)
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
    options.terminate_ns = 2 * kNanosPerSecond;
    options.probe_ns = 3 * kNanosPerSecond;
    options.silence_ns = 2 * kNanosPerSecond;
    options.log_file = {10'000, 3};
    options.grace_ns = 500 * kNanosPerMilli;
    supervisor_ = std::make_unique<Supervisor>(&front_end_, options);
    supervisor_->Start();
  }
  void TearDown() override {
    supervisor_->Stop(kNanosPerSecond);
    front_end_.Stop();
    std::filesystem::remove_all(directory_);
  }

  ServableSpec Spec(const std::string& config, uint64_t version = 1, bool joins_later = false) const {
    return {"add",
            version,
            {{"add, version " + std::to_string(version) + ", device 0", config, Log()}},
            {"python3", "-c", kWorker, std::to_string(ChannelLayout::kBoard), std::to_string(ChannelLayout::kReplies)},
            {},
            joins_later,
            nullptr};
  }
  uint64_t Add(const std::string& config, uint64_t version = 1, bool joins_later = false) {
    return supervisor_->Add(Spec(config, version, joins_later));
  }
  Supervisor::Progress Wait(uint64_t version, std::string* error) {
    return supervisor_->WaitReady(std::array{version}, 30 * kNanosPerSecond, error);
  }
  std::string Log() const { return directory_ + "/worker log.txt"; }
  Supervisor::Progress Wait(std::string* error) { return supervisor_->WaitReady(30 * kNanosPerSecond, error); }
  static bool WaitFor(const std::function<bool()>& condition) {
    for (int i = 0; i < 3000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return condition();
  }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string StateOf(size_t worker) { return supervisor_->Workers().at(worker).state; }
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

TEST_F(SupervisorTest, WorkerThatLosesItsRanksIsAlwaysStartedAgainAfterTheFirstBackOff) {
  const std::string gate = directory_ + "/gate";
  Add("loses its ranks " + gate);
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  std::ofstream(gate).close();
  // With a back-off that doubles each time these would take minutes.
  EXPECT_TRUE(WaitFor([this] { return supervisor_->Workers().at(0).restarts >= 14; }));
}

TEST_F(SupervisorTest, WorkerRunsOnceItsProbeIsBack) {
  const std::string gate = directory_ + "/gate";
  const uint64_t version = Add("held " + gate);
  ASSERT_TRUE(WaitFor([this] { return supervisor_->Workers().size() == 1 && StateOf(0) == "probing"; }));
  std::string error;
  EXPECT_EQ(supervisor_->WaitReady(std::array{version}, 100 * kNanosPerMilli, &error), Supervisor::Progress::kStarting);
  EXPECT_EQ(supervisor_->Describe(version), "");
  std::ofstream(gate).close();
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  EXPECT_EQ(StateOf(0), "running");
}

TEST_F(SupervisorTest, FirstProbeThatDoesNotComeBack_OrFails_FailsTheVersionAndSaysSo) {
  std::string error;
  ASSERT_EQ(Wait(Add("mute", 1), &error), Supervisor::Progress::kFailed);
  EXPECT_NE(error.find("no probe came back through it within 3000 ms"), std::string::npos) << error;
  EXPECT_NE(error.find("worker says mute"), std::string::npos) << error;
  ASSERT_EQ(Wait(Add("broken", 2), &error), Supervisor::Progress::kFailed);
  EXPECT_NE(error.find("a probe through it failed: broken within"), std::string::npos) << error;
}

TEST_F(SupervisorTest, RestartedWorkerWhoseProbeDoesNotComeBackIsStartedAgain) {
  Add("mute " + directory_ + "/once");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  const int first = Pid();
  kill(first, SIGKILL);
  ASSERT_TRUE(WaitFor([&] { return Pid() != first && StateOf(0) == "probing"; }));
  const int second = Pid();
  ASSERT_TRUE(WaitFor([&] { return supervisor_->Workers().at(0).restarts >= 2; }));
  EXPECT_NE(kill(second, 0), 0);
  std::filesystem::remove(directory_ + "/once");
  ASSERT_TRUE(WaitFor([&] { return StateOf(0) == "running"; }));
}

TEST_F(SupervisorTest, WorkerThatDoesNotLeaveIsKilled) {
  Add("stubborn");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  const int pid = Pid();
  supervisor_->Stop(200 * kNanosPerMilli);
  EXPECT_NE(kill(pid, 0), 0);
}

TEST_F(SupervisorTest, StartingWorkerThatTakesLeaveIsAsked_AndKilledIfItStays) {
  const std::string leaves = directory_ + "/leaves";
  const std::string stays = directory_ + "/stays";
  ServableSpec spec = Spec("takes leave " + leaves, 1);
  spec.takes_leave = true;
  supervisor_->Add(spec);
  spec = Spec("ignores " + stays, 2);
  spec.takes_leave = true;
  supervisor_->Add(spec);
  ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(leaves) && std::filesystem::exists(stays); }));
  const std::vector<Supervisor::WorkerState> workers = supervisor_->Workers();
  supervisor_->Stop(60 * kNanosPerSecond);
  EXPECT_TRUE(std::filesystem::exists(leaves + " left"));
  for (const Supervisor::WorkerState& worker : workers) {
    EXPECT_NE(kill(worker.pid, 0), 0) << worker.label;
  }
}

TEST_F(SupervisorTest, SilentWorkerIsKilledAndStartedAgain_ABeatingOneIsNot) {
  Add("good", 1);
  Add("silent", 2);
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  EXPECT_TRUE(WaitFor([this] { return supervisor_->Workers().at(1).restarts > 0; }));
  EXPECT_EQ(supervisor_->Workers().at(0).restarts, 0u);
}

TEST_F(SupervisorTest, WorkerOverItsTimeOutIsEndedAndStartedAgain) {
  Add("hang");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  EXPECT_TRUE(WaitFor([this] { return supervisor_->Workers().at(0).restarts > 0; }));
}

TEST_F(SupervisorTest, LogIsCutIntoFilesWithoutLosingALine) {
  Add("chatty");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  ASSERT_TRUE(WaitFor([this] { return Read(Log()).find("line 1999 ") != std::string::npos; }));
  std::string all;
  for (const char* name : {".3", ".2", ".1", ""}) {
    const std::string text = Read(Log() + name);
    EXPECT_LE(text.size(), 10'000u + text.size() - text.rfind('\n', text.size() - 2));  // and the rest of a line
    EXPECT_EQ(text.back(), '\n') << name;
    all += text;
    EXPECT_EQ(std::filesystem::status(Log() + name).permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  }
  EXPECT_FALSE(std::filesystem::exists(Log() + ".4"));
  const int first = std::stoi(all.substr(all.find("line ") + 5));
  EXPECT_LT(first, 1500);
  std::istringstream lines(all);
  std::string line;
  for (int i = first; std::getline(lines, line); ++i) {
    EXPECT_EQ(line, "line " + std::to_string(i) + " " + std::string(40, 'x'));
  }
}

TEST_F(SupervisorTest, WhatAWorkerHasStartedEndsWithIt) {
  Add("family");
  std::string error;
  ASSERT_EQ(Wait(&error), Supervisor::Progress::kReady) << error;
  ASSERT_TRUE(WaitFor([this] { return Read(Log()).find("child is ") != std::string::npos; }));
  const std::string log = Read(Log());
  const int child = std::stoi(log.substr(log.find("child is ") + 9));
  ASSERT_EQ(kill(child, 0), 0);
  kill(Pid(), SIGKILL);
  EXPECT_TRUE(WaitFor([child] {
    std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
    std::string id, name, state;
    return !(stat >> id >> name >> state) || state == "Z";
  }));
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
      {"add",
       2,
       {{"a", "stubborn", Log()}, {"b", "fail", Log()}},
       {"python3", "-c", kWorker, std::to_string(ChannelLayout::kBoard), std::to_string(ChannelLayout::kReplies)},
       {},
       true});
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
