// Several runs out over the ranks at a time: each rank takes them in turn, and does not wait for the others in between.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "rank_server_fixture.h"

namespace msserving {
namespace {

using testing::FloatInfo;
using testing::Floats;
using testing::FunctionSession;
using testing::Path;
using testing::RankServerTest;
using testing::Sessions;
using testing::WaitUntil;

using Values = std::vector<float>;

// What one stage sends the next; who sends does not wait, as a Broadcast does not.
class Relay {
 public:
  void Send(Values values) {
    {
      std::lock_guard lock(mutex_);
      sent_.push_back(std::move(values));
    }
    changed_.notify_all();
  }
  // False: given up.
  bool Receive(Values* values) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return given_up_ || !sent_.empty(); });
    if (given_up_) {
      return false;
    }
    *values = std::move(sent_.front());
    sent_.pop_front();
    return true;
  }
  void GiveUp() {
    {
      std::lock_guard lock(mutex_);
      given_up_ = true;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Values> sent_;
  bool given_up_ = false;
};

// Runs, known by their first value, that are held where Pass() is called, and what has come there in which order.
class Checkpoint {
 public:
  void Hold(float run) {
    std::lock_guard lock(mutex_);
    held_.insert(run);
  }
  void Open(float run) {
    {
      std::lock_guard lock(mutex_);
      held_.erase(run);
    }
    changed_.notify_all();
  }
  void OpenAll() {
    {
      std::lock_guard lock(mutex_);
      held_.clear();
    }
    changed_.notify_all();
  }
  void Pass(float run) {
    std::unique_lock lock(mutex_);
    came_.push_back(run);
    changed_.wait(lock, [&] { return held_.count(run) == 0; });
  }
  Values came() {
    std::lock_guard lock(mutex_);
    return came_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<float> held_;
  Values came_;
};

constexpr float kFail = -1;  // the run with this first value fails, at the stage that was told

// A group of stages of one rank each: stage n adds n + 1 to every value and sends it on.
class RankPipelineTest : public RankServerTest {
 protected:
  struct StageOf {
    Checkpoint checkpoint;
    Relay from_before;
    std::atomic<int> after{0};  // runs that it has finished
  };

  Sessions Stage(uint32_t stage, uint32_t stages, bool fails = false, uint32_t subgraphs = 1) {
    while (stages_.size() < stages) {
      stages_.emplace_back();
    }
    Sessions sessions;
    for (uint32_t subgraph = 0; subgraph < subgraphs; ++subgraph) {
      sessions.push_back(std::make_shared<FunctionSession>(
          stage == 0 ? std::vector<TensorInfo>{FloatInfo({-1})} : std::vector<TensorInfo>{}, FloatInfo({-1}),
          [this, stage, stages, fails, subgraph](std::span<const MsServingTensor> given, Values* out,
                                                 std::vector<int64_t>* dims) {
            StageOf& own = stages_[stage];
            if (stage == 0) {
              *out = Floats(given[0]);
            } else if (!own.from_before.Receive(out)) {
              return Status(ErrorKind::kStageFailed, "given up");
            }
            own.checkpoint.Pass((*out)[0]);
            if (fails && (*out)[0] == kFail) {
              return Status(ErrorKind::kStageFailed, "no room");
            }
            // The first value names the run and stays.
            for (size_t i = 1; i < out->size(); ++i) {
              (*out)[i] += static_cast<float>(stage + 1 + 100 * subgraph);
            }
            if (stage + 1 < stages) {
              stages_[stage + 1].from_before.Send(*out);
            }
            dims->push_back(static_cast<int64_t>(out->size()));
            ++own.after;
            return Status::Ok();
          }));
    }
    return sessions;
  }

  // `failing`: the stage in which a run with kFail fails.
  void StartStages(uint32_t stages, Path path, int failing = -1, uint32_t subgraphs = 1) {
    options_.pipeline = true;
    options_.grace_ns = 200 * kNanosPerMilli;
    StartServer(stages, stages);
    std::vector<Sessions> ranks;
    for (uint32_t stage = 0; stage < stages; ++stage) {
      ranks.push_back(Stage(stage, stages, static_cast<int>(stage) == failing, subgraphs));
    }
    StartRanks(ranks, path);
    ExpectReady();
    for (uint32_t subgraph = 0; subgraph < subgraphs; ++subgraph) {
      std::shared_ptr<Session> session;
      ASSERT_TRUE(server_->MakeSession(subgraph, &session).ok());
      ASSERT_EQ(session->runs_at_once(), stages);
      std::vector<std::shared_ptr<Session>> places{session};
      for (uint32_t place = 1; place < stages; ++place) {
        places.push_back(session->Sibling(place));
      }
      places_.push_back(places);
    }
  }

  struct Call {
    Status status;
    Values result;
    std::atomic<bool> done{false};
    std::thread thread;
  };

  // Runs on a thread, in a place.
  Call& Begin(uint32_t place, Values values) {
    Call& call = calls_.emplace_back();
    call.thread = std::thread([this, &call, place, values] {
      call.status = Run(places_[0][place].get(), values, {static_cast<int64_t>(values.size())}, &call.result);
      call.done = true;
    });
    return call;
  }
  Call& End(Call& call) {
    call.thread.join();
    return call;
  }
  bool HasBegun(uint32_t stage, float run) {
    return WaitUntil([&] {
      const Values came = stages_[stage].checkpoint.came();
      return std::find(came.begin(), came.end(), run) != came.end();
    });
  }

  void TearDown() override {
    for (StageOf& stage : stages_) {
      stage.checkpoint.OpenAll();
      stage.from_before.GiveUp();
    }
    for (Call& call : calls_) {
      if (call.thread.joinable()) {
        call.thread.join();
      }
    }
    RankServerTest::TearDown();
  }

  std::deque<StageOf> stages_;
  std::deque<Call> calls_;
  std::vector<std::vector<std::shared_ptr<Session>>> places_;  // by sub-graph
};

class RankPipelinePathTest : public RankPipelineTest, public ::testing::WithParamInterface<Path> {};

TEST_P(RankPipelinePathTest, TheFirstStageBeginsTheNextRunWhileTheSecondIsAtTheFirst) {
  StartStages(2, GetParam());
  stages_[1].checkpoint.Hold(1);
  Call& first = Begin(0, {1, 10});
  ASSERT_TRUE(HasBegun(1, 1));
  Call& second = Begin(1, {2, 20});
  ASSERT_TRUE(HasBegun(0, 2));
  ASSERT_TRUE(WaitUntil([this] { return stages_[0].after == 2; }));
  EXPECT_FALSE(first.done);
  EXPECT_FALSE(second.done);
  EXPECT_EQ(stages_[1].checkpoint.came(), (Values{1}));
  stages_[1].checkpoint.OpenAll();
  EXPECT_EQ(End(first).result, (Values{1, 13}));
  EXPECT_EQ(End(second).result, (Values{2, 23}));
}

TEST_P(RankPipelinePathTest, ARunWaitsForItsPlace) {
  StartStages(2, GetParam());
  stages_[1].checkpoint.Hold(1);
  Call& first = Begin(0, {1, 10});
  ASSERT_TRUE(HasBegun(1, 1));
  Call& second = Begin(1, {2, 20});
  ASSERT_TRUE(HasBegun(0, 2));
  Call& third = Begin(0, {3, 30});
  stages_[0].checkpoint.Hold(3);
  stages_[1].checkpoint.Open(1);
  EXPECT_EQ(End(first).result, (Values{1, 13}));
  EXPECT_EQ(End(second).result, (Values{2, 23}));
  ASSERT_TRUE(HasBegun(0, 3));
  EXPECT_EQ(stages_[0].checkpoint.came(), (Values{1, 2, 3}));
  stages_[0].checkpoint.OpenAll();
  EXPECT_EQ(End(third).result, (Values{3, 33}));
}

// Memory grows in one place while runs of other places are out, and each answer is that of its own inputs.
TEST_P(RankPipelinePathTest, AllRanksTakeAllRunsInOneOrder_AndAnswersAreNotMixed) {
  constexpr int kRuns = 60;
  constexpr uint32_t kStages = 3;
  StartStages(kStages, GetParam());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t place = 0; place < kStages; ++place) {
    threads.emplace_back([&, place] {
      for (int i = 0; i < kRuns; ++i) {
        const float name = static_cast<float>(1 + i * kStages + place);
        const size_t size = i % 20 == 19 ? 400'000 * (1 + place) : 2 + static_cast<size_t>(i) * 100;
        Values values(size, name + 1000);
        values[0] = name;
        Values result;
        const Status status = Run(places_[0][place].get(), values, {static_cast<int64_t>(size)}, &result);
        bool right = status.ok() && result.size() == size && result[0] == name;
        for (size_t at = 1; right && at < size; ++at) {
          right = result[at] == name + 1000 + 1 + 2 + 3;
        }
        wrong += right ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
  const Values order = stages_[0].checkpoint.came();
  EXPECT_EQ(order.size(), size_t{kRuns} * kStages);
  EXPECT_EQ(stages_[1].checkpoint.came(), order);
  EXPECT_EQ(stages_[2].checkpoint.came(), order);
}

TEST_P(RankPipelinePathTest, AFailureFailsAllRunsThatAreOut_AndTheRankTakesNoOther) {
  StartStages(2, GetParam(), 0);
  stages_[0].checkpoint.Hold(kFail);
  Call& first = Begin(0, {kFail, 10});
  ASSERT_TRUE(HasBegun(0, kFail));
  Call& second = Begin(1, {2, 20});
  // The second one is ordered as soon as its thread sleeps; if it is late, it fails all the same.
  stages_[0].checkpoint.OpenAll();
  const std::string text = "rank 0 on here failed: no room; rank 1 on here did not finish";
  EXPECT_EQ(End(first).status.message(), text);
  EXPECT_EQ(End(second).status.message(), text);
  EXPECT_EQ(first.status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(second.status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(server_->Failure(), text);
  EXPECT_EQ(stages_[0].checkpoint.came(), (Values{kFail}));
}

TEST_P(RankPipelinePathTest, AFailureOfTheLastStageFailsTheRunBehindIt) {
  StartStages(2, GetParam(), 1);
  stages_[1].checkpoint.Hold(kFail);
  Call& first = Begin(0, {kFail, 10});
  ASSERT_TRUE(HasBegun(1, kFail));
  Call& second = Begin(1, {2, 20});
  ASSERT_TRUE(WaitUntil([this] { return stages_[0].after == 2; }));
  stages_[1].checkpoint.OpenAll();
  const std::string text = "rank 1 on here failed: no room; the ranks are out of step";
  EXPECT_EQ(End(first).status.message(), text);
  EXPECT_EQ(End(second).status.message(), text);
  EXPECT_EQ(stages_[1].checkpoint.came(), (Values{kFail}));
  EXPECT_EQ(Run(places_[0][0].get(), {4, 4}, {2}, &first.result).message(), text);
}

TEST_P(RankPipelinePathTest, ADeadRankFailsAllRunsThatAreOutWithItsLastWords) {
  StartStages(2, GetParam());
  stages_[1].checkpoint.Hold(1);
  Call& first = Begin(0, {1, 10});
  ASSERT_TRUE(HasBegun(1, 1));
  Call& second = Begin(1, {2, 20});
  ASSERT_TRUE(WaitUntil([this] { return stages_[0].after == 2; }));
  launcher_->AgentDied(1, "killed by signal 9");
  const std::string text = "rank 1 on here has died: killed by signal 9";
  EXPECT_EQ(End(first).status.message(), text);
  EXPECT_EQ(End(second).status.message(), text);
}

TEST_P(RankPipelinePathTest, ARankThatHangsFailsAllRunsThatAreOut) {
  options_.rank_timeout_ns = 500 * kNanosPerMilli;
  StartStages(2, GetParam());
  stages_[1].checkpoint.Hold(1);
  Call& first = Begin(0, {1, 10});
  ASSERT_TRUE(HasBegun(1, 1));
  Call& second = Begin(1, {2, 20});
  EXPECT_EQ(End(first).status.kind(), ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(End(second).status.message(), first.status.message());
  EXPECT_EQ(first.status.message(), "rank 1 on here did not answer within 500 ms (rank_timeout_seconds)");
}

INSTANTIATE_TEST_SUITE_P(Paths, RankPipelinePathTest, ::testing::Values(Path::kLocal, Path::kTcp, Path::kMixed),
                         [](const auto& info) {
                           return info.param == Path::kLocal ? "Local" : info.param == Path::kTcp ? "Tcp" : "Mixed";
                         });

TEST_F(RankPipelineTest, TheTimeOfARunBeginsWhenTheOneBeforeItHasEnded) {
  options_.rank_timeout_ns = 4 * kNanosPerSecond;
  StartStages(2, Path::kLocal);
  stages_[1].checkpoint.Hold(1);
  stages_[1].checkpoint.Hold(2);
  Call& first = Begin(0, {1, 10});
  ASSERT_TRUE(HasBegun(1, 1));
  Call& second = Begin(1, {2, 20});
  ASSERT_TRUE(HasBegun(0, 2));
  // Together longer than the limit since the second was ordered, and each of them less.
  for (const float run : {1.0F, 2.0F}) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2300));
    stages_[1].checkpoint.Open(run);
  }
  EXPECT_TRUE(End(first).status.ok()) << first.status.message();
  EXPECT_TRUE(End(second).status.ok()) << second.status.message();
}

TEST_F(RankPipelineTest, ARunThatHangsBehindAnotherIsFoundOut) {
  options_.rank_timeout_ns = 3 * kNanosPerSecond;
  StartStages(2, Path::kLocal);
  stages_[1].checkpoint.Hold(2);
  stages_[0].checkpoint.Hold(1);
  Call& first = Begin(0, {1, 10});
  ASSERT_TRUE(HasBegun(0, 1));
  Call& second = Begin(1, {2, 20});
  stages_[0].checkpoint.OpenAll();
  EXPECT_TRUE(End(first).status.ok()) << first.status.message();
  EXPECT_EQ(End(second).status.message(), "rank 1 on here did not answer within 3000 ms (rank_timeout_seconds)");
}

TEST_F(RankPipelineTest, SubGraphsShareTheOrder) {
  StartStages(2, Path::kLocal, -1, 2);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t place = 0; place < 2; ++place) {
    threads.emplace_back([&, place] {
      for (int i = 0; i < 100; ++i) {
        const uint32_t subgraph = static_cast<uint32_t>(i + i / 7) % 2;
        const float name = static_cast<float>(2 * i + place);
        Values result;
        const Status status = Run(places_[subgraph][place].get(), {name, 1}, {2}, &result);
        wrong += status.ok() && result == Values{name, 4 + 200.0F * subgraph} ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(stages_[0].checkpoint.came(), stages_[1].checkpoint.came());
}

TEST_F(RankPipelineTest, WithoutTheOptionAndWithOneStageOneRunIsOut) {
  StartServer(2, 2);
  StartRanks({Stage(0, 2), Stage(1, 2)});
  ExpectReady();
  std::shared_ptr<Session> session;
  ASSERT_TRUE(server_->MakeSession(0, &session).ok());
  EXPECT_EQ(session->runs_at_once(), 1U);
  server_->Stop("enough");
  launcher_.reset();
  server_.reset();
  agents_.clear();
  options_.pipeline = true;
  StartServer(1, 1);
  StartRanks({Stage(0, 1)});
  ExpectReady();
  ASSERT_TRUE(server_->MakeSession(0, &session).ok());
  EXPECT_EQ(session->runs_at_once(), 1U);
}

}  // namespace
}  // namespace msserving
