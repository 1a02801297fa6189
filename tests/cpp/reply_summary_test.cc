#include "protocol/reply_summary.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace msserving {
namespace {

InstanceResult Failed(ErrorKind kind, std::string_view message) { return {kind, message, {}}; }

TEST(ReplySummary, AllGoodIsNoFailure) {
  const std::vector<InstanceResult> results(3);
  const ReplySummary summary = Summarise(results);
  EXPECT_FALSE(summary.any_failed);
  EXPECT_FALSE(summary.whole_failed);
  EXPECT_EQ(summary.kind, ErrorKind::kOk);
}

TEST(ReplySummary, NoResultsIsNoFailure) { EXPECT_FALSE(Summarise({}).any_failed); }

TEST(ReplySummary, IdenticalFailuresCollapse) {
  const std::vector<InstanceResult> results(3, Failed(ErrorKind::kStageFailed, "Preprocess Failed"));
  const ReplySummary summary = Summarise(results);
  EXPECT_TRUE(summary.whole_failed);
  EXPECT_EQ(summary.kind, ErrorKind::kStageFailed);
  EXPECT_EQ(summary.message, "Preprocess Failed");
}

TEST(ReplySummary, AFailingSingleInstanceIsAWholeFailure) {
  const std::vector<InstanceResult> results{Failed(ErrorKind::kInternal, "x")};
  EXPECT_TRUE(Summarise(results).whole_failed);
}

TEST(ReplySummary, OneGoodInstanceKeepsTheListWhereverItStands) {
  for (size_t good = 0; good < 3; ++good) {
    std::vector<InstanceResult> results(3, Failed(ErrorKind::kStageFailed, "x"));
    results[good] = {};
    const ReplySummary summary = Summarise(results);
    EXPECT_TRUE(summary.any_failed);
    EXPECT_FALSE(summary.whole_failed) << good;
  }
}

TEST(ReplySummary, DifferentTextsKeepTheList) {
  const std::vector<InstanceResult> results{Failed(ErrorKind::kStageFailed, "x"), Failed(ErrorKind::kStageFailed, "y")};
  EXPECT_FALSE(Summarise(results).whole_failed);
}

TEST(ReplySummary, CodesAreComparedAsAClientSeesThem) {
  const std::vector<InstanceResult> same{Failed(ErrorKind::kStageFailed, "x"), Failed(ErrorKind::kInvalidInput, "x")};
  EXPECT_TRUE(Summarise(same).whole_failed);
  const std::vector<InstanceResult> other{Failed(ErrorKind::kStageFailed, "x"), Failed(ErrorKind::kInternal, "x")};
  EXPECT_FALSE(Summarise(other).whole_failed);
}

TEST(ReplySummary, FailuresOfAddedStagesCollapseAndOtherwiseSayWhichInstanceItWas) {
  const std::string text = "Call f Failed: ValueError: x";
  std::vector<InstanceResult> results(3, Failed(ErrorKind::kCallFailed, text));
  EXPECT_TRUE(Summarise(results).whole_failed);
  EXPECT_EQ(Summarise(results).message, text);
  results[1] = {};
  EXPECT_FALSE(Summarise(results).whole_failed);
  EXPECT_EQ(InstanceMessage(results, 2), text + ", instance 2");
  EXPECT_GE(MaxInstanceMessage(results[2]), InstanceMessage(results, 2).size());
  results[2].error = ErrorKind::kStageFailed;
  EXPECT_EQ(InstanceMessage(results, 2), text);
}

TEST(ReplySummary, TheInstanceSurvivesTheShorteningOfALongText) {
  for (const size_t size : {380U, 384U, 385U, 5000U}) {
    const std::string text(size, 'x');
    const std::vector<InstanceResult> results(12, Failed(ErrorKind::kCallFailed, text));
    const std::string message = InstanceMessage(results, 11);
    EXPECT_TRUE(message.ends_with("x, instance 11")) << message;
    EXPECT_LE(message.size(), MaxInstanceMessage(results[11]));
  }
}

}  // namespace
}  // namespace msserving
