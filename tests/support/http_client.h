// A plain HTTP/1.1 client for tests: sends the bytes it is told to, and reads one reply after another.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

#include "loopback.h"

namespace msserving {

struct HttpReply {
  int status = 0;  // 0: the connection ended before a reply
  std::string reason;
  std::map<std::string, std::string> headers;
  std::string body;
};

class HttpClient {
 public:
  explicit HttpClient(int port) {
    fd_ = ConnectTo(port);
    EXPECT_GE(fd_, 0);
    const timeval timeout{20, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    const int one = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  }
  ~HttpClient() { Close(); }
  HttpClient(const HttpClient&) = delete;

  void Close() {
    if (fd_ >= 0) {
      close(fd_);
      fd_ = -1;
    }
  }
  // With a reset instead of an orderly end.
  void Abort() {
    const linger hard{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    Close();
  }
  void EndInput() { shutdown(fd_, SHUT_WR); }

  bool Send(std::string_view bytes) { return SendAll(fd_, bytes); }

  static std::string Post(std::string_view target, std::string_view body, std::string_view headers = {}) {
    return "POST " + std::string(target) + " HTTP/1.1\r\nHost: test\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n" + std::string(headers) + "\r\n" + std::string(body);
  }

  HttpReply Call(std::string_view request, bool head = false) {
    Send(request);
    return Read(head);
  }

  HttpReply Read(bool head = false) {
    HttpReply reply;
    const std::string first = Line();
    if (first.substr(0, 9) != "HTTP/1.1 ") {
      EXPECT_EQ(first, "");
      return reply;
    }
    reply.status = std::atoi(first.c_str() + 9);
    reply.reason = first.size() > 13 ? first.substr(13) : "";
    for (std::string line = Line(); !line.empty(); line = Line()) {
      const size_t colon = line.find(": ");
      EXPECT_NE(colon, std::string::npos) << line;
      EXPECT_FALSE(reply.headers.contains(line.substr(0, colon))) << line;
      reply.headers[line.substr(0, colon)] = line.substr(colon + 2);
    }
    const size_t size = reply.headers.contains("Content-Length") ? std::stoul(reply.headers["Content-Length"]) : 0;
    while (!head && received_.size() < size && Receive()) {
    }
    if (!head) {
      reply.body = received_.substr(0, size);
      received_.erase(0, size);
    }
    return reply;
  }

  // Nothing more comes, and the server has closed.
  bool AtEnd() { return received_.empty() && !Receive(); }
  // Something is there to read within this time.
  bool HasInput(int milliseconds) {
    const timeval brief{milliseconds / 1000, milliseconds % 1000 * 1000};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
    const bool something = !received_.empty() || Receive();
    const timeval timeout{20, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    return something;
  }

 private:
  bool Receive() {
    char bytes[65536];
    const ssize_t got = recv(fd_, bytes, sizeof(bytes), 0);
    if (got <= 0) {
      return false;
    }
    received_.append(bytes, static_cast<size_t>(got));
    return true;
  }

  std::string Line() {
    for (size_t from = 0;;) {
      const size_t end = received_.find("\r\n", from);
      if (end != std::string::npos) {
        std::string line = received_.substr(0, end);
        received_.erase(0, end + 2);
        return line;
      }
      from = received_.empty() ? 0 : received_.size() - 1;
      if (!Receive()) {
        return "";
      }
    }
  }

  int fd_ = -1;
  std::string received_;
};

}  // namespace msserving
