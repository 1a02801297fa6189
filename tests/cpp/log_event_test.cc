#include "base/log_event.h"

#include <gtest/gtest.h>

#include <string>

namespace msserving {
namespace {

std::string Logged(LogLevel level, std::string_view value) {
  testing::internal::CaptureStderr();
  LogEvent(level, "worker_ready").With("pid", 42).With("why", value);
  return testing::internal::GetCapturedStderr();
}

TEST(LogEventTest, FieldsFollowTheEventOnOneLine) {
  EXPECT_NE(Logged(LogLevel::kError, "killed").find(" event=worker_ready pid=42 why=killed\n"), std::string::npos);
}

TEST(LogEventTest, ValueThatCouldEndTheFieldIsQuoted) {
  EXPECT_NE(Logged(LogLevel::kError, "two words").find(" why=\"two words\"\n"), std::string::npos);
  EXPECT_NE(Logged(LogLevel::kError, "").find(" why=\"\"\n"), std::string::npos);
  EXPECT_NE(Logged(LogLevel::kError, "a \"b\"\\\nc\td").find(" why=\"a \\\"b\\\"\\\\\\nc d\"\n"), std::string::npos);
}

TEST(LogEventTest, LevelBelowTheThresholdIsNotWritten) {
  const LogLevel before = LogThreshold();
  SetLogThreshold(LogLevel::kError);
  EXPECT_EQ(Logged(LogLevel::kWarning, "x"), "");
  SetLogThreshold(before);
}

}  // namespace
}  // namespace msserving
