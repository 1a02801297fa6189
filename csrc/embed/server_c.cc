// The C ABI: copies what comes in, calls EmbeddedServer, and lets no exception out.
#include "mindspore_serving/server_c.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "embed/checks.h"
#include "embed/embedded_server.h"
#include "embed/error.h"
#include "server/front_end.h"
#include "server/signals.h"

using msserving::embed::EmbeddedServer;
using msserving::embed::EmbeddedServerOptions;
using msserving::embed::StartConfig;

struct MsServingError {
  int32_t code;
  std::string message;
};

struct MsServingServer {
  explicit MsServingServer(EmbeddedServerOptions options) : server(std::move(options)) {}
  EmbeddedServer server;
};

namespace msserving::embed {
namespace {

constexpr double kMaxDrainSeconds = 86'400;
constexpr double kMaxWatchSeconds = 86'400;
constexpr double kMaxLimitSeconds = 7 * 24 * 3600.0;

// Given out when there is no memory for another, and never freed.
MsServingError* NoMemory() {
  static MsServingError error{MS_SERVING_FAILED, "there is not enough memory"};
  return &error;
}

// Runs `function`, and makes an error of what it throws.
template <typename Function>
MsServingError* Guarded(const Function& function) {
  try {
    try {
      function();
      return nullptr;
    } catch (const EmbedError& error) {
      return new MsServingError{error.code(), error.what()};
    } catch (const std::bad_alloc&) {
      return NoMemory();
    } catch (const std::exception& error) {
      return new MsServingError{MS_SERVING_FAILED, error.what()};
    }
  } catch (...) {
    return NoMemory();
  }
}

// A struct of the caller's, which may have been compiled with an older header that lacks its last fields.
template <typename Struct>
Struct Sized(const char* name, const Struct* given, void (*init)(Struct*, size_t)) {
  Struct whole;
  init(&whole, sizeof(whole));
  if (given == nullptr) {
    return whole;
  }
  if (given->struct_size < sizeof(size_t)) {
    ThrowInvalid(std::string(name) + " has not been initialised: call its _init() function first");
  }
  if (given->struct_size > sizeof(whole)) {
    ThrowInvalid(std::string(name) + " comes from a newer header than this library, which is " MSSERVING_VERSION
                                     ": a program needs a library that is at least as new");
  }
  std::memcpy(&whole, given, given->struct_size);
  return whole;
}

template <typename Struct>
void Init(Struct* target, size_t struct_size, Struct defaults) {
  defaults.struct_size = struct_size;
  std::memset(static_cast<void*>(target), 0, struct_size);
  std::memcpy(static_cast<void*>(target), &defaults, std::min(struct_size, sizeof(Struct)));
}

EmbeddedServer& Get(MsServingServer* server) {
  if (server == nullptr) {
    ThrowInvalid("Parameter 'server' should be a server, but NULL was given");
  }
  return server->server;
}

EmbeddedServerOptions CheckedOptions(const MsServingServerOptions& given) {
  EmbeddedServerOptions options;
  options.python = given.python == nullptr ? "" : CheckText("python", given.python);
  if (given.log_directory != nullptr) {
    options.log_directory = CheckText("log_directory", given.log_directory);
  }
  options.io_threads = given.io_threads == 0
                           ? IoThreadsFromEnvironment()
                           : CheckRange("io_threads", given.io_threads, int64_t{0}, int64_t{kMaxIoThreads});
  options.worker_silence_seconds = given.worker_silence_seconds < 0
                                       ? WorkerSilenceFromEnvironment()
                                       : CheckRange("worker_silence_seconds", given.worker_silence_seconds, 0.0, 1e9);
  options.spin_ns = SpinNsFromEnvironment();
  return options;
}

StartConfig CheckedConfig(const MsServingServableConfig& given) {
  StartConfig config;
  config.servable_directory = CheckText("servable_directory", given.servable_directory);
  config.servable_name = CheckServableName(given.servable_name);
  config.device_ids = CheckDevices(given.device_ids, given.device_ids_count);
  config.version_number = static_cast<uint64_t>(CheckAtLeast("version_number", given.version_number, 0));
  config.device_type = CheckDeviceType(given.device_type);
  config.num_parallel_workers = CheckRange("num_parallel_workers", given.num_parallel_workers, int64_t{0}, 64);
  if (given.dec_key != nullptr) {
    if (given.dec_key_size != 16 && given.dec_key_size != 24 && given.dec_key_size != 32) {
      ThrowInvalid("Parameter 'dec_key' should have a length of 16, 24 or 32 bytes, but it has " +
                   std::to_string(given.dec_key_size));
    }
    if (const Status status = Secret::Create({given.dec_key, given.dec_key_size}, &config.dec_key); !status.ok()) {
      ThrowFailed(status.message());
    }
  }
  config.dec_mode = CheckDecMode(given.dec_mode);
  return config;
}

ListenOptions CheckedListenOptions(const MsServingListenOptions& given) {
  ListenOptions options;
  options.max_msg_mb_size = static_cast<int>(CheckRange("max_msg_mb_size", given.max_msg_mb_size, int64_t{1}, 512));
  options.tls = given.certificate != nullptr || given.private_key != nullptr || given.custom_ca != nullptr ||
                given.verify_client != 0;
  if (options.tls) {
    options.tls_options.certificate_file = CheckText("certificate", given.certificate);
    options.tls_options.private_key_file = CheckText("private_key", given.private_key);
    options.tls_options.verify_client = given.verify_client != 0;
    if (given.custom_ca != nullptr) {
      const std::string file = CheckText("custom_ca", given.custom_ca);
      options.tls_options.custom_ca_file = options.tls_options.verify_client ? file : "";
    } else if (options.tls_options.verify_client) {
      ThrowInvalid("Parameter 'custom_ca' should be given when 'verify_client' is True");
    }
  }
  EndpointLimits& limits = options.limits;
  const auto whole = [](const char* name, int64_t value, int64_t minimum, int64_t maximum) {
    return CheckRange(name, value, minimum, maximum);
  };
  limits.max_connections = static_cast<size_t>(whole("max_connections", given.max_connections, 1, 1'000'000));
  limits.max_streams_per_connection =
      static_cast<uint32_t>(whole("max_streams_per_connection", given.max_streams_per_connection, 1, 100'000));
  limits.max_pipelined_requests =
      static_cast<size_t>(whole("max_pipelined_requests", given.max_pipelined_requests, 1, 10'000));
  limits.max_header_bytes = static_cast<size_t>(whole("max_header_bytes", given.max_header_bytes, 1024, 1 << 20));
  limits.request_timeout_ns =
      CheckSeconds("request_timeout_seconds", given.request_timeout_seconds, 0.01, kMaxLimitSeconds);
  limits.reply_timeout_ns = CheckSeconds("reply_timeout_seconds", given.reply_timeout_seconds, 0.01, kMaxLimitSeconds);
  limits.idle_timeout_ns = given.idle_timeout_seconds < 0
                               ? -1
                               : CheckSeconds("idle_timeout_seconds", given.idle_timeout_seconds, 0, kMaxLimitSeconds);
  limits.max_resets_per_second =
      static_cast<uint32_t>(whole("max_resets_per_second", given.max_resets_per_second, 1, 1'000'000));
  limits.max_control_frames_per_second =
      static_cast<uint32_t>(whole("max_control_frames_per_second", given.max_control_frames_per_second, 1, 1'000'000));
  limits.connection_bytes_share = CheckRange("connection_bytes_share", given.connection_bytes_share, 0.001, 1.0);
  return options;
}

using Start = void (EmbeddedServer::*)(const std::string&, const ListenOptions&);

MsServingError* Listen(MsServingServer* server, Start start, const char* address, const MsServingListenOptions* given,
                       bool takes_unix) {
  return Guarded([&] {
    EmbeddedServer& target = Get(server);
    const std::string checked = CheckText("address", address);
    CheckAddress(checked, takes_unix);
    const ListenOptions options =
        CheckedListenOptions(Sized("MsServingListenOptions", given, ms_serving_listen_options_init));
    (target.*start)(checked, options);
  });
}

}  // namespace
}  // namespace msserving::embed

using namespace msserving;         // NOLINT: nothing follows but the functions of the ABI
using namespace msserving::embed;  // NOLINT

extern "C" {

const char* ms_serving_version() { return MSSERVING_VERSION; }

int32_t ms_serving_error_code(const MsServingError* error) { return error == nullptr ? 0 : error->code; }

const char* ms_serving_error_message(const MsServingError* error) {
  return error == nullptr ? "" : error->message.c_str();
}

void ms_serving_error_free(MsServingError* error) {
  if (error != NoMemory()) {
    delete error;
  }
}

void ms_serving_string_free(char* string) { std::free(string); }

void ms_serving_server_options_init(MsServingServerOptions* options, size_t struct_size) {
  Init(options, struct_size, MsServingServerOptions{0, nullptr, nullptr, 0, -1.0});
}

void ms_serving_servable_config_init(MsServingServableConfig* config, size_t struct_size) {
  Init(config, struct_size,
       MsServingServableConfig{0, nullptr, nullptr, nullptr, 0, 0, nullptr, 0, nullptr, 0, "AES-GCM"});
}

void ms_serving_listen_options_init(MsServingListenOptions* options, size_t struct_size) {
  Init(options, struct_size,
       MsServingListenOptions{0, 100, nullptr, nullptr, nullptr, 0, 10'000, 1024, 64, 16'384, 100.0, 100.0, -1.0, 1000,
                              100, 0.25});
}

MsServingError* ms_serving_server_create(const MsServingServerOptions* options, MsServingServer** server) {
  return Guarded([&] {
    *server = nullptr;
    *server =
        new MsServingServer(CheckedOptions(Sized("MsServingServerOptions", options, ms_serving_server_options_init)));
  });
}

void ms_serving_server_destroy(MsServingServer* server) {
  if (server != nullptr && !server->server.forked()) {
    delete server;
  }
}

MsServingError* ms_serving_server_stop(MsServingServer* server, double drain_seconds) {
  return Guarded([&] { Get(server).Stop(CheckSeconds("drain_seconds", drain_seconds, 0, kMaxDrainSeconds)); });
}

MsServingError* ms_serving_server_start_servables(MsServingServer* server,
                                                  const MsServingServableConfig* const* configs, size_t configs_count,
                                                  MsServingProgressFunction progress, void* user) {
  return Guarded([&] {
    EmbeddedServer& target = Get(server);
    std::vector<StartConfig> checked;
    for (size_t i = 0; i < configs_count; ++i) {
      checked.push_back(CheckedConfig(Sized("MsServingServableConfig", configs[i], ms_serving_servable_config_init)));
    }
    std::function<bool(const EmbeddedServer::Workers&)> call;
    if (progress != nullptr) {
      call = [progress, user](const EmbeddedServer::Workers& workers) {
        std::vector<MsServingWorker> plain;
        for (const auto& worker : workers) {
          plain.push_back({worker.label.c_str(), worker.state.c_str(), worker.pid, worker.restarts});
        }
        const MsServingProgress now{sizeof(MsServingProgress), plain.data(), plain.size()};
        return progress(user, &now) == 0;
      };
    }
    target.StartServables(checked, call);
  });
}

MsServingError* ms_serving_server_stop_servable(MsServingServer* server, const char* servable_name,
                                                int64_t version_number, double drain_seconds) {
  return Guarded([&] {
    const std::string name = CheckText("servable_name", servable_name);
    const auto version = static_cast<uint64_t>(CheckAtLeast("version_number", version_number, 0));
    Get(server).StopServable(name, version, CheckSeconds("drain_seconds", drain_seconds, 0, kMaxDrainSeconds));
  });
}

MsServingError* ms_serving_server_reload_servables(MsServingServer* server, double drain_seconds,
                                                   MsServingLoadedFunction loaded, void* user) {
  return Guarded([&] {
    Get(server).ReloadServables(CheckSeconds("drain_seconds", drain_seconds, 0, kMaxDrainSeconds),
                                [loaded, user](const std::string& name, uint64_t version) {
                                  if (loaded != nullptr) {
                                    loaded(user, name.c_str(), version);
                                  }
                                });
  });
}

MsServingError* ms_serving_server_watch_versions(MsServingServer* server, double interval_seconds,
                                                 double drain_seconds) {
  return Guarded([&] {
    const int64_t interval_ns = CheckSeconds("interval_seconds", interval_seconds, 0, kMaxWatchSeconds);
    if (interval_seconds > 0 && interval_seconds < 0.1) {
      ThrowInvalid("Parameter 'interval_seconds' should be 0 or at least 0.1, but " + PythonNumber(interval_seconds) +
                   " was given");
    }
    Get(server).WatchVersions(interval_ns, CheckSeconds("drain_seconds", drain_seconds, 0, kMaxDrainSeconds));
  });
}

MsServingError* ms_serving_server_start_grpc(MsServingServer* server, const char* address,
                                             const MsServingListenOptions* options) {
  return Listen(server, &EmbeddedServer::StartGrpc, address, options, true);
}

MsServingError* ms_serving_server_start_rest(MsServingServer* server, const char* address,
                                             const MsServingListenOptions* options) {
  return Listen(server, &EmbeddedServer::StartRest, address, options, false);
}

MsServingError* ms_serving_server_set_max_enqueued_requests(MsServingServer* server, int64_t requests) {
  return Guarded([&] {
    const auto limit = static_cast<uint64_t>(CheckAtLeast("max_enqueued_requests", requests, 1));
    Get(server).Use([limit](Server* target) { target->SetMaxPendingRequests(limit); });
  });
}

MsServingError* ms_serving_server_set_max_queue_seconds(MsServingServer* server, double seconds) {
  return Guarded([&] {
    const int64_t limit = CheckSeconds("seconds", seconds, 0, 86'400);
    Get(server).Use([limit](Server* target) { target->SetMaxQueueNs(limit); });
  });
}

MsServingError* ms_serving_server_set_max_bytes_in_flight(MsServingServer* server, int64_t bytes) {
  return Guarded([&] {
    const auto limit = static_cast<uint64_t>(CheckRange("max_bytes_in_flight", bytes, int64_t{1} << 20, INT64_MAX));
    Get(server).Use([limit](Server* target) { target->SetMaxBytesInFlight(limit); });
  });
}

MsServingError* ms_serving_server_stats(MsServingServer* server, char** json) {
  return Guarded([&] {
    *json = nullptr;
    Get(server).Use([json](Server* target) { *json = strdup(target->Stats().c_str()); });
    if (*json == nullptr) {
      throw std::bad_alloc();
    }
  });
}

void ms_serving_stop_signals_take() { InstallStopSignals(); }

void ms_serving_stop_signals_give_back() {
  RestoreStopSignals();
  ForgetStopSignals();
  WakeSignalWaiters();
}

int32_t ms_serving_stop_signals_wait(double timeout_seconds) {
  constexpr int64_t kPieceNs = 3600 * kNanosPerSecond;
  // Beyond a century there is no difference to "no limit".
  const bool limited = timeout_seconds >= 0 && timeout_seconds < 3e9;
  const int64_t until =
      limited ? RealClock().NowNs() + static_cast<int64_t>(timeout_seconds * kNanosPerSecond) : kNoDeadline;
  while (StopSignalsInstalled() && SeenStopSignals().count == 0) {
    const int64_t left = until - RealClock().NowNs();
    if (left <= 0) {
      return 0;
    }
    WaitForStopSignal(std::min(left + kNanosPerMilli, kPieceNs));
  }
  return SeenStopSignals().last;
}

void ms_serving_log_set_level(int32_t level) { SetLogThreshold(static_cast<LogLevel>(std::clamp(level, 0, 3))); }

void ms_serving_log_set_sink(MsServingLogFunction sink, void* user) {
  struct Target {
    MsServingLogFunction sink;
    void* user;
  };
  static std::mutex mutex;
  static std::unique_ptr<Target> current;  // guarded by mutex
  const std::lock_guard<std::mutex> lock(mutex);
  if (sink == nullptr) {
    SetLogSink(nullptr, nullptr);
    current.reset();
    return;
  }
  auto next = std::make_unique<Target>(Target{sink, user});
  SetLogSink(
      [](void* target, LogLevel level, std::string_view text) {
        const auto* to = static_cast<Target*>(target);
        to->sink(to->user, static_cast<int32_t>(level), text.data(), text.size());
      },
      next.get());
  current = std::move(next);
}

}  // extern "C"
