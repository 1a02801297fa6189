// _core.Server: a thin face of server/server.h.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "server/server.h"
#include "server/signals.h"

namespace py = pybind11;

namespace msserving {
namespace {

void ThrowIfFailed(const Status& status) {
  if (!status.ok()) {
    throw std::runtime_error(status.message());
  }
}

int64_t Nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

using NamedLimits = std::map<std::string, double>;

EndpointLimits MakeLimits(const NamedLimits& named) {
  EndpointLimits limits;
  for (const auto& [name, value] : named) {
    if (name == "max_connections") {
      limits.max_connections = static_cast<size_t>(value);
    } else if (name == "max_streams_per_connection") {
      limits.max_streams_per_connection = static_cast<uint32_t>(value);
    } else if (name == "max_pipelined_requests") {
      limits.max_pipelined_requests = static_cast<size_t>(value);
    } else if (name == "max_header_bytes") {
      limits.max_header_bytes = static_cast<size_t>(value);
    } else if (name == "request_timeout_seconds") {
      limits.request_timeout_ns = Nanoseconds(value);
    } else if (name == "reply_timeout_seconds") {
      limits.reply_timeout_ns = Nanoseconds(value);
    } else if (name == "idle_timeout_seconds") {
      limits.idle_timeout_ns = Nanoseconds(value);
    } else if (name == "connection_bytes_share") {
      limits.connection_bytes_share = value;
    } else if (name == "max_resets_per_second") {
      limits.max_resets_per_second = static_cast<uint32_t>(value);
    } else if (name == "max_control_frames_per_second") {
      limits.max_control_frames_per_second = static_cast<uint32_t>(value);
    } else {
      throw std::runtime_error("there is no limit with the name " + name);
    }
  }
  return limits;
}

ListenOptions MakeListenOptions(int max_msg_mb_size, const std::optional<std::string>& certificate,
                                const std::optional<std::string>& private_key,
                                const std::optional<std::string>& custom_ca, bool verify_client,
                                const NamedLimits& limits) {
  ListenOptions options;
  options.limits = MakeLimits(limits);
  options.max_msg_mb_size = max_msg_mb_size;
  options.tls = certificate.has_value() || private_key.has_value();
  options.tls_options.certificate_file = certificate.value_or("");
  options.tls_options.private_key_file = private_key.value_or("");
  options.tls_options.custom_ca_file = custom_ca.value_or("");
  options.tls_options.verify_client = verify_client;
  return options;
}

class PyServer {
 public:
  PyServer(int io_threads, double worker_silence_s, double spin_s) {
    ServerOptions options;
    options.supervisor.silence_ns = Nanoseconds(worker_silence_s);
    options.front_end.io_threads = io_threads;
    options.front_end.spin_ns = Nanoseconds(spin_s);
    server_ = std::make_unique<Server>(options);
    ThrowIfFailed(server_->Start());
  }
  ~PyServer() {
    if (getpid() != process_) {
      (void)server_.release();  // a forked child has its memory but none of its threads to wait for
    }
  }

  uint64_t AddServable(const std::string& name, uint64_t version,
                       const std::vector<std::tuple<std::string, std::string, std::string, bool>>& workers,
                       const std::vector<std::string>& command,
                       const std::vector<std::pair<std::string, std::string>>& environment, bool joins_later,
                       const py::object& key, bool takes_leave) {
    ServableSpec spec;
    if (!key.is_none()) {
      const auto text = key.cast<std::string_view>();  // the user's own bytes
      ThrowIfFailed(Secret::Create({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, &spec.key));
    }
    spec.name = name;
    spec.version = version;
    spec.command = command;
    spec.environment = environment;
    for (const auto& [label, config, log_file, extra] : workers) {
      spec.workers.push_back({label, config, log_file, extra});
    }
    spec.joins_later = joins_later;
    spec.takes_leave = takes_leave;
    return server_->AddServable(std::move(spec));
  }

  // None: all ready. "": not yet. Otherwise the failure.
  std::optional<std::string> WaitReady(const std::vector<uint64_t>& versions, double timeout_s) {
    std::string error;
    switch (server_->supervisor().WaitReady(versions, Nanoseconds(timeout_s), &error)) {
      case Supervisor::Progress::kReady: return std::nullopt;
      case Supervisor::Progress::kStarting: return "";
      case Supervisor::Progress::kFailed: return error.empty() ? "the worker failed without saying why" : error;
    }
    return error;
  }

  void Retire(uint64_t version, double drain_seconds) {
    server_->supervisor().Retire(version, Nanoseconds(drain_seconds));
  }
  bool WaitGone(uint64_t version, double timeout_s) {
    return server_->supervisor().WaitGone(version, Nanoseconds(timeout_s));
  }
  std::string Describe(uint64_t version) { return server_->supervisor().Describe(version); }

  template <Status (Server::*kStart)(const std::string&, const ListenOptions&)>
  void Listen(const std::string& address, int max_msg_mb_size, const std::optional<std::string>& certificate,
              const std::optional<std::string>& private_key, const std::optional<std::string>& custom_ca,
              bool verify_client, const NamedLimits& limits) {
    ThrowIfFailed((server_.get()->*kStart)(
        address, MakeListenOptions(max_msg_mb_size, certificate, private_key, custom_ca, verify_client, limits)));
  }

  void Stop(double drain_seconds) {
    server_->Stop(Nanoseconds(drain_seconds));
    stopped_ = true;
    WakeSignalWaiters();
  }
  // "": still running; "stopped"; or the signal that asks for the end.
  std::string Wait(double timeout_s) {
    if (!stopped_ && SeenStopSignals().count == 0) {
      WaitForStopSignal(Nanoseconds(timeout_s));
    }
    if (stopped_) {
      return "stopped";
    }
    const StopSignals seen = SeenStopSignals();
    return seen.count == 0 ? "" : seen.last == SIGINT ? "SIGINT" : "SIGTERM";
  }
  void SetMaxEnqueuedRequests(uint64_t limit) { server_->SetMaxPendingRequests(limit); }
  void SetMaxQueueSeconds(double seconds) { server_->SetMaxQueueNs(Nanoseconds(seconds)); }
  void SetMaxBytesInFlight(uint64_t limit) { server_->SetMaxBytesInFlight(limit); }
  std::string Stats() { return server_->Stats(); }

 private:
  const pid_t process_ = getpid();
  std::unique_ptr<Server> server_;
  std::atomic<bool> stopped_{false};
};

}  // namespace

void BindServer(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  py::class_<PyServer>(m, "Server")
      .def(py::init<int, double, double>(), py::arg("io_threads") = 1, py::arg("worker_silence_s") = 30.0,
           py::arg("spin_s") = 0.0)
      .def("add_servable", &PyServer::AddServable, py::arg("name"), py::arg("version"), py::arg("workers"),
           py::arg("command"), py::arg("environment"), py::arg("joins_later"), py::arg("key") = py::none(),
           py::arg("takes_leave") = false)
      .def("wait_ready", &PyServer::WaitReady, py::arg("versions"), py::arg("timeout_s"), Release())
      .def("retire", &PyServer::Retire, py::arg("version"), py::arg("drain_seconds"), Release())
      .def("wait_gone", &PyServer::WaitGone, py::arg("version"), py::arg("timeout_s"), Release())
      .def("describe", &PyServer::Describe, py::arg("version"), Release())
      .def("start_grpc", &PyServer::Listen<&Server::StartGrpc>, py::arg("address"), py::arg("max_msg_mb_size"),
           py::arg("certificate"), py::arg("private_key"), py::arg("custom_ca"), py::arg("verify_client"),
           py::arg("limits"), Release())
      .def("start_restful", &PyServer::Listen<&Server::StartRest>, py::arg("address"), py::arg("max_msg_mb_size"),
           py::arg("certificate"), py::arg("private_key"), py::arg("custom_ca"), py::arg("verify_client"),
           py::arg("limits"), Release())
      .def_static("install_signal_handlers", &InstallStopSignals)
      .def_static("restore_signal_handlers", &RestoreStopSignals)
      .def_static("stop_requested", [] { return SeenStopSignals().last; })
      .def("wait", &PyServer::Wait, py::arg("timeout_s"), Release())
      .def("stop", &PyServer::Stop, py::arg("drain_seconds"), Release())
      .def("set_max_enqueued_requests", &PyServer::SetMaxEnqueuedRequests, py::arg("n"))
      .def("set_max_queue_seconds", &PyServer::SetMaxQueueSeconds, py::arg("seconds"))
      .def("set_max_bytes_in_flight", &PyServer::SetMaxBytesInFlight, py::arg("n"))
      .def("stats", &PyServer::Stats, Release());
}

}  // namespace msserving
