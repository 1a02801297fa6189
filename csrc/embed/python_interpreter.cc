#include "embed/python_interpreter.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "embed/error.h"
#include "server/worker_process.h"

namespace msserving::embed {
namespace {

constexpr int kPollMs = 100;
constexpr size_t kMaxOutput = size_t{64} << 10;
constexpr size_t kShownOutput = 2000;

// What a file in the current directory is called must not matter. Whatever else is printed is not looked at.
constexpr const char* kProbe = R"(import sys
if sys.path and sys.path[0] == "":
    del sys.path[0]
print("mindspore_serving safe_path", int(sys.version_info >= (3, 11)), flush=True)
from mindspore_serving._native import load_native
print("mindspore_serving version", load_native("_core").__version__, flush=True)
)";

struct Choice {
  std::string python;
  std::string origin;  // for messages
};

Choice Choose(const std::string& option) {
  if (!option.empty()) {
    return {option, "which the server's options name"};
  }
  const char* variable = std::getenv("MSSERVING_PYTHON");
  if (variable != nullptr && *variable != '\0') {
    return {variable, "which the environment variable MSSERVING_PYTHON names"};
  }
  return {"python3",
          "found in PATH, as neither the server's options nor the environment variable MSSERVING_PYTHON name one"};
}

// What follows `name` on a line of its own; empty: no such line.
std::string Find(const std::string& output, const std::string& name) {
  const std::string head = "mindspore_serving " + name + " ";
  size_t at = output.rfind(head, 0) == 0 ? 0 : output.find("\n" + head);
  if (at == std::string::npos) {
    return {};
  }
  at += head.size() + (output[at] == '\n' ? 1 : 0);
  return output.substr(at, output.find('\n', at) - at);
}

// Takes what is in the pipe now. False: its end.
bool ReadSome(int pipe, std::string* output) {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = read(pipe, buffer.data(), buffer.size());
    if (got <= 0) {
      return got < 0 && (errno == EAGAIN || errno == EINTR);
    }
    output->append(buffer.data(),
                   std::min(static_cast<size_t>(got), kMaxOutput - std::min(kMaxOutput, output->size())));
  }
}

// The last lines of what was printed, for a message.
std::string LastOf(std::string output) {
  while (!output.empty() && (output.back() == '\n' || output.back() == ' ')) {
    output.pop_back();
  }
  return output.size() <= kShownOutput ? output : "..." + output.substr(output.size() - kShownOutput);
}

// Runs the probe to its end, and returns what it printed.
std::string RunProbe(const Choice& choice, const std::function<void()>& interrupted, int64_t timeout_ns,
                     WorkerExit* exit) {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    ThrowFailed(std::string("a pipe cannot be made: ") + std::strerror(errno));
  }
  const UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  fcntl(theirs.get(), F_SETFL, 0);  // the child's side waits, as programs expect
  UniqueFd unused(open("/dev/null", O_RDONLY | O_CLOEXEC));
  WorkerProcess process;
  const Status status =
      process.Start({{choice.python, "-c", kProbe}, {{"PYTHONUNBUFFERED", "1"}}, theirs.get()}, std::move(unused));
  theirs.Reset();
  if (!status.ok()) {
    ThrowInvalid("Python '" + choice.python + "', " + choice.origin + ", does not start: " + status.message());
  }
  std::string output;
  const int64_t until = RealClock().NowNs() + timeout_ns;
  std::array<pollfd, 2> waits{pollfd{process.pidfd(), POLLIN, 0}, pollfd{ours.get(), POLLIN, 0}};
  for (;;) {
    poll(waits.data(), waits.size(), kPollMs);
    if (waits[1].fd >= 0 && waits[1].revents != 0 && !ReadSome(ours.get(), &output)) {
      waits[1].fd = -1;
    }
    if (waits[0].revents != 0 && process.TryReap(exit)) {
      ReadSome(ours.get(), &output);
      return output;
    }
    interrupted();
    if (RealClock().NowNs() >= until) {
      ThrowFailed("Python '" + choice.python + "', " + choice.origin + ", has not imported mindspore_serving within " +
                  std::to_string(timeout_ns / kNanosPerSecond) + " s\n" + LastOf(output));
    }
  }
}

}  // namespace

std::vector<std::string> FindWorkerCommand(const std::string& option, const std::string& version,
                                           const std::function<void()>& interrupted, int64_t timeout_ns) {
  const Choice choice = Choose(option);
  WorkerExit exit;
  const std::string output = RunProbe(choice, interrupted, timeout_ns, &exit);
  const std::string found = Find(output, "version");
  const std::string install = "run '" + choice.python + " -m pip install mindspore-serving==" + version +
                              "', or name another Python in the server's options or in MSSERVING_PYTHON";
  if (found.empty()) {
    ThrowInvalid("mindspore_serving cannot be imported by Python '" + choice.python + "', " + choice.origin + ": " +
                 install + ". It " + exit.Describe() + " and printed:\n" + LastOf(output));
  }
  if (found != version) {
    ThrowInvalid("Python '" + choice.python + "', " + choice.origin + ", has mindspore_serving " + found +
                 ", but the library in this program is " + version + ": " + install);
  }
  std::vector<std::string> command{choice.python};
  if (Find(output, "safe_path") == "1") {
    command.emplace_back("-P");  // modules in the current directory must not hide the worker's
  }
  command.insert(command.end(), {"-m", "mindspore_serving.worker"});
  return command;
}

}  // namespace msserving::embed
