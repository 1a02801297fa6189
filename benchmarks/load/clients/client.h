// One connection of the load generator. Single-threaded: the generator owns it and calls everything from its loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace msserving::load {

// What is sent, the same every time. The body is the HTTP body, for gRPC with its five bytes of prefix.
struct Request {
  std::string path;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  int deadline_ms = 0;  // gRPC alone; 0: none
};

struct Call {
  int64_t due_ns = 0;
  std::string reply;
  std::string error;  // of the transport; empty: HTTP 200, and over gRPC also status 0
  size_t sent = 0;    // of the body, for the connection's own use
};

class Client {
 public:
  // The call has ended: its reply or its error is there. Send() may be called from within.
  using OnDone = std::function<void(Client*, Call*)>;

  virtual ~Client() = default;
  // Blocks until the connection is there. False: it is not; errno tells why.
  virtual bool Connect() = 0;
  // Whether one more call may be in flight.
  virtual bool HasRoom() const = 0;
  // Takes the call until OnDone. What is to be written waits for Flush().
  virtual void Send(Call* call) = 0;
  // Writes what the socket takes. False: the connection is of no use any more.
  virtual bool Flush() = 0;
  // Reads once. False as with Flush().
  virtual bool Receive() = 0;
  virtual bool wants_write() const = 0;

  int fd() const { return fd_; }
  // Rises with every new socket: a client may reconnect within Flush() and Receive().
  int connects() const { return connects_; }

  // The generator's own notes.
  int polled_connect = 0;
  bool polled_for_write = false;
  bool dirty = false;

 protected:
  int fd_ = -1;
  int connects_ = 0;
};

// A connected socket on the loopback interface without Nagle's delay, or -1.
int ConnectLoopback(int port);

// request outlives the clients.
std::unique_ptr<Client> MakeGrpcClient(int port, const Request& request, Client::OnDone on_done);
std::unique_ptr<Client> MakeHttpClient(int port, const Request& request, Client::OnDone on_done);

}  // namespace msserving::load
