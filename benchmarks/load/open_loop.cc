// A load generator for unary gRPC that does not slow down with the server: requests leave when the schedule says so,
// and a request's time counts from then. Closed-loop, too, to find the peak. Prints one line of JSON.
//   open_loop --port N --body FILE --reply-bytes N (--rate R | --in-flight N) [--connections 32] [--seconds 5]
//             [--warm-up 1] [--deadline-ms N]
// The body is the HTTP body, with gRPC's five bytes of prefix; a reply of another length or with an error is no
// goodput.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "protocol/wire.h"

namespace msserving {
namespace {

constexpr int64_t kTickNs = 500 * kNanosPerMicro;      // the open loop's grain
constexpr int64_t kPatienceNs = 30 * kNanosPerSecond;  // for what is still in flight at the end

struct Options {
  int port = 0;
  std::string body;
  size_t reply_bytes = 0;
  double rate = 0;       // of an open loop, a second
  size_t in_flight = 0;  // of a closed one
  size_t connections = 32;
  double seconds = 5;
  double warm_up = 1;
  int deadline_ms = 0;
};

struct Stream {
  int64_t due_ns = 0;
  std::string reply;
  std::string status;
  size_t sent = 0;
};

struct Connection {
  int fd = -1;
  nghttp2_session* session = nullptr;
  std::string out;
  size_t out_sent = 0;
  bool wants_write = false;
  bool dirty = false;
};

struct Results {
  uint64_t sent = 0;
  uint64_t right = 0;
  std::map<std::string, uint64_t> errors;
  std::vector<uint32_t> accepted_us;
  std::vector<uint32_t> refused_us;
};

class Generator {
 public:
  explicit Generator(Options options) : options_(std::move(options)) {}

  // False: the server is not there, or a connection broke.
  bool Run();
  void Print() const;

 private:
  bool Connect();
  void Submit(int64_t due_ns);
  bool Flush(Connection* connection);
  bool FlushDirty();
  bool Poll(int64_t until_ns);
  void Finish(Stream* stream, uint32_t code);
  std::string OutcomeOf(const Stream& stream, uint32_t code) const;
  void MarkDirty(Connection* connection);
  bool Counted(int64_t due_ns) const { return due_ns >= measure_from_ns_ && due_ns < measure_until_ns_; }

  static ssize_t ReadBody(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*, nghttp2_data_source*, void*);
  static int OnData(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*, size_t, uint8_t,
                      void*);
  static int OnStreamClose(nghttp2_session*, int32_t, uint32_t, void*);

  Options options_;
  std::string deadline_;
  int epoll_ = -1;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> dirty_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<Stream*> idle_;
  size_t next_ = 0;
  size_t flying_ = 0;
  int64_t measure_from_ns_ = 0;
  int64_t measure_until_ns_ = 0;
  double measured_seconds_ = 0;
  Results results_;
};

nghttp2_nv Header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

ssize_t Generator::ReadBody(nghttp2_session*, int32_t, uint8_t* to, size_t limit, uint32_t* flags,
                            nghttp2_data_source* source, void* user) {
  auto* stream = static_cast<Stream*>(source->ptr);
  const std::string& body = static_cast<Generator*>(user)->options_.body;
  const size_t size = std::min(limit, body.size() - stream->sent);
  std::memcpy(to, body.data() + stream->sent, size);
  stream->sent += size;
  if (stream->sent == body.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
  }
  return static_cast<ssize_t>(size);
}

int Generator::OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void*) {
  if (auto* stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id))) {
    stream->reply.append(reinterpret_cast<const char*>(data), size);
  }
  return 0;
}

int Generator::OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                        const uint8_t* value, size_t value_size, uint8_t, void*) {
  if (std::string_view(reinterpret_cast<const char*>(name), name_size) == "grpc-status") {
    if (auto* stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id))) {
      stream->status.assign(reinterpret_cast<const char*>(value), value_size);
    }
  }
  return 0;
}

int Generator::OnStreamClose(nghttp2_session* session, int32_t id, uint32_t code, void* user) {
  if (auto* stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id))) {
    static_cast<Generator*>(user)->Finish(stream, code);
  }
  return 0;
}

bool Generator::Connect() {
  nghttp2_session_callbacks* callbacks;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, &OnHeader);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &OnStreamClose);
  nghttp2_option* options;
  nghttp2_option_new(&options);
  nghttp2_option_set_no_closed_streams(options, 1);
  nghttp2_option_set_peer_max_concurrent_streams(options, 1024);
  epoll_ = epoll_create1(0);
  for (size_t i = 0; i < options_.connections; ++i) {
    auto connection = std::make_unique<Connection>();
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(options_.port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(connection->fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      std::perror("connect");
      return false;
    }
    const int one = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    nghttp2_session_client_new2(&connection->session, callbacks, this, options);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1u << 30}};
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, std::size(settings));
    nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, 1 << 30);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = connection.get();
    epoll_ctl(epoll_, EPOLL_CTL_ADD, connection->fd, &event);
    connections_.push_back(std::move(connection));
    MarkDirty(connections_.back().get());
  }
  nghttp2_option_del(options);
  nghttp2_session_callbacks_del(callbacks);
  return FlushDirty();
}

void Generator::MarkDirty(Connection* connection) {
  if (!connection->dirty) {
    connection->dirty = true;
    dirty_.push_back(connection);
  }
}

void Generator::Submit(int64_t due_ns) {
  Connection* connection = connections_[next_++ % connections_.size()].get();
  if (idle_.empty()) {
    streams_.push_back(std::make_unique<Stream>());
    idle_.push_back(streams_.back().get());
  }
  Stream* stream = idle_.back();
  idle_.pop_back();
  stream->due_ns = due_ns;
  const nghttp2_nv headers[] = {Header(":method", "POST"),
                                Header(":scheme", "http"),
                                Header(":path", "/mindspore.serving.proto.MSService/Predict"),
                                Header(":authority", "load"),
                                Header("content-type", "application/grpc"),
                                Header("te", "trailers"),
                                Header("grpc-timeout", deadline_)};
  nghttp2_data_provider provider;
  provider.source.ptr = stream;
  provider.read_callback = &ReadBody;
  nghttp2_submit_request(connection->session, nullptr, headers, std::size(headers) - (deadline_.empty() ? 1 : 0),
                         &provider, stream);
  ++flying_;
  results_.sent += Counted(due_ns) ? 1 : 0;
  MarkDirty(connection);
}

std::string Generator::OutcomeOf(const Stream& stream, uint32_t code) const {
  if (code != 0) {
    return "reset " + std::to_string(code);
  }
  if (stream.status != "0") {
    return "status " + stream.status;
  }
  if (stream.reply.size() == options_.reply_bytes) {
    return "";
  }
  // PredictReply has error_msg 4 {error_code 1}.
  const auto* bytes = reinterpret_cast<const uint8_t*>(stream.reply.data());
  std::span<const uint8_t> error;
  for (wire::Reader reader({bytes + 5, stream.reply.size() - 5}); !reader.done();) {
    uint32_t tag;
    if (!reader.ReadTag(&tag) ||
        (wire::TypeOf(tag) == wire::Type::kBytes ? !reader.ReadBytes(&error) : !reader.Skip(tag))) {
      return "damaged";
    }
    if (tag == wire::Tag(4, wire::Type::kBytes)) {
      wire::Reader inner(error);
      uint64_t number = 0;
      return inner.ReadTag(&tag) && inner.ReadVarint(&number) ? "code " + std::to_string(number) : "damaged";
    }
  }
  return "wrong length";
}

void Generator::Finish(Stream* stream, uint32_t code) {
  const int64_t now_ns = RealClock().NowNs();
  const std::string outcome = OutcomeOf(*stream, code);
  const auto took_us = static_cast<uint32_t>((now_ns - stream->due_ns) / kNanosPerMicro);
  // Goodput is what comes in the time that is measured; latencies are those of requests that were due in it.
  results_.right += outcome.empty() && Counted(now_ns) ? 1 : 0;
  if (Counted(stream->due_ns)) {
    (outcome.empty() ? results_.accepted_us : results_.refused_us).push_back(took_us);
    if (!outcome.empty()) {
      ++results_.errors[outcome];
    }
  }
  stream->reply.clear();
  stream->status.clear();
  stream->sent = 0;
  idle_.push_back(stream);
  --flying_;
  if (options_.in_flight > 0 && now_ns < measure_until_ns_) {
    Submit(now_ns);
  }
}

bool Generator::Flush(Connection* connection) {
  const uint8_t* bytes;
  ssize_t size;
  while ((size = nghttp2_session_mem_send(connection->session, &bytes)) > 0) {
    connection->out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
  }
  while (connection->out_sent < connection->out.size()) {
    const ssize_t sent = send(connection->fd, connection->out.data() + connection->out_sent,
                              connection->out.size() - connection->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) {
      return false;
    }
    if (sent < 0) {
      break;
    }
    connection->out_sent += static_cast<size_t>(sent);
  }
  const bool pending = connection->out_sent < connection->out.size();
  if (!pending) {
    connection->out.clear();
    connection->out_sent = 0;
  }
  if (pending != connection->wants_write) {
    connection->wants_write = pending;
    epoll_event event{};
    event.events = EPOLLIN | (pending ? EPOLLOUT : 0u);
    event.data.ptr = connection;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->fd, &event);
  }
  return true;
}

bool Generator::FlushDirty() {
  bool good = true;
  for (size_t i = 0; i < dirty_.size(); ++i) {
    dirty_[i]->dirty = false;
    good = Flush(dirty_[i]) && good;
  }
  dirty_.clear();
  return good;
}

// Reads what has come, and sleeps until something comes or until_ns.
bool Generator::Poll(int64_t until_ns) {
  static std::vector<uint8_t> scratch(256 << 10);
  epoll_event events[256];
  const int64_t wait_ns = std::max<int64_t>(0, until_ns - RealClock().NowNs());
  const timespec wait{wait_ns / kNanosPerSecond, wait_ns % kNanosPerSecond};
  const int count = epoll_pwait2(epoll_, events, std::size(events), &wait, nullptr);
  for (int i = 0; i < count; ++i) {
    auto* connection = static_cast<Connection*>(events[i].data.ptr);
    if ((events[i].events & EPOLLIN) != 0) {
      const ssize_t got = recv(connection->fd, scratch.data(), scratch.size(), MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN) ||
          (got > 0 && nghttp2_session_mem_recv(connection->session, scratch.data(), static_cast<size_t>(got)) < 0)) {
        std::fprintf(stderr, "a connection was closed by the server\n");
        return false;
      }
    }
    MarkDirty(connection);
  }
  return FlushDirty();
}

bool Generator::Run() {
  if (!Connect()) {
    return false;
  }
  deadline_ = options_.deadline_ms > 0 ? std::to_string(options_.deadline_ms) + "m" : "";
  const int64_t start_ns = RealClock().NowNs();
  measure_from_ns_ = start_ns + static_cast<int64_t>(options_.warm_up * kNanosPerSecond);
  measure_until_ns_ = measure_from_ns_ + static_cast<int64_t>(options_.seconds * kNanosPerSecond);
  measured_seconds_ = options_.seconds;
  for (size_t i = 0; i < options_.in_flight; ++i) {
    Submit(start_ns);
  }
  double scheduled = 0;
  for (int64_t now_ns = start_ns; now_ns < measure_until_ns_; now_ns = RealClock().NowNs()) {
    const double due = options_.rate * static_cast<double>(now_ns - start_ns) / kNanosPerSecond;
    for (; scheduled < due; scheduled += 1) {
      Submit(start_ns + static_cast<int64_t>(scheduled / options_.rate * kNanosPerSecond));
    }
    if (!FlushDirty() || !Poll(options_.rate > 0 ? now_ns + kTickNs : measure_until_ns_)) {
      return false;
    }
  }
  const int64_t give_up_ns = RealClock().NowNs() + kPatienceNs;
  while (flying_ > 0 && RealClock().NowNs() < give_up_ns) {
    if (!Poll(give_up_ns)) {
      return false;
    }
  }
  return true;
}

uint32_t Percentile(std::vector<uint32_t> values, double share) {
  if (values.empty()) {
    return 0;
  }
  const auto at = std::min(values.size() - 1, static_cast<size_t>(static_cast<double>(values.size()) * share));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at), values.end());
  return values[at];
}

void Generator::Print() const {
  std::ostringstream errors;
  for (const auto& [kind, count] : results_.errors) {
    errors << (errors.tellp() > 0 ? ", " : "") << '"' << kind << "\": " << count;
  }
  std::printf(
      "{\"sent\": %llu, \"sent_rate\": %.1f, \"goodput\": %.1f, \"accepted\": %zu, \"accepted_p50_us\": %u, "
      "\"accepted_p99_us\": %u, \"refused\": %zu, \"refused_p50_us\": %u, \"refused_p99_us\": %u, \"unanswered\": %zu, "
      "\"errors\": {%s}}\n",
      static_cast<unsigned long long>(results_.sent), static_cast<double>(results_.sent) / measured_seconds_,
      static_cast<double>(results_.right) / measured_seconds_, results_.accepted_us.size(),
      Percentile(results_.accepted_us, 0.5), Percentile(results_.accepted_us, 0.99), results_.refused_us.size(),
      Percentile(results_.refused_us, 0.5), Percentile(results_.refused_us, 0.99), flying_, errors.str().c_str());
}

bool Parse(int argc, char** argv, Options* options) {
  std::map<std::string_view, const char*> values;
  for (int i = 1; i + 1 < argc; i += 2) {
    values[argv[i]] = argv[i + 1];
  }
  const auto number = [&values](std::string_view name, double otherwise) {
    const auto found = values.find(name);
    return found == values.end() ? otherwise : std::atof(found->second);
  };
  if (values.contains("--body")) {
    std::ifstream file(values["--body"], std::ios::binary);
    options->body.assign(std::istreambuf_iterator<char>(file), {});
  }
  options->port = static_cast<int>(number("--port", 0));
  options->reply_bytes = static_cast<size_t>(number("--reply-bytes", 0));
  options->rate = number("--rate", 0);
  options->in_flight = static_cast<size_t>(number("--in-flight", 0));
  options->connections = static_cast<size_t>(number("--connections", 32));
  options->seconds = number("--seconds", 5);
  options->warm_up = number("--warm-up", 1);
  options->deadline_ms = static_cast<int>(number("--deadline-ms", 0));
  return options->port > 0 && options->body.size() > 5 && options->reply_bytes > 5 && options->connections > 0 &&
         (options->rate > 0) != (options->in_flight > 0);
}

}  // namespace
}  // namespace msserving

int main(int argc, char** argv) {
  msserving::Options options;
  if (!msserving::Parse(argc, argv, &options)) {
    std::fprintf(stderr, "open_loop: see the head of its source\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  msserving::Generator generator(std::move(options));
  if (!generator.Run()) {
    return 1;
  }
  generator.Print();
  return 0;
}
