// A C++ program that serves over TLS: tls_host SERVABLE_DIRECTORY NAME CERTIFICATE KEY [CA]. With an authority, clients
// have to show a certificate of it.
#include <cstdlib>
#include <iostream>
#include <string>

#include <mindspore_serving/server.h>

namespace ms = mindspore_serving;

namespace {

void Serve(char** argv, int argc) {
  ms::StopSignals signals;
  ms::Server server;
  ms::ServableStartConfig config;
  config.servable_directory = argv[1];
  config.servable_name = argv[2];
  server.StartServables({config});
  ms::ListenOptions listen;
  listen.ssl_config = ms::SSLConfig{argv[3], argv[4], argc > 5 ? argv[5] : "", argc > 5};
  const std::string grpc = std::getenv("SERVING_GRPC_ADDRESS");
  const std::string rest = std::getenv("SERVING_REST_ADDRESS");
  server.StartGrpc(grpc, listen);
  std::cout << "Serving gRPC server start success, listening on " << grpc << std::endl;
  server.StartRest(rest, listen);
  std::cout << "Serving RESTful server start success, listening on " << rest << std::endl;
  signals.Wait();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    return 2;
  }
  try {
    Serve(argv, argc);
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
  return 0;
}
