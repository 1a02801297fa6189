// HTTP/1.1 connections: a client sends anything, in pieces; the server answers or closes, and forgets nothing.
// The first byte of the input sets the pieces' size.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "net/event_loop.h"
#include "net/http_server.h"
#include "net/listen.h"

namespace {

using namespace msserving;

void Require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// Answers every other request at once and the rest at the next wake-up.
class Service final : public HttpService {
 public:
  void OnRequest(HttpCall* call) override {
    Require(call->body().size() <= 4096);
    if (++requests_ % 2 == 0) {
      waiting.push_back(call);
    } else {
      Answer(call);
    }
  }
  void OnCancelled(HttpCall* call) override { Require(std::erase(waiting, call) == 1); }
  std::string ErrorBody(int, std::string_view reason) override { return std::string(reason); }

  static void Answer(HttpCall* call) {
    OutgoingBody body;
    body.encoded.Append(call->body().data(), call->body().size());
    call->Reply(200, call->content_type(), std::move(body));
  }
  void AnswerAll() {
    for (HttpCall* call : std::exchange(waiting, {})) {
      Answer(call);
    }
  }

  std::vector<HttpCall*> waiting;

 private:
  int requests_ = 0;
};

// Runs everything that is ready.
void Turn(EventLoop* loop, int times) {
  for (int i = 0; i < times; ++i) {
    loop->Post([loop] { loop->Stop(); });
    loop->Run();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) {
    return 0;
  }
  const size_t piece = data[0] == 0 ? size : data[0];
  static EventLoop* loop = new EventLoop();
  static Service* service = new Service();
  std::vector<UniqueFd> sockets;
  Require(Listen({"127.0.0.1", 0, ""}, 1, &sockets).ok());
  sockaddr_in address{};
  socklen_t length = sizeof(address);
  getsockname(sockets[0].get(), reinterpret_cast<sockaddr*>(&address), &length);
  HttpServerOptions options;
  options.max_body_bytes = 4096;
  options.max_header_bytes = 2048;
  options.max_pipelined = 3;
  HttpServer server(loop, std::move(sockets[0]), options, service, nullptr);
  UniqueFd client(socket(AF_INET, SOCK_STREAM, 0));
  const linger hard{1, 0};
  setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  Require(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  Turn(loop, 2);
  for (size_t at = 1; at < size; at += piece) {
    send(client.get(), data + at, std::min(piece, size - at), MSG_NOSIGNAL | MSG_DONTWAIT);
    Turn(loop, 1);
    service->AnswerAll();
  }
  char answer[4096];
  while (recv(client.get(), answer, sizeof(answer), MSG_DONTWAIT) > 0) {
  }
  Require(server.calls() == service->waiting.size());
  client.Reset();
  for (int i = 0; i < 100 && server.connections() > 0; ++i) {
    Turn(loop, 1);
  }
  Require(server.connections() == 0 && server.calls() == 0 && service->waiting.empty());
  return 0;
}
