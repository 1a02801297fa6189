#include "server/log_file.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace msserving {
namespace {

// From a pipe in one turn, so that a worker that never stops writing does not keep the loop from all else.
constexpr int kReadsATurn = 4;
constexpr int kReadsToDrain = 1024;

bool ReadNumber(const char* name, uint64_t limit, uint64_t* number) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0' || std::strspn(text, "0123456789") != std::strlen(text)) {
    return false;
  }
  errno = 0;
  const uint64_t value = std::strtoull(text, nullptr, 10);
  *number = errno == ERANGE ? limit : std::min(value, limit);
  return true;
}

}  // namespace

LogFileOptions LogFileOptions::FromEnvironment() {
  LogFileOptions options;
  uint64_t number = 0;
  if (ReadNumber("logger_maxBytes", UINT64_MAX, &number)) {
    options.max_bytes = number;
  }
  if (ReadNumber("logger_backupCount", 1000, &number)) {
    options.backups = static_cast<uint32_t>(number);
  }
  return options;
}

Status LogFile::Open(const std::string& path, bool append) {
  path_ = path;
  file_.Reset(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (append ? 0 : O_TRUNC), 0600));
  struct stat info {};
  if (!file_ || fstat(file_.get(), &info) != 0) {
    return Status(ErrorKind::kInternal,
                  "cannot open the worker's log file '" + path + "': " + std::string(std::strerror(errno)));
  }
  if (S_ISREG(info.st_mode)) {
    (void)fchmod(file_.get(), 0600);  // one that was there already
  }
  size_ = static_cast<uint64_t>(info.st_size);
  return Status::Ok();
}

void LogFile::Write(std::string_view text) {
  while (!text.empty()) {
    const uint64_t room = options_.max_bytes > size_ ? options_.max_bytes - size_ : 0;
    size_t count = text.size();
    if (options_.max_bytes > 0 && at_line_start_ && count > room) {
      const size_t fits = text.substr(0, static_cast<size_t>(room)).rfind('\n');
      if (fits == std::string_view::npos && size_ > 0) {
        Rotate();
        continue;
      }
      count = (fits == std::string_view::npos ? text.find('\n') : fits) + 1;
    } else if (options_.max_bytes > 0 && !at_line_start_) {
      count = text.find('\n') + 1;
    }
    count = count == 0 ? text.size() : count;  // no end of line yet
    Put(text.substr(0, count));
    at_line_start_ = text[count - 1] == '\n';
    text.remove_prefix(count);
    if (!at_line_start_ && options_.max_bytes > 0 && size_ >= 2 * options_.max_bytes) {
      Rotate();
      at_line_start_ = true;
    }
  }
}

void LogFile::EndLine() {
  if (!at_line_start_) {
    Write("\n");
  }
}

void LogFile::Put(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(file_.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      lost_bytes_ += text.size();
      return;
    }
    size_ += static_cast<uint64_t>(written);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

// Nothing is renamed unless the new file is there: with the directory gone, the disk read-only or no descriptor left,
// the old one goes on, and rotating is tried again after as many bytes.
void LogFile::Rotate() {
  const std::string next_path = path_ + ".next";
  const auto name = [this](uint32_t number) { return path_ + "." + std::to_string(number); };
  UniqueFd next(open(next_path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | O_TRUNC, 0600));
  size_ = 0;
  if (!next) {
    MSSERVING_LOG(kError, "cannot begin a new log file '" + path_ + "': " + std::strerror(errno));
    return;
  }
  for (uint32_t i = options_.backups; i > 1; --i) {
    (void)rename(name(i - 1).c_str(), name(i).c_str());  // one that is not there yet
  }
  if (options_.backups > 0) {
    (void)rename(path_.c_str(), name(1).c_str());
  }
  if (rename(next_path.c_str(), path_.c_str()) != 0) {
    MSSERVING_LOG(kError, "cannot name the new log file '" + path_ + "': " + std::strerror(errno));
  }
  file_ = std::move(next);
}

Status LogPipe::Open(UniqueFd* theirs) {
  Close();
  file_->EndLine();  // of a process that ended in the middle of one
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return Status(ErrorKind::kInternal, std::string("cannot make a pipe for a worker's log: ") + std::strerror(errno));
  }
  end_.Reset(ends[0]);
  theirs->Reset(ends[1]);
  (void)fcntl(end_.get(), F_SETFL, O_NONBLOCK);  // this end's alone
  loop_->Add(end_.get(), EPOLLIN, this);
  return Status::Ok();
}

void LogPipe::OnIo(uint32_t) {
  for (int i = 0; i < kReadsATurn && ReadSome(); ++i) {
  }
}

void LogPipe::Drain() {
  // Bounded, should somebody else still have the other end and write without end.
  for (int i = 0; i < kReadsToDrain && end_ && ReadSome(); ++i) {
  }
}

bool LogPipe::ReadSome() {
  char piece[16 << 10];
  const ssize_t got = read(end_.get(), piece, sizeof(piece));
  if (got > 0) {
    file_->Write({piece, static_cast<size_t>(got)});
    return true;
  }
  if (got < 0 && errno == EINTR) {
    return true;
  }
  if (got == 0) {
    Close();  // nobody writes any more
  }
  return false;
}

void LogPipe::Close() {
  if (end_) {
    loop_->Remove(end_.get(), this);
    end_.Reset();
  }
}

}  // namespace msserving
