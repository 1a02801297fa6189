// _core.RankServer, RankLauncher and RankAgent: a distributed servable's processes, as Python sets them up.
#include "python/rank_bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "distributed/rank_agent.h"
#include "distributed/rank_launcher.h"
#include "python/python_session.h"
#include "python/session_conversions.h"

namespace py = pybind11;

namespace msserving {
namespace {

using OptionalText = std::optional<std::string>;

constexpr double kSliceSeconds = 0.2;  // between looks at Python's signals
constexpr int64_t kAgentConnectNs = 10 * kNanosPerSecond;

int64_t Nanos(double seconds) { return static_cast<int64_t>(std::clamp(seconds, 0.0, 1e9) * 1e9); }

[[noreturn]] void RaiseConnectionError(const std::string& text) {
  PyErr_SetString(PyExc_ConnectionError, text.c_str());
  throw py::error_already_set();
}

TlsOptions TlsFrom(const OptionalText& certificate, const OptionalText& private_key, const OptionalText& custom_ca) {
  TlsOptions tls;
  tls.certificate_file = certificate.value_or("");
  tls.private_key_file = private_key.value_or("");
  tls.custom_ca_file = custom_ca.value_or("");
  return tls;
}

WorkerAddress AddressFrom(const std::string& address, const OptionalText& certificate, const OptionalText& private_key,
                          const OptionalText& custom_ca, bool use_tls) {
  WorkerAddress worker;
  worker.address = address;
  if (use_tls) {
    worker.tls = TlsFrom(certificate, private_key, custom_ca);
  }
  return worker;
}

// `wait` is called without the GIL with a part of the time, until it says that it is done; signals' handlers run in
// between.
void WaitInSlices(double timeout_s, const std::function<bool(int64_t)>& wait) {
  double left_s = timeout_s;
  while (true) {
    const double slice_s = std::min(left_s, kSliceSeconds);
    bool done = false;
    {
      py::gil_scoped_release no_gil;
      done = wait(Nanos(slice_s));
    }
    left_s -= slice_s;
    if (done || left_s <= 0) {
      return;
    }
    if (PyErr_CheckSignals() != 0) {
      throw py::error_already_set();
    }
  }
}

RankServerHolder MakeServer(const std::string& address, uint32_t rank_size, uint32_t stage_size,
                            const py::bytes& configuration, const OptionalText& certificate,
                            const OptionalText& private_key, const OptionalText& custom_ca, bool verify_client,
                            const std::map<std::string, double>& given, bool pipeline) {
  RankServerOptions options;
  options.address = address;
  options.rank_size = rank_size;
  options.stage_size = stage_size;
  options.pipeline = pipeline;
  options.configuration = configuration;
  if (certificate) {
    options.tls = TlsFrom(certificate, private_key, custom_ca);
    options.tls->verify_client = verify_client;
  }
  const std::map<std::string, int64_t*> known{{"rank_timeout_s", &options.rank_timeout_ns},
                                              {"heartbeat_s", &options.heartbeat_ns},
                                              {"silence_s", &options.silence_ns}};
  for (const auto& [name, seconds] : given) {
    const auto found = known.find(name);
    if (found == known.end() || seconds <= 0) {
      throw py::value_error("option '" + name +
                            "' of ranks: there are rank_timeout_s, heartbeat_s and silence_s, all " + "more than 0");
    }
    *found->second = Nanos(seconds);
  }
  std::unique_ptr<RankServer> made;
  Check(RankServer::Create(std::move(options), &made));
  // Ending it waits for others.
  return RankServerHolder(made.release(), [](RankServer* server) {
    if (PyGILState_Check() != 0) {
      py::gil_scoped_release no_gil;
      delete server;
    } else {
      delete server;
    }
  });
}

py::object Wait(RankServer& server, double timeout_s) {
  auto state = RankServer::State::kGathering;
  std::string text;
  WaitInSlices(timeout_s, [&](int64_t slice_ns) {
    state = server.WaitReady(slice_ns, &text);
    return state != RankServer::State::kGathering;
  });
  switch (state) {
    case RankServer::State::kReady: return py::none();
    case RankServer::State::kGathering: return py::str("");
    case RankServer::State::kFailed: break;
  }
  return py::str(text);
}

py::list Describe(RankServer& server) {
  py::list ranks;
  for (const RankDescription& rank : server.Describe()) {
    py::list models;
    for (const RankModel& model : rank.models) {
      py::dict described = DictFrom(model.info);
      described["file"] = model.file;
      models.append(described);
    }
    py::dict dict;
    dict["rank"] = rank.rank;
    dict["host"] = rank.host;
    dict["local"] = rank.local;
    dict["models"] = models;
    ranks.append(dict);
  }
  return ranks;
}

py::bytes Connect(RankLauncher& launcher, double timeout_s) {
  std::string configuration;
  Status status;
  {
    py::gil_scoped_release no_gil;
    status = launcher.Connect(Nanos(timeout_s), &configuration);
  }
  if (status.kind() == ErrorKind::kInvalidInput) {
    throw std::runtime_error(status.message());  // trying again does not help
  }
  if (!status.ok()) {
    RaiseConnectionError(status.message());
  }
  return configuration;
}

std::string JsonText(const std::string& text) {
  return py::module_::import("json").attr("dumps")(text).cast<std::string>();
}

std::optional<std::pair<std::string, std::string>> NextEvent(RankLauncher& launcher, double timeout_s) {
  bool found = false;
  LauncherEvent event;
  Status status;
  WaitInSlices(timeout_s, [&](int64_t slice_ns) {
    status = launcher.NextEvent(slice_ns, &found, &event);
    return found || !status.ok();
  });
  Check(status);
  if (!found) {
    return std::nullopt;
  }
  switch (event.kind) {
    case LauncherEvent::Kind::kLaunch:
      return std::pair<std::string, std::string>(
          "launch", "{\"token\": " + JsonText(event.token) + ", \"scheduler\": " + JsonText(event.scheduler) + "}");
    case LauncherEvent::Kind::kStop: return std::pair<std::string, std::string>("stop", event.reason);
    case LauncherEvent::Kind::kLogWanted:
      return std::pair<std::string, std::string>("log wanted", std::to_string(event.rank));
    case LauncherEvent::Kind::kRefused: break;
  }
  return std::pair<std::string, std::string>("refused", event.reason);
}

class Agent {
 public:
  Agent(const std::string& address, const OptionalText& certificate, const OptionalText& private_key,
        const OptionalText& custom_ca, bool use_tls, const std::string& token, uint32_t rank) {
    RankAgentOptions options;
    options.worker = AddressFrom(address, certificate, private_key, custom_ca, use_tls);
    options.token = token;
    options.rank = rank;
    Status status;
    {
      py::gil_scoped_release no_gil;
      status = RankAgent::Create(std::move(options), kAgentConnectNs, &agent_);
    }
    if (!status.ok()) {
      RaiseConnectionError(status.message());
    }
  }
  ~Agent() {
    py::gil_scoped_release no_gil;
    agent_.reset();
    sessions_.clear();
  }
  Agent(const Agent&) = delete;

  size_t OpenSession(const std::string& library, const std::map<std::string, std::string>& options) {
    sessions_.push_back(SessionFrom(library, options));
    return sessions_.size() - 1;
  }

  size_t AddPythonSession(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
                          const std::vector<int64_t>& batch_sizes, py::function run, const std::string& way) {
    sessions_.push_back(std::make_shared<PythonSession>(InfoFrom(inputs, outputs, batch_sizes, way), std::move(run)));
    return sessions_.size() - 1;
  }

  py::dict InfoOf(size_t session) const { return DictFrom(SessionAt(session)->describe()); }

  void Register(const std::vector<std::string>& files, const std::optional<std::vector<size_t>>& chosen) {
    std::vector<std::shared_ptr<Session>> sessions;
    if (chosen) {
      for (const size_t session : *chosen) {
        sessions.push_back(SessionAt(session));
      }
    } else {
      sessions = sessions_;
    }
    Check(agent_->Register(std::move(sessions), files));
  }

  std::string Run() {
    std::string why;
    {
      py::gil_scoped_release no_gil;
      why = agent_->Run([] {
        py::gil_scoped_acquire gil;
        return PyErr_CheckSignals() != 0;
      });
    }
    if (PyErr_Occurred() != nullptr) {
      throw py::error_already_set();  // what the signal's handler raised
    }
    return why;
  }

  void RequestStop() { agent_->RequestStop(); }

 private:
  const std::shared_ptr<Session>& SessionAt(size_t session) const {
    if (session >= sessions_.size()) {
      throw py::index_error("there is no session " + std::to_string(session));
    }
    return sessions_[session];
  }

  std::vector<std::shared_ptr<Session>> sessions_;
  std::unique_ptr<RankAgent> agent_;
};

}  // namespace

void BindRanks(py::module_& m) {
  py::class_<RankServer, RankServerHolder>(m, "RankServer", "The worker's half of a distributed servable. Private.")
      .def(py::init(&MakeServer), py::arg("address"), py::arg("rank_size"), py::arg("stage_size"),
           py::arg("configuration"), py::arg("certificate"), py::arg("private_key"), py::arg("custom_ca"),
           py::arg("verify_client"), py::arg("options"), py::arg("pipeline") = false,
           "Listens at once; RuntimeError names the address and the reason. certificate None: without TLS. options: "
           "rank_timeout_s, heartbeat_s, silence_s. pipeline: a run for each stage is out at a time.")
      .def_property_readonly("address", &RankServer::address)
      .def("wait", &Wait, py::arg("timeout_s"),
           "None: all ranks are ready; '': not yet; otherwise why they cannot be, or have failed since.")
      .def("progress", &RankServer::Progress)
      .def("describe", &Describe, "One dict a rank: rank, host, local, models.")
      .def(
          "failure",
          [](RankServer& server) -> py::object {
            const std::string why = server.Failure();
            return why.empty() ? py::object(py::none()) : py::object(py::str(why));
          },
          "Why the group ended after it had been ready, or None.")
      .def("stop", &RankServer::Stop, py::arg("reason"), py::call_guard<py::gil_scoped_release>(),
           "The orderly end: launchers and agents are told, and leave.");
  py::class_<RankLauncher>(m, "RankLauncher", "A launcher's connection to the worker. Private.")
      .def(py::init([](const std::string& address, const OptionalText& certificate, const OptionalText& private_key,
                       const OptionalText& custom_ca, bool use_tls) {
             return std::make_unique<RankLauncher>(AddressFrom(address, certificate, private_key, custom_ca, use_tls));
           }),
           py::arg("address"), py::arg("certificate"), py::arg("private_key"), py::arg("custom_ca"), py::arg("use_tls"))
      .def("connect", &Connect, py::arg("timeout_s"),
           "One attempt; returns the configuration. ConnectionError: nobody is there, or nobody answers. RuntimeError: "
           "the "
           "address or the TLS files are of no use.")
      .def(
          "claim",
          [](RankLauncher& launcher, const std::vector<uint32_t>& ranks, const std::string& host,
             const OptionalText& scheduler) { launcher.Claim(ranks, host, scheduler.value_or("")); },
          py::arg("ranks"), py::arg("host"), py::arg("scheduler"))
      .def("next_event", &NextEvent, py::arg("timeout_s"),
           "('launch', JSON of token and scheduler), ('stop', reason), ('refused', reason), ('log wanted', rank), or "
           "None "
           "after the time. ConnectionError: the connection has ended.")
      .def("agent_died", &RankLauncher::AgentDied, py::arg("rank"), py::arg("text"))
      .def("log_lines", &RankLauncher::LogLines, py::arg("rank"), py::arg("text"),
           "Answers 'log wanted': the last lines of the rank's log.")
      .def("close", &RankLauncher::Close, py::call_guard<py::gil_scoped_release>());
  py::class_<Agent>(m, "RankAgent", "A rank: its sessions and its connection to the worker. Private.")
      .def(py::init<const std::string&, const OptionalText&, const OptionalText&, const OptionalText&, bool,
                    const std::string&, uint32_t>(),
           py::arg("address"), py::arg("certificate"), py::arg("private_key"), py::arg("custom_ca"), py::arg("use_tls"),
           py::arg("token"), py::arg("rank"), "Connects. ConnectionError: nobody is there.")
      .def("open_session", &Agent::OpenSession, py::arg("library"), py::arg("options"))
      .def("add_python_session", &Agent::AddPythonSession, py::arg("inputs"), py::arg("outputs"),
           py::arg("batch_sizes"), py::arg("run"), py::arg("way"))
      .def("session_info", &Agent::InfoOf, py::arg("session"))
      .def("register", &Agent::Register, py::arg("files"), py::arg("sessions") = py::none(),
           "files: what each sub-graph was loaded from; sessions: which session runs which sub-graph, all of them in "
           "their order by default.")
      .def("run", &Agent::Run,
           "Until the end: 'stopped', 'worker gone' or 'refused: why'. Signal handlers run meanwhile "
           "if this is the main thread.")
      .def("request_stop", &Agent::RequestStop);
}

}  // namespace msserving
