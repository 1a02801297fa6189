// Embedding, C++17: a whole server inside a program of your own.
//
//   mindspore_serving::Server server;
//   server.StartServables({{"/models", "add"}});
//   server.StartGrpc("0.0.0.0:5500");
//   server.StartRest("0.0.0.0:1500");
//   mindspore_serving::StopSignals signals;  // or the program's own way to learn that it should end
//   signals.Wait();
//   server.Stop();
//
// Everything here is inline, over the C functions of server_c.h, which say what threads may do, what is copied, and
// what is stable: no C++ type crosses into the library, so compiler, standard library and flags of the program are its
// own. docs/embedding.md tells how to build, link and deploy.
#ifndef MINDSPORE_SERVING_SERVER_H_
#define MINDSPORE_SERVING_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mindspore_serving/server_c.h"

namespace mindspore_serving {

enum class ErrorCode : int {
  kInvalid = MS_SERVING_INVALID,  // something that was given
  kFailed = MS_SERVING_FAILED,    // the system, a worker or a model
  kStopped = MS_SERVING_STOPPED,  // by Stop(), a stop signal or the progress function
};

// What every function below throws when it fails; the text is for the user and the same as the Python package's.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// The version of the library that the program runs with.
inline std::string Version() { return ms_serving_version(); }

struct ServerOptions {
  std::string python;         // "": environment variable MSSERVING_PYTHON, or else python3 of PATH
  std::string log_directory;  // "": serving_logs in the current working directory
  int io_threads = 0;         // 0: MSSERVING_IO_THREADS, or else by the number of processors
  // 0: never; none: MSSERVING_WORKER_SILENCE_SECONDS, or else 30.
  std::optional<double> worker_silence_seconds;
};

// The fields of ServableStartConfig of the Python package.
struct ServableStartConfig {
  std::string servable_directory;
  std::string servable_name;
  std::vector<int64_t> device_ids;  // none: one copy on device 0
  int64_t version_number = 0;       // 0: the newest
  std::string device_type;          // "": what the installed MindSpore runs on
  int64_t num_parallel_workers = 0;
  std::string dec_key;  // "": not encrypted; 16, 24 or 32 bytes; the caller wipes it
  std::string dec_mode = "AES-GCM";
};

struct SSLConfig {
  std::string certificate;  // PEM files
  std::string private_key;
  std::string custom_ca;  // "": none
  bool verify_client = false;
};

// The fields of ServerLimits of the Python package.
struct ServerLimits {
  int64_t max_connections = 10'000;
  int64_t max_streams_per_connection = 1024;
  int64_t max_pipelined_requests = 64;
  int64_t max_header_bytes = 16'384;
  double request_timeout_seconds = 100.0;
  double reply_timeout_seconds = 100.0;
  std::optional<double> idle_timeout_seconds;  // none: never for gRPC, 100 for REST; 0: never
  int64_t max_resets_per_second = 1000;
  int64_t max_control_frames_per_second = 100;
  double connection_bytes_share = 0.25;
};

struct ListenOptions {
  int64_t max_msg_mb_size = 100;
  std::optional<SSLConfig> ssl_config;
  ServerLimits limits;
};

struct WorkerState {
  std::string label;
  std::string state;
  int64_t pid = 0;
  uint64_t restarts = 0;
};

// False ends the waiting. May call Server::Stats(), nothing else. What it throws, StartServables() throws.
using ProgressFunction = std::function<bool(const std::vector<WorkerState>& workers)>;

// Any thread, any time, but for construction, moving and destruction.
class Server {
 public:
  static constexpr double kDrainSeconds = 10.0;

  explicit Server(const ServerOptions& options = {}) {
    MsServingServerOptions plain;
    ms_serving_server_options_init(&plain, sizeof(plain));
    plain.python = OrNull(options.python);
    plain.log_directory = OrNull(options.log_directory);
    plain.io_threads = options.io_threads;
    if (options.worker_silence_seconds.has_value()) {
      plain.worker_silence_seconds = *options.worker_silence_seconds;
    }
    Check(ms_serving_server_create(&plain, &server_));
  }
  // Stops without waiting for requests, if Stop() was not called.
  ~Server() { ms_serving_server_destroy(server_); }
  Server(Server&& other) noexcept : server_(std::exchange(other.server_, nullptr)) {}
  Server& operator=(Server&& other) noexcept {
    if (this != &other) {
      ms_serving_server_destroy(std::exchange(server_, std::exchange(other.server_, nullptr)));
    }
    return *this;
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Waits until requests reach all of them. A failure takes back what this call has started, and no more.
  void StartServables(const std::vector<ServableStartConfig>& configs, const ProgressFunction& progress = nullptr) {
    std::vector<MsServingServableConfig> plain(configs.size());
    std::vector<const MsServingServableConfig*> pointers;
    for (size_t i = 0; i < configs.size(); ++i) {
      Fill(configs[i], &plain[i]);
      pointers.push_back(&plain[i]);
    }
    ProgressCall call{progress, nullptr};
    MsServingError* error = ms_serving_server_start_servables(server_, pointers.data(), pointers.size(),
                                                              progress ? &ProgressCall::Run : nullptr, &call);
    if (call.thrown != nullptr) {
      ms_serving_error_free(error);
      std::rethrow_exception(call.thrown);
    }
    Check(error);
  }
  // 0: the newest that runs.
  void StopServable(const std::string& servable_name, int64_t version_number = 0,
                    double drain_seconds = kDrainSeconds) {
    Check(ms_serving_server_stop_servable(server_, servable_name.c_str(), version_number, drain_seconds));
  }
  // Returns the names and versions that were loaded. When one could not be loaded it throws, and the others were.
  std::vector<std::pair<std::string, uint64_t>> ReloadServables(double drain_seconds = kDrainSeconds) {
    LoadedCall call;
    MsServingError* error = ms_serving_server_reload_servables(server_, drain_seconds, &LoadedCall::Run, &call);
    if (call.thrown != nullptr) {
      ms_serving_error_free(error);
      std::rethrow_exception(call.thrown);
    }
    Check(error);
    return std::move(call.loaded);
  }
  void WatchVersions(double interval_seconds = 10.0, double drain_seconds = kDrainSeconds) {
    Check(ms_serving_server_watch_versions(server_, interval_seconds, drain_seconds));
  }

  void StartGrpc(const std::string& address, const ListenOptions& options = {}) {
    MsServingListenOptions plain;
    Fill(options, &plain);
    Check(ms_serving_server_start_grpc(server_, address.c_str(), &plain));
  }
  void StartRest(const std::string& address, const ListenOptions& options = {}) {
    MsServingListenOptions plain;
    Fill(options, &plain);
    Check(ms_serving_server_start_rest(server_, address.c_str(), &plain));
  }

  void SetMaxEnqueuedRequests(int64_t requests) {
    Check(ms_serving_server_set_max_enqueued_requests(server_, requests));
  }
  void SetMaxQueueSeconds(double seconds) { Check(ms_serving_server_set_max_queue_seconds(server_, seconds)); }
  void SetMaxBytesInFlight(int64_t bytes) { Check(ms_serving_server_set_max_bytes_in_flight(server_, bytes)); }

  // JSON.
  std::string Stats() const {
    char* json = nullptr;
    Check(ms_serving_server_stats(server_, &json));
    const std::string copy(json);
    ms_serving_string_free(json);
    return copy;
  }

  // Afterwards nothing of it is left, and it cannot be started again. Any number of times.
  void Stop(double drain_seconds = kDrainSeconds) { Check(ms_serving_server_stop(server_, drain_seconds)); }

 private:
  struct ProgressCall {
    const ProgressFunction& function;
    std::exception_ptr thrown;

    // No exception crosses the C functions.
    static int32_t Run(void* user, const MsServingProgress* progress) {
      auto* call = static_cast<ProgressCall*>(user);
      try {
        std::vector<WorkerState> workers;
        for (size_t i = 0; i < progress->workers_count; ++i) {
          const MsServingWorker& worker = progress->workers[i];
          workers.push_back({worker.label, worker.state, worker.pid, worker.restarts});
        }
        return call->function(workers) ? 0 : 1;
      } catch (...) {
        call->thrown = std::current_exception();
        return 1;
      }
    }
  };
  struct LoadedCall {
    std::vector<std::pair<std::string, uint64_t>> loaded;
    std::exception_ptr thrown;

    static void Run(void* user, const char* name, uint64_t version) {
      auto* call = static_cast<LoadedCall*>(user);
      try {
        call->loaded.emplace_back(name, version);
      } catch (...) {
        call->thrown = std::current_exception();
      }
    }
  };

  static const char* OrNull(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }

  static void Check(MsServingError* error) {
    if (error == nullptr) {
      return;
    }
    struct Freed {
      MsServingError* error;
      ~Freed() { ms_serving_error_free(error); }
    } const freed{error};
    throw Error(static_cast<ErrorCode>(ms_serving_error_code(error)), ms_serving_error_message(error));
  }

  static void Fill(const ServableStartConfig& config, MsServingServableConfig* plain) {
    ms_serving_servable_config_init(plain, sizeof(*plain));
    plain->servable_directory = config.servable_directory.c_str();
    plain->servable_name = config.servable_name.c_str();
    plain->device_ids = config.device_ids.data();
    plain->device_ids_count = config.device_ids.size();
    plain->version_number = config.version_number;
    plain->device_type = OrNull(config.device_type);
    plain->num_parallel_workers = config.num_parallel_workers;
    if (!config.dec_key.empty()) {
      plain->dec_key = reinterpret_cast<const uint8_t*>(config.dec_key.data());
      plain->dec_key_size = config.dec_key.size();
    }
    plain->dec_mode = config.dec_mode.c_str();
  }

  static void Fill(const ListenOptions& options, MsServingListenOptions* plain) {
    ms_serving_listen_options_init(plain, sizeof(*plain));
    plain->max_msg_mb_size = options.max_msg_mb_size;
    if (options.ssl_config.has_value()) {
      const SSLConfig& ssl = *options.ssl_config;
      plain->certificate = ssl.certificate.c_str();
      plain->private_key = ssl.private_key.c_str();
      plain->custom_ca = OrNull(ssl.custom_ca);
      plain->verify_client = ssl.verify_client ? 1 : 0;
    }
    const ServerLimits& limits = options.limits;
    plain->max_connections = limits.max_connections;
    plain->max_streams_per_connection = limits.max_streams_per_connection;
    plain->max_pipelined_requests = limits.max_pipelined_requests;
    plain->max_header_bytes = limits.max_header_bytes;
    plain->request_timeout_seconds = limits.request_timeout_seconds;
    plain->reply_timeout_seconds = limits.reply_timeout_seconds;
    if (limits.idle_timeout_seconds.has_value()) {
      plain->idle_timeout_seconds = *limits.idle_timeout_seconds;
    }
    plain->max_resets_per_second = limits.max_resets_per_second;
    plain->max_control_frames_per_second = limits.max_control_frames_per_second;
    plain->connection_bytes_share = limits.connection_bytes_share;
  }

  MsServingServer* server_ = nullptr;
};

// SIGINT and SIGTERM of the whole process, from construction to destruction; the handlers from before come back then.
// One object at a time.
class StopSignals {
 public:
  StopSignals() { ms_serving_stop_signals_take(); }
  ~StopSignals() { ms_serving_stop_signals_give_back(); }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The number of the signal that has come, after as long as it takes.
  int Wait() { return ms_serving_stop_signals_wait(-1); }
  // 0: none has come in this time.
  int Wait(double timeout_seconds) { return ms_serving_stop_signals_wait(timeout_seconds < 0 ? 0 : timeout_seconds); }
};

enum class LogLevel : int { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

inline void SetLogLevel(LogLevel level) { ms_serving_log_set_level(static_cast<int32_t>(level)); }

}  // namespace mindspore_serving

#endif  // MINDSPORE_SERVING_SERVER_H_
