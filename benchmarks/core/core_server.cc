// The whole core without Python: the real front-end, router, supervision and worker, with the test double as the
// model. For measuring what the core costs by itself, and for running load under sanitizers.
//   core_server --session LIBRARY [--grpc ADDRESS] [--rest ADDRESS] [--threads N] [--workers N] [--run-us N]
//               [--same-process]
// Servable "add", method "add_common" (x1, x2 -> y): the sum of two float32[2,2], model batch 32; method "no_model"
// returns its input. Each worker is this program again, or, with --same-process, threads of this process, so that a
// sanitizer sees both sides of the shared memory. Prints a line when ready; SIGTERM or SIGINT ends it.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/server.h"
#include "server/signals.h"
#include "tensor/control_socket.h"
#include "worker/executor.h"

namespace msserving {
namespace {

constexpr const char* kSignatureJson = R"({"methods":[{"name":"add_common","inputs":["x1","x2"],"outputs":["y"]},)"
                                       R"({"name":"no_model","inputs":["x1"],"outputs":["y"]}]})";

[[noreturn]] void Die(const std::string& text) {
  std::fprintf(stderr, "core_server: %s\n", text.c_str());
  std::_Exit(1);
}

void Must(const Status& status) {
  if (!status.ok()) {
    Die(status.message());
  }
}

// The executor with the servable's model and methods; `config` is "library;run_us".
std::unique_ptr<Executor> MakeExecutor(const std::string& config) {
  const size_t border = config.rfind(';');
  std::unique_ptr<Session> session;
  Must(OpenLibrarySession(config.substr(0, border),
                          {{"op", "add"},
                           {"inputs", "float32[32,2,2];float32[32,2,2]"},
                           {"batch_sizes", "1,2,4,8,16,32"},
                           {"run_us", config.substr(border + 1)},
                           {"run_mode", "spin"}},
                          &session));
  std::unique_ptr<Model> model;
  ModelOptions options;
  options.with_batch_dim = true;
  Must(Model::Create({std::shared_ptr<Session>(std::move(session))}, options, &model));
  auto executor = std::make_unique<Executor>();
  executor->AddModel(std::move(model));
  MethodGraph add;
  add.signature = {"add_common", {"x1", "x2"}, {"y"}};
  Stage stage;
  stage.inputs = {{0, 0}, {0, 1}};
  add.stages = {stage};
  add.returns = {{1, 0}};
  Must(executor->AddMethod(add));
  MethodGraph none;
  none.signature = {"no_model", {"x1"}, {"y"}};
  none.returns = {{0, 0}};
  Must(executor->AddMethod(none));
  return executor;
}

void AddChannels(std::vector<UniqueFd> fds, size_t first, Executor* executor) {
  for (size_t i = first; i + 3 < fds.size(); i += 4) {
    std::unique_ptr<Channel> channel;
    Must(Channel::Open({std::move(fds[i]), std::move(fds[i + 1]), std::move(fds[i + 2]), std::move(fds[i + 3])},
                       &channel));
    executor->AddChannel(std::move(channel));
  }
}

int RunWorker(int control) {
  ControlMessage start;
  Must(ReceiveControl(control, &start));
  std::unique_ptr<Executor> executor = MakeExecutor(start.body);
  UniqueFd doorbell = std::move(start.fds[0]);
  AddChannels(std::move(start.fds), 1, executor.get());
  Must(SendControl(control, 'R', kSignatureJson));
  RunHooks hooks;
  hooks.control_fd = control;
  hooks.on_control = [control] {
    ControlMessage message;
    if (!ReceiveControl(control, &message).ok()) {
      return ControlEvent::kServerGone;
    }
    return message.kind == 'X' ? ControlEvent::kStop : ControlEvent::kNothing;
  };
  RunEnd end = RunEnd::kStopped;
  Must(executor->Run(std::move(doorbell), hooks, &end));
  return end == RunEnd::kStopped || end == RunEnd::kServerGone ? 0 : 1;
}

// A worker as threads of this process.
class LocalWorker {
 public:
  LocalWorker(FrontEnd* front_end, uint64_t id, const std::string& config,
              std::vector<std::shared_ptr<SharedMemory>>* slabs)
      : executor_(MakeExecutor(config)) {
    WorkerAttachment attachment;
    Must(front_end->MakeAttachment(slabs, &attachment));
    std::vector<UniqueFd> fds;
    for (const int fd : front_end->DescriptorsOf(attachment)) {
      fds.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    }
    UniqueFd doorbell = std::move(fds[0]);
    AddChannels(std::move(fds), 1, executor_.get());
    thread_ = std::thread([this, bell = std::move(doorbell)]() mutable {
      RunEnd end = RunEnd::kStopped;
      Must(executor_->Run(std::move(bell), {}, &end));
    });
    ServableSignature signature{"add", 1, {{"add_common", {"x1", "x2"}, {"y"}}, {"no_model", {"x1"}, {"y"}}}};
    front_end->AddWorker(id, signature, std::move(attachment));
    front_end->JoinWorker(id);
  }
  ~LocalWorker() {
    executor_->RequestStop();
    thread_.join();
  }

 private:
  std::unique_ptr<Executor> executor_;
  std::thread thread_;
};

void WaitForSignal() {
  while (SeenStopSignals().count == 0) {
    WaitForStopSignal(kNanosPerSecond);
  }
}

int RunSameProcess(const std::map<std::string, std::string>& options, const std::string& config) {
  FrontEndOptions front_options;
  front_options.io_threads = std::atoi(options.at("--threads").c_str());
  FrontEnd front_end(front_options);
  Must(front_end.Start());
  std::vector<std::unique_ptr<LocalWorker>> workers;
  std::vector<std::shared_ptr<SharedMemory>> slabs;
  for (int i = 0; i < std::atoi(options.at("--workers").c_str()); ++i) {
    workers.push_back(std::make_unique<LocalWorker>(&front_end, i + 1, config, &slabs));
  }
  front_end.SetReady(true);
  Must(front_end.StartGrpc(options.at("--grpc"), {}, nullptr));
  Must(front_end.StartRest(options.at("--rest"), {}, nullptr));
  std::printf("ready\n");
  std::fflush(stdout);
  WaitForSignal();
  front_end.Drain();
  workers.clear();
  front_end.Stop();
  return 0;
}

int RunServer(const std::map<std::string, std::string>& options, const std::string& config) {
  ServerOptions server_options;
  server_options.front_end.io_threads = std::atoi(options.at("--threads").c_str());
  Server server(server_options);
  Must(server.Start());
  ServableSpec spec;
  spec.name = "add";
  spec.command = {"/proc/self/exe", "worker"};
  for (int i = 0; i < std::atoi(options.at("--workers").c_str()); ++i) {
    spec.workers.push_back({"add, version 1, device " + std::to_string(i), config, ""});
  }
  server.AddServable(spec);
  std::string error;
  if (server.WaitReady(60 * kNanosPerSecond, &error) != Supervisor::Progress::kReady) {
    Die("the worker is not ready: " + error);
  }
  Must(server.StartGrpc(options.at("--grpc"), {}));
  Must(server.StartRest(options.at("--rest"), {}));
  std::printf("ready\n");
  std::fflush(stdout);
  WaitForSignal();
  server.Stop(5 * kNanosPerSecond);
  return 0;
}

int Main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "worker") == 0) {
    return RunWorker(std::atoi(argv[2]));
  }
  std::map<std::string, std::string> options{{"--grpc", "127.0.0.1:5500"},
                                             {"--rest", "127.0.0.1:1500"},
                                             {"--threads", "1"},
                                             {"--workers", "1"},
                                             {"--run-us", "0"},
                                             {"--session", ""}};
  bool same_process = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--same-process") == 0) {
      same_process = true;
    } else if (i + 1 < argc && options.count(argv[i]) == 1) {
      options[argv[i]] = argv[i + 1];
      ++i;
    } else {
      Die(std::string("unknown or incomplete option ") + argv[i] + "; see the top of core_server.cc");
    }
  }
  if (options["--session"].empty()) {
    Die("--session must name the test double's library");
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  InstallStopSignals();
  const std::string config = options["--session"] + ";" + options["--run-us"];
  return same_process ? RunSameProcess(options, config) : RunServer(options, config);
}

}  // namespace
}  // namespace msserving

int main(int argc, char** argv) { return msserving::Main(argc, argv); }
