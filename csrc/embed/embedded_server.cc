#include "embed/embedded_server.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/log_event.h"
#include "base/thread.h"
#include "embed/error.h"
#include "embed/python_interpreter.h"
#include "server/signals.h"

namespace msserving::embed {
namespace {

constexpr const char* kStopped = "the server has been stopped";

ServerOptions OptionsOf(const EmbeddedServerOptions& options) {
  ServerOptions made;
  made.front_end.io_threads = static_cast<int>(options.io_threads);
  made.front_end.spin_ns = options.spin_ns;
  made.supervisor.silence_ns = static_cast<int64_t>(options.worker_silence_seconds * kNanosPerSecond);
  return made;
}

void ThrowIfFailed(const Status& status) {
  if (!status.ok()) {
    ThrowFailed(status.message());
  }
}

}  // namespace

EmbeddedServer::EmbeddedServer(EmbeddedServerOptions options)
    : options_(std::move(options)), pid_(getpid()), server_(std::make_unique<Server>(OptionsOf(options_))) {
  ThrowIfFailed(server_->Start());
  versions_ = std::make_unique<RunningVersions>(server_.get(), std::filesystem::absolute(options_.log_directory),
                                                [this](const std::string& doing) { CheckStopping(doing); });
}

EmbeddedServer::~EmbeddedServer() { Stop(0); }

bool EmbeddedServer::forked() const { return getpid() != pid_; }

void EmbeddedServer::CheckProcess() const {
  if (forked()) {
    ThrowInvalid("the server belongs to process " + std::to_string(pid_) + ", which has forked this one");
  }
}

void EmbeddedServer::CheckRuns() const {
  CheckProcess();
  if (stopping_) {
    ThrowStopped(kStopped);
  }
}

void EmbeddedServer::CheckNoCallback() const {
  CheckProcess();
  if (callback_thread_.load() == std::this_thread::get_id()) {
    ThrowInvalid("a progress or reload function may call nothing but stats");
  }
}

void EmbeddedServer::CheckStopping(const std::string& doing) const {
  if (stopping_) {
    ThrowStopped(doing + " was ended by a call of stop()");
  }
}

void EmbeddedServer::CheckSignals(const std::string& doing) const {
  if (const StopSignals seen = SeenStopSignals(); seen.count > 0) {
    ThrowStopped(doing + " was interrupted by signal " + (seen.last == SIGINT ? "SIGINT" : "SIGTERM"));
  }
}

void EmbeddedServer::StartServables(const std::vector<StartConfig>& configs,
                                    const std::function<bool(const Workers&)>& progress) {
  CheckNoCallback();
  const std::lock_guard<std::mutex> lock(start_mutex_);
  CheckRuns();
  if (configs.empty()) {
    ThrowInvalid("Parameter 'servable_configs' should not be empty: at least one ServableStartConfig is needed");
  }
  const auto interrupted = [this, &progress](const std::string& doing) {
    CheckStopping(doing);
    CheckSignals(doing);
    if (progress) {
      const Workers workers = server_->supervisor().Workers();
      callback_thread_ = std::this_thread::get_id();
      const bool go_on = progress(workers);
      callback_thread_ = std::thread::id();
      if (!go_on) {
        ThrowStopped(doing + " was ended by its progress function");
      }
    }
  };
  const auto command = [this, &interrupted] {
    if (command_.empty()) {
      command_ = FindWorkerCommand(options_.python, MSSERVING_VERSION,
                                   [&interrupted] { interrupted("Starting the servables"); });
    }
    return command_;
  };
  versions_->Start(configs, command, interrupted);
}

void EmbeddedServer::StopServable(const std::string& name, uint64_t version, int64_t drain_ns) {
  CheckNoCallback();
  const std::lock_guard<std::mutex> lock(start_mutex_);
  CheckRuns();
  if (!versions_->started()) {
    ThrowInvalid("stop_servable needs a running server: call start_servables first");
  }
  versions_->Stop(name, version, drain_ns);
}

void EmbeddedServer::ReloadServables(int64_t drain_ns,
                                     const std::function<void(const std::string&, uint64_t)>& loaded) {
  CheckNoCallback();
  const std::lock_guard<std::mutex> lock(start_mutex_);
  CheckRuns();
  if (!versions_->started()) {
    ThrowInvalid("reload_servables needs a running server: call start_servables first");
  }
  const auto tell = [this, &loaded](const std::string& name, uint64_t version) {
    callback_thread_ = std::this_thread::get_id();
    loaded(name, version);
    callback_thread_ = std::thread::id();
  };
  versions_->Reload(drain_ns, false, tell, [this](const std::string& doing) {
    CheckStopping(doing);
    CheckSignals(doing);
  });
}

void EmbeddedServer::WatchVersions(int64_t interval_ns, int64_t drain_ns) {
  CheckNoCallback();
  const std::lock_guard<std::mutex> lock(start_mutex_);
  CheckRuns();
  if (!versions_->started()) {
    ThrowInvalid("watch_versions needs a running server: call start_servables first");
  }
  {
    const std::lock_guard<std::mutex> watch_lock(watch_mutex_);
    CheckRuns();  // the thread that is made here is joined
    watch_interval_ns_ = interval_ns;
    watch_drain_ns_ = drain_ns;
    ++watch_orders_;
    if (interval_ns > 0 && !watch_.joinable()) {
      watch_ = StartThread("serving-watch", [this] { RunWatch(); });
    }
  }
  watch_changed_.notify_all();
}

void EmbeddedServer::RunWatch() {
  std::string told;
  for (;;) {
    uint64_t orders = 0;
    {
      std::unique_lock<std::mutex> lock(watch_mutex_);
      orders = watch_orders_;
      const auto new_order = [this, orders] { return stopping_ || watch_orders_ != orders; };
      if (watch_interval_ns_ == 0) {
        watch_changed_.wait(lock, new_order);
      } else {
        watch_changed_.wait_for(lock, std::chrono::nanoseconds(watch_interval_ns_), new_order);
      }
    }
    const std::lock_guard<std::mutex> lock(start_mutex_);
    int64_t drain_ns = 0;
    {
      const std::lock_guard<std::mutex> watch_lock(watch_mutex_);
      if (stopping_) {
        return;
      }
      if (watch_orders_ != orders) {
        continue;
      }
      drain_ns = watch_drain_ns_;
    }
    try {
      versions_->Reload(
          drain_ns, true, [](const std::string&, uint64_t) {},
          [this](const std::string& doing) { CheckStopping(doing); });
      told.clear();
    } catch (const std::exception& error) {
      if (!stopping_ && told != error.what()) {
        told = error.what();
        LogEvent(LogLevel::kError, "reload_failed").With("why", told);
      }
    }
  }
}

void EmbeddedServer::StartGrpc(const std::string& address, const ListenOptions& options) {
  CheckRuns();
  Use([&](Server* server) {
    Listen(server, "start_grpc_server", &Server::StartGrpc, &grpc_listens_, address, options);
  });
}

void EmbeddedServer::StartRest(const std::string& address, const ListenOptions& options) {
  CheckRuns();
  Use([&](Server* server) {
    Listen(server, "start_restful_server", &Server::StartRest, &rest_listens_, address, options);
  });
}

void EmbeddedServer::Listen(Server* server, const std::string& function,
                            Status (Server::*start)(const std::string&, const ListenOptions&),
                            std::atomic<bool>* listens, const std::string& address, const ListenOptions& options) {
  if (*listens) {
    ThrowInvalid(function + " has been called already and is running: call stop() before starting again");
  }
  ThrowIfFailed((server->*start)(address, options));
  *listens = true;
}

void EmbeddedServer::Use(const std::function<void(Server*)>& function) {
  CheckProcess();
  const std::shared_lock<std::shared_mutex> lock(use_mutex_);
  if (server_ == nullptr) {
    ThrowStopped(kStopped);
  }
  function(server_.get());
}

void EmbeddedServer::Stop(int64_t drain_ns) {
  CheckNoCallback();
  const std::lock_guard<std::mutex> stop_lock(stop_mutex_);
  if (server_ == nullptr) {
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(watch_mutex_);
    stopping_ = true;
  }
  watch_changed_.notify_all();
  server_->Stop(drain_ns);
  if (watch_.joinable()) {
    watch_.join();
  }
  const std::lock_guard<std::mutex> lock(start_mutex_);  // calls that were waiting have noticed
  const std::unique_lock<std::shared_mutex> use_lock(use_mutex_);
  versions_.reset();
  server_.reset();
}

}  // namespace msserving::embed
