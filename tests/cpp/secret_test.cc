// Keys in memory of their own, and the files that they open.
#include "base/secret.h"

#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "worker/model_file.h"

namespace msserving {
namespace {

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The VmFlags of the mapping that holds this address.
std::string FlagsOf(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0;
    uintptr_t end = 0;
    char dash = 0;
    if (std::sscanf(line.c_str(), "%lx%c%lx ", &begin, &dash, &end) == 3 && dash == '-') {
      inside = begin <= wanted && wanted < end;
    } else if (inside && line.rfind("VmFlags:", 0) == 0) {
      return line + " ";
    }
  }
  return "";
}

TEST(Secret, IsLockedAndLeftOutOfCoreDumps) {
  std::shared_ptr<Secret> secret;
  ASSERT_TRUE(Secret::Create(Bytes("0123456789abcdef"), &secret).ok());
  EXPECT_EQ(secret->text(), "0123456789abcdef");
  const std::string flags = FlagsOf(secret->bytes().data());
  EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // sanitizers make mlock() do nothing
  rlimit allowed{};
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &allowed), 0);
  if (geteuid() == 0 || allowed.rlim_cur >= static_cast<rlim_t>(sysconf(_SC_PAGESIZE))) {
    EXPECT_NE(flags.find(" lo "), std::string::npos) << flags;
  }
#endif
}

TEST(Secret, IsNotInAForkedChild) {
  std::shared_ptr<Secret> secret;
  ASSERT_TRUE(Secret::Create(Bytes("0123456789abcdef"), &secret).ok());
  const pid_t child = fork();
  if (child == 0) {
    _exit(secret->bytes()[0] == 0 ? 7 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

class ModelFileTest : public testing::Test {
 protected:
  void TearDown() override { std::remove(path_.c_str()); }
  std::string Why(const std::string& content, const std::string& mode) {
    std::ofstream(path_, std::ios::binary) << content;
    std::shared_ptr<Secret> key;
    EXPECT_TRUE(Secret::Create(Bytes("0123456789abcdef"), &key).ok());
    std::string out;
    const Status status = DecryptModelFile(path_, *key, mode, &out);
    EXPECT_FALSE(status.ok());
    return status.message();
  }
  const std::string path_ = "/tmp/model_file_test_" + std::to_string(getpid());
};

// What MindSpore writes is read in tests/python/test_mindspore_model.py.
TEST_F(ModelFileTest, DamagedFilesAreRefusedWithTheirReason) {
  const std::string gcm("\xd8\x5e\x3a\x7f", 4);
  const std::string cbc("\xd9\x5e\x3a\x7f", 4);
  EXPECT_NE(Why("", "AES-GCM").find("not a model file encrypted"), std::string::npos);
  EXPECT_NE(Why("plain", "AES-GCM").find("not a model file encrypted"), std::string::npos);
  EXPECT_NE(Why(cbc + std::string(64, 'x'), "AES-GCM").find("not a model file encrypted"), std::string::npos);
  for (size_t length = 0; length < 60; ++length) {
    EXPECT_NE(Why(gcm + std::string(length, 'x'), "AES-GCM").find("cut off"), std::string::npos);
    EXPECT_NE(Why(cbc + std::string(length, '\xff'), "AES-CBC").find("cut off"), std::string::npos);
  }
  // Sizes that fit, content that does not.
  const std::string head = gcm + std::string(16, 't') + std::string("\x28\0\0\0\x10\0\0\0", 8) + std::string(16, 'i');
  EXPECT_NE(Why(head + std::string("\x10\0\0\0", 4) + std::string(16, 'c'), "AES-GCM").find("do not decrypt"),
            std::string::npos);
}

TEST_F(ModelFileTest, MissingFileIsSaidSo) {
  std::shared_ptr<Secret> key;
  ASSERT_TRUE(Secret::Create(Bytes("0123456789abcdef"), &key).ok());
  std::string out;
  EXPECT_EQ(DecryptModelFile("/no/such/file", *key, "AES-GCM", &out).message(), "No such file or directory");
}

}  // namespace
}  // namespace msserving
