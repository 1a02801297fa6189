// Serves one servable over gRPC and REST, from a program without any Python in it, until Ctrl+C.
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include <mindspore_serving/server.h>

namespace {

constexpr const char* kUsage =
    "usage: embedded_server DIRECTORY [NAME]\n"
    "Serves the servable DIRECTORY/NAME (NAME: add unless given) until Ctrl+C.\n"
    "SERVING_GRPC_ADDRESS and SERVING_REST_ADDRESS choose the addresses, MSSERVING_PYTHON the Python of the workers.\n";

std::string Environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

// A line for every worker whose state has changed.
mindspore_serving::ProgressFunction PrintProgress() {
  return [told = std::string()](const std::vector<mindspore_serving::WorkerState>& workers) mutable {
    std::string now;
    for (const auto& worker : workers) {
      now += worker.label + " is " + worker.state + "\n";
    }
    if (now != told) {
      std::cout << now << std::flush;
      told = now;
    }
    return true;  // go on waiting
  };
}

void Serve(const std::string& directory, const std::string& name) {
  const std::string grpc = Environment("SERVING_GRPC_ADDRESS", "127.0.0.1:5500");
  const std::string rest = Environment("SERVING_REST_ADDRESS", "127.0.0.1:1500");

  mindspore_serving::StopSignals signals;  // before anything is started: Ctrl+C also ends the start
  mindspore_serving::Server server;

  mindspore_serving::ServableStartConfig config;
  config.servable_directory = directory;
  config.servable_name = name;
  server.StartServables({config}, PrintProgress());

  server.StartGrpc(grpc);
  std::cout << "Serving gRPC server start success, listening on " << grpc << std::endl;
  server.StartRest(rest);
  std::cout << "Serving RESTful server start success, listening on " << rest << std::endl;

  signals.Wait();
  server.Stop();  // answers what was accepted
  std::cout << "Stopped" << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << kUsage;
    return 2;
  }
  try {
    Serve(argv[1], argc == 3 ? argv[2] : "add");
    return 0;
  } catch (const mindspore_serving::Error& error) {
    if (error.code() == mindspore_serving::ErrorCode::kStopped) {
      return 0;
    }
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
