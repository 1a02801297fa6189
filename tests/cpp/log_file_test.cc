#include "server/log_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace msserving {
namespace {

namespace fs = std::filesystem;

class LogFileTest : public ::testing::Test {
 protected:
  LogFileTest() {
    std::string pattern = (fs::temp_directory_path() / "log_file_test.XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~LogFileTest() override { fs::remove_all(folder_); }

  static std::string Content(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  fs::path folder_;
};

TEST_F(LogFileTest, LinesGoToANewFileWhenOneIsFull) {
  LogFile file({.max_bytes = 10, .backups = 2});
  ASSERT_TRUE(file.Open((folder_ / "log").string(), false).ok());
  for (const char* line : {"first 1\n", "second2\n", "third 3\n", "fourth4\n"}) {
    file.Write(line);
  }
  EXPECT_EQ(Names(), (std::vector<std::string>{"log", "log.1", "log.2"}));
  EXPECT_EQ(Content(folder_ / "log"), "fourth4\n");
  EXPECT_EQ(Content(folder_ / "log.1"), "third 3\n");
  EXPECT_EQ(Content(folder_ / "log.2"), "second2\n");
  struct stat info {};
  ASSERT_EQ(stat((folder_ / "log").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(file.lost_bytes(), 0u);
}

TEST_F(LogFileTest, WithoutBackupsTheFileBeginsAnew) {
  LogFile file({.max_bytes = 10, .backups = 0});
  ASSERT_TRUE(file.Open((folder_ / "log").string(), false).ok());
  file.Write("first 1\nsecond2\n");
  EXPECT_EQ(Names(), (std::vector<std::string>{"log"}));
  EXPECT_EQ(Content(folder_ / "log"), "second2\n");
}

TEST_F(LogFileTest, ADirectoryThatHasGoneStopsNothing) {
  LogFile file({.max_bytes = 10, .backups = 2});
  ASSERT_TRUE(file.Open((folder_ / "log").string(), false).ok());
  file.Write("first 1\n");
  fs::remove_all(folder_);
  file.Write("second2\nthird 3\n");  // into the file that has no name any more
  EXPECT_EQ(file.lost_bytes(), 0u);
  fs::create_directory(folder_);
  file.Write("fourth4\n");
  EXPECT_EQ(Content(folder_ / "log"), "fourth4\n");
}

TEST_F(LogFileTest, WithoutDescriptorsNoBackupIsLostAndTheOldFileGoesOn) {
  LogFile file({.max_bytes = 10, .backups = 2});
  ASSERT_TRUE(file.Open((folder_ / "log").string(), false).ok());
  file.Write("first 1\nsecond2\n");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  file.Write("third 3\nfourth4\n");
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(Names(), (std::vector<std::string>{"log", "log.1"}));
  EXPECT_EQ(Content(folder_ / "log"), "second2\nthird 3\nfourth4\n");
  EXPECT_EQ(Content(folder_ / "log.1"), "first 1\n");
  file.Write("fifth 5\n");
  EXPECT_EQ(Content(folder_ / "log"), "fifth 5\n");
  EXPECT_EQ(Content(folder_ / "log.2"), "first 1\n");
}

}  // namespace
}  // namespace msserving
