// The log of a worker: what its processes write to standard output and error comes through a pipe and is put into a
// file of bounded size by the server, so that no process has to open or rename anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/unique_fd.h"
#include "net/event_loop.h"

namespace msserving {

struct LogFileOptions {
  uint64_t max_bytes =
      uint64_t{50} << 20;  // then, at the end of a line, the file becomes "<name>.1" and a new one is begun; 0: never
  uint32_t backups = 10;   // files kept beside it, "<name>.1" being the youngest

  // With the environment's logger_maxBytes and logger_backupCount, where they are numbers.
  static LogFileOptions FromEnvironment();
};

// Not thread-safe. Files are created 0600. A line is never cut in two unless it alone is longer than max_bytes.
class LogFile {
 public:
  explicit LogFile(LogFileOptions options) : options_(options) {}

  // `append`: keep what is there. Errors name the file.
  Status Open(const std::string& path, bool append);
  // Bytes that the disk does not take are lost and counted. Where no new file can be begun, the old one goes on.
  void Write(std::string_view text);
  void EndLine();  // if the last one has no end
  uint64_t lost_bytes() const { return lost_bytes_; }

 private:
  void Put(std::string_view text);
  void Rotate();

  const LogFileOptions options_;
  std::string path_;
  UniqueFd file_;
  uint64_t size_ = 0;
  bool at_line_start_ = true;
  uint64_t lost_bytes_ = 0;
};

// The pipe of one worker process into a LogFile. On the loop's thread.
class LogPipe final : private IoHandler {
 public:
  LogPipe(EventLoop* loop, LogFile* file) : loop_(loop), file_(file) {}
  ~LogPipe() { Close(); }
  LogPipe(const LogPipe&) = delete;

  // *theirs is the end for the process. What a pipe opened before still held is written first.
  Status Open(UniqueFd* theirs);
  // Takes what is in the pipe now.
  void Drain();
  void Close();  // after Drain(); idempotent

 private:
  void OnIo(uint32_t events) override;
  bool ReadSome();  // false: nothing more now

  EventLoop* loop_;
  LogFile* file_;
  UniqueFd end_;
};

}  // namespace msserving
