// _core.Worker: the worker process's native half, as Python sets it up.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "python/model_key.h"
#include "python/python_session.h"
#include "python/rank_bindings.h"
#include "python/session_conversions.h"
#include "python/worker_call_bindings.h"
#include "session/remote_session.h"
#include "worker/lifeline.h"
#include "worker/model_file.h"
#include "worker/server_connection.h"

namespace py = pybind11;

namespace msserving {
namespace {

constexpr const char* kPythonStageCapsule = "msserving.python_stage";

std::vector<ValueRef> RefsFrom(const py::handle& value) {
  std::vector<ValueRef> refs;
  for (const auto& [stage, index] : value.cast<std::vector<std::pair<uint16_t, uint16_t>>>()) {
    refs.push_back({stage, index});
  }
  return refs;
}

Stage StageFrom(const py::dict& dict) {
  Stage stage;
  const auto kind = dict["kind"].cast<std::string>();
  if (kind == "python") {
    stage.kind = StageKind::kPython;
  } else if (kind == "model") {
    stage.kind = StageKind::kModel;
  } else if (kind == "builtin") {
    stage.kind = StageKind::kBuiltin;
  } else {
    throw py::value_error("a stage's kind is 'python', 'model' or 'builtin', not '" + kind + "'");
  }
  stage.target = dict["target"].cast<uint32_t>();
  stage.subgraph = dict.contains("subgraph") ? dict["subgraph"].cast<uint32_t>() : 0;
  stage.at_once = dict.contains("at_once") ? dict["at_once"].cast<uint32_t>() : 0;
  stage.concurrency = dict.contains("concurrency") ? dict["concurrency"].cast<uint32_t>() : 1;
  stage.inputs = RefsFrom(dict["inputs"]);
  stage.outputs = dict["outputs"].cast<uint32_t>();
  stage.batch_size = dict.contains("batch_size") ? dict["batch_size"].cast<uint32_t>() : 0;
  stage.stacked = dict.contains("stacked") && dict["stacked"].cast<bool>();
  stage.tag = dict.contains("tag") && !dict["tag"].is_none() ? dict["tag"].cast<std::string>() : "";
  stage.failure = dict.contains("failure") ? dict["failure"].cast<std::string>() : "";
  return stage;
}

py::dict DictFrom(const StageStats& stage) {
  constexpr const char* kReasons[] = {"full", "idle", "waited", "deadline", "drain"};
  py::dict releases;
  for (size_t i = 0; i < stage.releases.size(); ++i) {
    releases[kReasons[i]] = stage.releases[i];
  }
  py::dict dict;
  dict["name"] = stage.name;
  dict["kind"] = stage.kind == StageKind::kModel ? "model" : "python";
  dict["releases"] = releases;
  dict["queued"] = stage.queued;
  dict["instances"] = stage.instances;
  dict["run_ns"] = stage.run_ns;
  if (stage.kind == StageKind::kModel) {
    dict["runs"] = stage.model.runs;
    dict["rows"] = stage.model.rows;
    dict["padded"] = stage.model.padded;
    dict["in_place"] = stage.model.in_place;
    dict["splits"] = stage.model.splits;
  }
  return dict;
}

// Set up and run from the thread that made it; request_stop() and stats() from any.
class Worker {
 public:
  explicit Worker(int control_fd) : connection_(UniqueFd(control_fd)) {}

  // Threads of the executor may be waiting for the GIL.
  ~Worker() {
    py::gil_scoped_release no_gil;
    if (ranks_ != nullptr) {
      ranks_->WhenFailed({});
    }
    executor_.reset();
  }
  Worker(const Worker&) = delete;

  py::bytes ReceiveStart() {
    Status status;
    {
      py::gil_scoped_release no_gil;
      status = connection_.ReceiveStart(&order_);
    }
    Check(status);
    return order_.configuration;
  }

  size_t OpenSession(const std::string& library, const std::map<std::string, std::string>& options) {
    sessions_.push_back(SessionFrom(library, options));
    return sessions_.size() - 1;
  }

  py::bytes ReceiveDevice() {
    DeviceOrder order;
    Status status;
    {
      py::gil_scoped_release no_gil;
      status = connection_.ReceiveDevice(&order);
    }
    Check(status);
    Ready().ForwardModels(std::move(order.memory));
    Ready().AddDevice(std::move(order.link));
    return order.description;
  }

  void ServeExtraWorkers() { Check(Ready().ServeExtraWorkers()); }

  size_t AddPythonSession(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
                          const std::vector<int64_t>& batch_sizes, py::function run, const std::string& way) {
    sessions_.push_back(std::make_shared<PythonSession>(InfoFrom(inputs, outputs, batch_sizes, way), std::move(run)));
    return sessions_.size() - 1;
  }

  size_t AddRemoteSession(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
                          const std::vector<int64_t>& batch_sizes, const std::string& way) {
    sessions_.push_back(std::make_shared<RemoteSession>(InfoFrom(inputs, outputs, batch_sizes, way)));
    return sessions_.size() - 1;
  }

  size_t AddRankSession(const std::shared_ptr<RankServer>& ranks, uint32_t subgraph) {
    std::shared_ptr<Session> session;
    Check(ranks->MakeSession(subgraph, &session));
    ranks_ = ranks;
    sessions_.push_back(std::move(session));
    return sessions_.size() - 1;
  }

  py::dict InfoOf(size_t session) const { return DictFrom(SessionAt(session)->describe()); }

  uint32_t AddModel(const std::vector<size_t>& sessions, bool with_batch_dim,
                    const std::vector<uint32_t>& without_batch_dim_inputs, uint32_t batch_size, int64_t max_wait_us) {
    std::vector<std::shared_ptr<Session>> chosen;
    for (const size_t session : sessions) {
      chosen.push_back(SessionAt(session));
    }
    std::unique_ptr<Model> model;
    Check(Model::Create(chosen, {with_batch_dim, without_batch_dim_inputs, batch_size, max_wait_us}, &model));
    return Ready().AddModel(std::move(model));
  }

  size_t AddMethod(const std::string& name, const std::vector<std::string>& inputs,
                   const std::vector<std::string>& outputs, const std::vector<py::dict>& stages,
                   const py::object& returns, bool internal, double timeout_s) {
    MethodGraph graph;
    graph.timeout_ns = static_cast<int64_t>(timeout_s * 1e9);
    graph.signature = {name, inputs, outputs};
    for (const py::dict& stage : stages) {
      graph.stages.push_back(StageFrom(stage));
    }
    graph.returns = RefsFrom(returns);
    Check(Ready().AddMethod(graph, internal ? MethodUse::kInternal : MethodUse::kPublic));
    return methods_++;
  }

  void SetPythonStages(const py::object& capsule) {
    void* function = PyCapsule_GetPointer(capsule.ptr(), kPythonStageCapsule);
    if (function == nullptr) {
      throw py::error_already_set();
    }
    Ready().SetPythonStages(reinterpret_cast<PythonStageFunction>(function), PyCapsule_GetContext(capsule.ptr()));
    python_stages_ = capsule;
  }

  void SetOption(const std::string& name, const py::object& value) {
    if (executor_ != nullptr) {
      throw std::runtime_error("option '" + name + "' must be set before models and methods are added");
    }
    const std::string text = py::str(value);
    size_t end = 0;
    int64_t number = -1;
    try {
      number = std::stoll(text, &end);
    } catch (const std::exception&) {
      end = 0;
    }
    if (end == 0 || end != text.size() || number < 0) {
      throw py::value_error("option '" + name + "' takes a whole number from 0, not '" + text + "'");
    }
    if (name == "max_wait_us") {
      options_.max_wait_us = number;
    } else if (name == "max_live_instances") {
      options_.max_live_instances = static_cast<uint32_t>(std::clamp<int64_t>(number, 1, UINT32_MAX));
    } else if (name == "max_held_bytes") {
      options_.max_held_bytes = static_cast<size_t>(number);
    } else if (name == "keep_free_bytes") {
      options_.keep_free_bytes = static_cast<size_t>(number);
    } else if (name == "spin_us") {
      options_.spin_ns = std::min<int64_t>(number, 1'000'000) * kNanosPerMicro;
    } else {
      throw py::value_error(
          "unknown option '" + name +
          "'; there are max_wait_us, max_live_instances, max_held_bytes, keep_free_bytes and spin_us");
    }
  }

  py::bytes Decrypt(const std::string& path, const std::string& mode) {
    if (order_.key == nullptr) {
      throw std::runtime_error("there is no dec_key");
    }
    return DecryptToBytes(path, *order_.key, mode);
  }
  void ForgetKey() { order_.key.reset(); }

  void FollowServer() {
    if (order_.channels.empty()) {
      throw std::runtime_error("follow_server() comes after receive_start()");
    }
    Check(lifeline_.Start(connection_.fd(), order_.channels[0]->control_fd()));
  }

  void SendReady(const std::string& body) { Check(connection_.SendReady(body)); }
  void SendFailed(const std::string& text) { Check(connection_.SendFailed(text)); }

  std::string Run() {
    Executor& executor = Ready();
    if (!order_.doorbell) {
      throw std::runtime_error("run() needs a start order: call receive_start() once before each run()");
    }
    for (auto& channel : order_.channels) {
      executor.AddChannel(std::move(channel));
    }
    order_.channels.clear();
    RunHooks hooks;
    hooks.control_fd = connection_.fd();
    hooks.on_control = [this] { return connection_.ReceiveEvent(executor_.get()); };
    hooks.interrupted = [] {
      py::gil_scoped_acquire gil;
      return PyErr_CheckSignals() != 0;
    };
    if (ranks_ != nullptr) {
      ranks_->WhenFailed([&executor] { executor.RequestStop(); });
    }
    RunEnd end = RunEnd::kStopped;
    Status status;
    {
      py::gil_scoped_release no_gil;
      status = executor.Run(std::move(order_.doorbell), hooks, &end);
    }
    Check(status);
    if (end == RunEnd::kInterrupted) {
      throw py::error_already_set();  // what the signal's handler raised
    }
    if (end == RunEnd::kServerGone) {
      return "server gone";
    }
    return ranks_ != nullptr && !ranks_->Failure().empty() ? "ranks lost" : "stop";
  }

  void RequestStop() { Ready().RequestStop(); }

  py::list CallMethod(uint32_t method, const py::list& instances) { return CallFromPython(Ready(), method, instances); }

  py::dict Stats() {
    const ExecutorStats stats = Ready().stats();
    py::list stages;
    for (const StageStats& stage : stats.stages) {
      stages.append(DictFrom(stage));
    }
    py::dict dict;
    dict["requests"] = stats.requests;
    dict["instances"] = stats.instances;
    dict["failed"] = stats.failed;
    dict["expired"] = stats.expired;
    dict["cancelled"] = stats.cancelled;
    dict["held"] = stats.held;
    dict["wakeups"] = stats.wakeups;
    dict["doorbells"] = stats.doorbells;
    dict["live_instances"] = stats.live_instances;
    dict["python_calls"] = stats.python_calls;
    dict["calls"] = stats.calls;
    dict["call_instances"] = stats.call_instances;
    dict["forwarded_groups"] = stats.forwarded_groups;
    dict["forwarded_rows"] = stats.forwarded_rows;
    dict["forwarded_lost"] = stats.forwarded_lost;
    dict["rows_with_devices"] = stats.rows_with_devices;
    dict["stages"] = stages;
    return dict;
  }

 private:
  Executor& Ready() {
    if (executor_ == nullptr) {
      executor_ = std::make_unique<Executor>(options_);
    }
    return *executor_;
  }

  const std::shared_ptr<Session>& SessionAt(size_t session) const {
    if (session >= sessions_.size()) {
      throw py::index_error("there is no session " + std::to_string(session));
    }
    return sessions_[session];
  }

  ServerConnection connection_;
  Lifeline lifeline_;
  StartOrder order_;
  ExecutorOptions options_;
  py::object python_stages_;           // keeps the function's context alive
  std::shared_ptr<RankServer> ranks_;  // what its sessions stand on
  std::vector<std::shared_ptr<Session>> sessions_;
  std::unique_ptr<Executor> executor_;
  size_t methods_ = 0;
};

}  // namespace

void BindWorker(py::module_& m) {
  m.def(
      "decrypt_model_file",
      [](const std::string& path, const py::bytes& key, const std::string& mode) {
        const std::string_view text(key);
        std::shared_ptr<Secret> secret;
        Check(Secret::Create({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, &secret));
        return DecryptToBytes(path, *secret, mode);
      },
      py::arg("path"), py::arg("key"), py::arg("mode"), "As Worker.decrypt, with a key of the caller's.");
  py::class_<Worker>(m, "Worker", "The native half of a worker process. Private.")
      .def(py::init<int>(), py::arg("control_fd"), "Takes ownership of the control socket.")
      .def("receive_start", &Worker::ReceiveStart,
           "Waits for the server's start order, maps its channels and returns the configuration. ConnectionError: the "
           "server is gone or said stop.")
      .def("open_session", &Worker::OpenSession, py::arg("library"), py::arg("options"))
      .def("add_python_session", &Worker::AddPythonSession, py::arg("inputs"), py::arg("outputs"),
           py::arg("batch_sizes"), py::arg("run"), py::arg("way"),
           "A session run by a callable: a list of read-only arrays in, a list of arrays out.")
      .def("add_remote_session", &Worker::AddRemoteSession, py::arg("inputs"), py::arg("outputs"),
           py::arg("batch_sizes"), py::arg("way"), "Of an extra worker: a graph that device workers run.")
      .def("add_rank_session", &Worker::AddRankSession, py::arg("ranks"), py::arg("subgraph"),
           "Of a distributed servable whose ranks are ready: what they run together.")
      .def("receive_device", &Worker::ReceiveDevice,
           "Of an extra worker, before models are added: waits for the first device worker and returns what that said "
           "of itself. ConnectionError as receive_start().")
      .def("serve_extra_workers", &Worker::ServeExtraWorkers,
           "Of a device worker, after all methods: rows of models are taken from extra workers, too.")
      .def("session_info", &Worker::InfoOf, py::arg("session"))
      .def("add_model", &Worker::AddModel, py::arg("sessions"), py::arg("with_batch_dim"),
           py::arg("without_batch_dim_inputs"), py::arg("batch_size"), py::arg("max_wait_us") = 0,
           "batch_size 0: the largest the model was compiled for. max_wait_us: how long a batch may wait to be filled.")
      .def("add_method", &Worker::AddMethod, py::arg("name"), py::arg("inputs"), py::arg("outputs"), py::arg("stages"),
           py::arg("returns"), py::arg("internal") = false, py::arg("timeout_s") = 0.0,
           "Returns its number. internal: only call_method() runs it; add these after the others. timeout_s: what one "
           "call of a function or one run of a model may take; 0: any time.")
      .def(
          "set_python_stages", &Worker::SetPythonStages, py::arg("capsule"),
          "A capsule 'msserving.python_stage' whose pointer is a PythonStageFunction and whose context is its context.")
      .def("set_option", &Worker::SetOption, py::arg("name"), py::arg("value"))
      .def("decrypt", &Worker::Decrypt, py::arg("path"), py::arg("mode"),
           "The content of an encrypted model file, with the key that came with the start order. ValueError: it is not "
           "encrypted so, or not with this key.")
      .def("forget_key", &Worker::ForgetKey, "Wipes the key; nothing can be decrypted any more.")
      .def("follow_server", &Worker::FollowServer,
           "After receive_start(): from now on the process shows the server that it lives, and is killed half a second "
           "after the server's end.")
      .def("send_ready", &Worker::SendReady, py::arg("description"))
      .def("send_failed", &Worker::SendFailed, py::arg("text"))
      .def("run", &Worker::Run,
           "Serves until the server says stop ('stop') or is gone ('server gone'; stages may still be running then, so "
           "leave with os._exit), or the ranks of a distributed servable have failed ('ranks lost'). Signal handlers "
           "run meanwhile if this is the main thread.")
      .def("request_stop", &Worker::RequestStop)
      .def("call_method", &Worker::CallMethod, py::arg("method"), py::arg("instances"),
           "From user code while the worker runs: a list of tuples of C-contiguous arrays, str or bytes in; for each "
           "a tuple of arrays (bytes as uint8) and str, or a RuntimeError, out. RuntimeError if nothing could be run.")
      .def("stats", &Worker::Stats);
}

}  // namespace msserving
