// The REST front-end alone: answers every request with its own body. What a request costs before anything of serving
// is done.
//   rest_echo [--port N] [--threads N] [--max-mb N] [--cert FILE --key FILE]
#include <string>
#include <utility>

#include "echo_server.h"
#include "net/http_server.h"

namespace msserving {
namespace {

class EchoService final : public HttpService {
 public:
  void OnRequest(HttpCall* call) override {
    OutgoingBody body;
    body.encoded = call->loop().buffers().Acquire(call->body().size());
    body.encoded.Append(call->body().data(), call->body().size());
    call->Reply(200, call->content_type(), std::move(body));
  }
  void OnCancelled(HttpCall*) override {}
  std::string ErrorBody(int, std::string_view reason) override { return std::string(reason); }
};

int Run(int argc, char** argv) {
  EchoOptions options;
  options.port = 1500;
  if (!ParseEchoOptions(argc, argv, &options)) {
    return 1;
  }
  HttpServerOptions server_options;
  if (options.max_bytes > 0) {
    server_options.max_body_bytes = options.max_bytes;
  }
  return RunEchoServer<HttpServer, EchoService>(options, server_options, [](HttpServer*) {});
}

}  // namespace
}  // namespace msserving

int main(int argc, char** argv) { return msserving::Run(argc, argv); }
