// Servables and a Python for servers inside this program. Workers are a few lines of Python that speak the control
// protocol; tests/e2e/test_embedding.py has real ones.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mindspore_serving/server.h"
#include "tensor/exchange.h"

namespace mindspore_serving {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Stands where python3 stands: answers the question for the package's version, or is a worker. What a worker does is in
// servable_config.py of its servable.
constexpr const char* kPython = R"(#!/usr/bin/env python3
import json, mmap, os, socket, struct, sys, threading, time
if sys.argv[1] == "-c":
    assert "load_native" in sys.argv[2]
    print("some noise of a site's own")
    print("mindspore_serving safe_path 1")
    print("mindspore_serving version", os.environ.get("TEST_VERSION", "@VERSION@"))
    sys.exit(0)
assert sys.argv[1:-1] == ["-P", "-m", "mindspore_serving.worker"], sys.argv
assert os.environ["PYTHONUNBUFFERED"] == "1"
open_fds = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name))
s = socket.socket(fileno=int(sys.argv[-1]))
def read(n):
    b = b""
    while len(b) < n:
        b += s.recv(n - len(b))
    return b
def receive():
    head, fds, _, _ = socket.recv_fds(s, 16, 64)
    kind, count, size = struct.unpack("<cxxxIQ", head)
    return kind, read(size), fds
kind, body, fds = receive()
key = b""
if kind == b"K":
    key = body
    kind, body, fds = receive()
order = json.loads(body)
def say(kind, text):
    s.sendall(struct.pack("<cxxxIQ", kind, 0, len(text)) + text.encode())
print("order", json.dumps(order, sort_keys=True), "key", key, "descriptors", open_fds, flush=True)
does = open(os.path.join(order["servable_directory"], order["servable_name"], "servable_config.py")).read().strip()
if does == "fail":
    say(b"F", "the model is broken"); sys.exit(1)
if does == "slow":
    s.recv(1); sys.exit(0)
board = mmap.mmap(fds[1], 0)
def beat():
    n = 0
    while True:
        n += 1
        board[@BOARD@:@BOARD@ + 8] = struct.pack("<Q", n)
        time.sleep(0.05)
threading.Thread(target=beat, daemon=True).start()
say(b"R", '{"methods":[{"name":"m","inputs":["x"],"outputs":["y"]}]}')
def answer_probe(rings, replies, doorbell):
    rings, replies = mmap.mmap(rings, 0), mmap.mmap(replies, 0)
    while rings[0:8] == bytes(8):
        time.sleep(0.002)
    request, = struct.unpack("<Q", rings[192:200])
    replies[64:104] = struct.pack("<QIIIIIIQ", request, 0, 1, 0, 0, 0, 0, 128)
    at = @REPLIES@
    rings[at + 192:at + 216] = struct.pack("<QQQ", request, 64, 128)
    rings[at:at + 8] = struct.pack("<Q", 1)
    os.write(doorbell, struct.pack("<Q", 1))
for i in range(1, len(fds), 4):
    answer_probe(fds[i], fds[i + 1], fds[i + 3])
s.recv(1)
)";

inline std::string Replaced(std::string text, const std::string& name, const std::string& value) {
  for (size_t at = text.find(name); at != std::string::npos; at = text.find(name)) {
    text.replace(at, name.size(), value);
  }
  return text;
}

inline std::vector<std::string> Entries(const char* path) {
  std::vector<std::string> entries;
  DIR* directory = opendir(path);
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.' && std::to_string(dirfd(directory)) != entry->d_name) {
      entries.emplace_back(entry->d_name);
    }
  }
  closedir(directory);
  std::sort(entries.begin(), entries.end());
  return entries;
}

inline std::string ReadFile(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Threads of the library: a sanitizer has one of its own.
inline size_t OurThreads() {
  size_t count = 0;
  for (const std::string& task : Entries("/proc/self/task")) {
    count += ReadFile("/proc/self/task/" + task + "/comm").rfind("serving-", 0) == 0 ? 1 : 0;
  }
  return count;
}

inline bool WaitFor(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

class EmbeddingTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/embedding_test_XXXXXX";
    directory_ = mkdtemp(name);
    std::string script = Replaced(kPython, "@VERSION@", Version());
    script = Replaced(script, "@BOARD@", std::to_string(msserving::ChannelLayout::kBoard));
    script = Replaced(script, "@REPLIES@", std::to_string(msserving::ChannelLayout::kReplies));
    Write("python", script);
    chmod((directory_ / "python").c_str(), 0755);
    options_.python = (directory_ / "python").string();
    options_.log_directory = (directory_ / "logs").string();
    options_.io_threads = 1;
    MakeServable("add", "serve", {1});
  }
  void TearDown() override { fs::remove_all(directory_); }

  void Write(const fs::path& file, const std::string& text) const {
    fs::create_directories((directory_ / file).parent_path());
    std::ofstream(directory_ / file) << text;
  }
  void MakeServable(const std::string& name, const std::string& does, const std::vector<int>& versions) const {
    Write(fs::path(name) / "servable_config.py", does);
    for (const int version : versions) {
      fs::create_directories(directory_ / name / std::to_string(version));
    }
  }
  ServableStartConfig Config(const std::string& name, int64_t version = 0) const {
    ServableStartConfig config;
    config.servable_directory = directory_.string();
    config.servable_name = name;
    config.version_number = version;
    return config;
  }
  std::string Unix(const std::string& name) const { return "unix:" + (directory_ / name).string(); }

  fs::path directory_;
  ServerOptions options_;
};

#define EXPECT_ERROR(statement, expected_code, ...)                        \
  do {                                                                     \
    try {                                                                  \
      statement;                                                           \
      ADD_FAILURE() << "nothing was thrown";                               \
    } catch (const Error& error) {                                         \
      EXPECT_EQ(error.code(), ErrorCode::expected_code) << error.what();   \
      EXPECT_THAT(std::string(error.what()), testing::AllOf(__VA_ARGS__)); \
    }                                                                      \
  } while (false)

}  // namespace mindspore_serving
