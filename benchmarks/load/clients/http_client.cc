// HTTP/1.1 with keep-alive and one request in flight. A server may close the connection after a reply: then a new one
// is made. The request's bytes are made once and sent from there.
#include <llhttp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "load/clients/client.h"

namespace msserving::load {
namespace {

constexpr size_t kReadBytes = 256 << 10;

class HttpClient final : public Client {
 public:
  HttpClient(int port, const Request& request, OnDone on_done) : port_(port), on_done_(std::move(on_done)) {
    text_ = "POST " + request.path + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port) + "\r\n";
    for (const auto& [name, value] : request.headers) {
      text_ += name + ": " + value + "\r\n";
    }
    text_ += "Content-Length: " + std::to_string(request.body.size()) + "\r\n\r\n" + request.body;
    llhttp_settings_init(&settings_);
    settings_.on_body = [](llhttp_t* parser, const char* at, size_t size) {
      static_cast<HttpClient*>(parser->data)->call_->reply.append(at, size);
      return 0;
    };
    settings_.on_message_complete = [](llhttp_t* parser) {
      static_cast<HttpClient*>(parser->data)->complete_ = true;
      return static_cast<int>(HPE_PAUSED);
    };
  }
  ~HttpClient() override {
    if (fd_ >= 0) {
      close(fd_);
    }
  }

  bool Connect() override {
    if (fd_ >= 0) {
      close(fd_);
    }
    fd_ = ConnectLoopback(port_);
    ++connects_;
    llhttp_init(&parser_, HTTP_RESPONSE, &settings_);
    parser_.data = this;
    return fd_ >= 0;
  }

  bool HasRoom() const override { return call_ == nullptr; }

  void Send(Call* call) override {
    call_ = call;
    sent_ = 0;
  }

  bool wants_write() const override { return call_ != nullptr && sent_ < text_.size(); }

  bool Flush() override {
    while (wants_write()) {
      const ssize_t sent = send(fd_, text_.data() + sent_, text_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0) {
        sent_ += static_cast<size_t>(sent);
      } else if (errno == EAGAIN) {
        return true;
      } else if (!Reopen()) {
        return false;
      }
    }
    return true;
  }

  bool Receive() override {
    static std::vector<char> scratch(kReadBytes);
    const ssize_t got = recv(fd_, scratch.data(), scratch.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
      return true;
    }
    if (got <= 0) {
      if (call_ != nullptr) {
        llhttp_finish(&parser_);  // a body without a length ends with the connection
      }
      return complete_ ? Complete(false) : Reopen();
    }
    if (call_ == nullptr) {
      return Reopen();  // bytes that nobody asked for
    }
    const llhttp_errno_t error = llhttp_execute(&parser_, scratch.data(), static_cast<size_t>(got));
    if (complete_) {
      return Complete(llhttp_should_keep_alive(&parser_) != 0);
    }
    return error == HPE_OK || Reopen();
  }

 private:
  bool Complete(bool keep_alive) {
    complete_ = false;
    const int status = parser_.status_code;
    End(status == 200 ? "" : "http " + std::to_string(status), keep_alive);
    return fd_ >= 0;
  }

  // The call that was in flight has failed with the connection.
  bool Reopen() {
    if (call_ != nullptr && sent_ > 0) {
      End("closed", false);
      return fd_ >= 0;
    }
    return Connect();
  }

  // The connection is ready for the next call before on_done_, which may bring it.
  void End(std::string error, bool keep_alive) {
    Call* call = call_;
    call_ = nullptr;
    call->error = std::move(error);
    if (keep_alive) {
      llhttp_init(&parser_, HTTP_RESPONSE, &settings_);
      parser_.data = this;
    } else {
      Connect();
    }
    on_done_(this, call);
  }

  const int port_;
  const OnDone on_done_;
  std::string text_;
  llhttp_settings_t settings_;
  llhttp_t parser_;
  Call* call_ = nullptr;
  size_t sent_ = 0;
  bool complete_ = false;
};

}  // namespace

std::unique_ptr<Client> MakeHttpClient(int port, const Request& request, Client::OnDone on_done) {
  return std::make_unique<HttpClient>(port, request, std::move(on_done));
}

}  // namespace msserving::load
