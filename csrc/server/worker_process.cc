#include "server/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

extern char** environ;

namespace msserving {
namespace {

// The number under which a worker finds its control socket.
constexpr int kControlFd = 3;

Status Failed(const std::string& what, int error) {
  return Status(ErrorKind::kInternal, what + ": " + std::strerror(error));
}

// posix_spawn's two option objects, freed in any case.
struct SpawnOptions {
  SpawnOptions() {
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnOptions() {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
};

std::vector<std::string> MergedEnvironment(const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const auto name = text.substr(0, text.find('='));
    const bool replaced =
        std::any_of(changes.begin(), changes.end(), [name](const auto& change) { return change.first == name; });
    if (!replaced) {
      merged.emplace_back(text);
    }
  }
  for (const auto& [name, value] : changes) {
    merged.emplace_back(name).append("=").append(value);
  }
  return merged;
}

std::vector<char*> Pointers(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  for (std::string& s : *strings) {
    pointers.push_back(s.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

std::string WorkerExit::Describe() const {
  if (!by_signal) {
    return "exited with status " + std::to_string(code);
  }
  const char* name = sigabbrev_np(code);
  return "was killed by signal " + std::to_string(code) + " (" + (name != nullptr ? std::string("SIG") + name : "?") +
         ", " + strsignal(code) + ")";
}

WorkerProcess::~WorkerProcess() { KillAndReap(); }

Status WorkerProcess::Start(const WorkerCommand& command, UniqueFd control) {
  SpawnOptions options;
  if (command.output >= 0) {
    posix_spawn_file_actions_adddup2(&options.files, command.output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&options.files, command.output, STDERR_FILENO);
  }
  posix_spawn_file_actions_addopen(&options.files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  // adddup2 onto itself would leave close-on-exec set; a socket at another number first.
  UniqueFd moved(fcntl(control.get(), F_DUPFD_CLOEXEC, kControlFd + 1));
  if (!moved) {
    return Failed("cannot hand the control socket to a worker", errno);
  }
  posix_spawn_file_actions_adddup2(&options.files, moved.get(), kControlFd);
  // Whatever else is open here without close-on-exec is not a worker's business.
  posix_spawn_file_actions_addclosefrom_np(&options.files, kControlFd + 1);

  sigset_t none;
  sigemptyset(&none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigmask(&options.attributes, &none);
  posix_spawnattr_setsigdefault(&options.attributes, &all);
  posix_spawnattr_setpgroup(&options.attributes, 0);
  posix_spawnattr_setflags(&options.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  std::vector<std::string> arguments = command.arguments;
  arguments.push_back(std::to_string(kControlFd));
  std::vector<std::string> environment = MergedEnvironment(command.environment);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, arguments[0].c_str(), &options.files, &options.attributes,
                                 Pointers(&arguments).data(), Pointers(&environment).data());
  if (error != 0) {
    return Failed("cannot start worker process '" + command.arguments[0] + "'", error);
  }
  pid_ = pid;
  pidfd_.Reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd_) {
    const int why = errno;
    KillAndReap();
    return Failed("cannot watch the worker process", why);
  }
  return Status::Ok();
}

void WorkerProcess::Signal(int signal) const {
  // Not yet reaped, so the number is still this process's.
  if (pid_ > 0) {
    kill(pid_, signal);
  }
}

void WorkerProcess::KillGroup() const {
  if (pid_ > 0) {
    kill(-pid_, SIGKILL);
  }
}

bool WorkerProcess::TryReap(WorkerExit* exit) {
  if (pid_ <= 0) {
    return false;
  }
  siginfo_t ended{};
  if (waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0) {
    if (ended.si_pid == 0) {
      return false;
    }
    kill(-pid_, SIGKILL);  // what it has started; before it is reaped, so that the number is still its group's
  }
  int status = 0;
  const pid_t reaped = waitpid(pid_, &status, WNOHANG);
  if (reaped == 0) {
    return false;
  }
  // Somebody who ignores SIGCHLD or waits for any child takes the status away from us.
  exit->by_signal = reaped == pid_ && WIFSIGNALED(status);
  exit->code = reaped != pid_ ? 0 : exit->by_signal ? WTERMSIG(status) : WEXITSTATUS(status);
  pid_ = 0;
  pidfd_.Reset();
  return true;
}

void WorkerProcess::KillAndReap() {
  if (pid_ <= 0) {
    return;
  }
  kill(-pid_, SIGKILL);
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  pidfd_.Reset();
}

uint64_t OomKills() {
  UniqueFd file(open("/proc/vmstat", O_RDONLY | O_CLOEXEC));
  std::string text(16 << 10, '\0');
  const ssize_t got = file ? read(file.get(), text.data(), text.size()) : 0;
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  constexpr std::string_view kName = "\noom_kill ";
  const size_t at = text.find(kName);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + kName.size(), nullptr, 10);
}

std::string TailOfFile(const std::string& path, size_t bytes) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const off_t size = file ? lseek(file.get(), 0, SEEK_END) : -1;
  if (size <= 0) {
    return {};
  }
  const auto wanted = std::min(static_cast<size_t>(size), bytes);
  std::string text(wanted, '\0');
  const ssize_t got = pread(file.get(), text.data(), wanted, size - static_cast<off_t>(wanted));
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  if (wanted < static_cast<size_t>(size)) {
    const size_t line = text.find('\n');
    text.erase(0, line == std::string::npos ? 0 : line + 1);
  }
  return text;
}

}  // namespace msserving
