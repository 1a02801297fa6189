#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <sstream>
#include <thread>

#include "base/log_event.h"
#include "server/signals.h"

namespace msserving {
namespace {

constexpr int64_t kPollNs = 5 * kNanosPerMilli;
constexpr int64_t kWorkerGraceNs = 10 * kNanosPerSecond;

}  // namespace

Server::Server(ServerOptions options) : front_end_(options.front_end), supervisor_(&front_end_, options.supervisor) {}

Server::~Server() { Stop(0); }

Status Server::Start() {
  if (Status status = front_end_.Start(); !status.ok()) {
    return status;
  }
  supervisor_.Start();
  return Status::Ok();
}

Status Server::MakeTls(const ListenOptions& options, bool http2, std::shared_ptr<TlsContext>* context) {
  if (!options.tls) {
    return Status::Ok();
  }
  TlsOptions tls = options.tls_options;
  tls.http2 = http2;
  return TlsContext::Create(tls, context);
}

Status Server::StartGrpc(const std::string& address, const ListenOptions& options) {
  const std::lock_guard<std::mutex> lock(start_mutex_);
  if (stopped_) {
    return Status(ErrorKind::kInvalidInput, "the server is stopping");
  }
  if (front_end_.has_grpc()) {
    return Status(ErrorKind::kInvalidInput, "the gRPC server is already running; call stop() first");
  }
  std::shared_ptr<TlsContext> tls;
  if (Status status = MakeTls(options, true, &tls); !status.ok()) {
    return status;
  }
  GrpcServerOptions grpc;
  grpc.max_receive_bytes = static_cast<size_t>(options.max_msg_mb_size) << 20;
  grpc.max_send_bytes = grpc.max_receive_bytes;
  const EndpointLimits& limits = options.limits;
  grpc.max_concurrent_streams = limits.max_streams_per_connection;
  grpc.max_connections = limits.max_connections;
  grpc.max_header_bytes = limits.max_header_bytes;
  grpc.incomplete_timeout_ns = limits.request_timeout_ns;
  grpc.slow_reader_timeout_ns = limits.reply_timeout_ns;
  grpc.idle_timeout_ns = std::max<int64_t>(0, limits.idle_timeout_ns);
  grpc.max_resets_per_second = limits.max_resets_per_second;
  grpc.connection_bytes_share = limits.connection_bytes_share;
  grpc.max_control_frames_per_second = limits.max_control_frames_per_second;
  return front_end_.StartGrpc(address, grpc, tls);
}

Status Server::StartRest(const std::string& address, const ListenOptions& options) {
  const std::lock_guard<std::mutex> lock(start_mutex_);
  if (stopped_) {
    return Status(ErrorKind::kInvalidInput, "the server is stopping");
  }
  if (front_end_.has_rest()) {
    return Status(ErrorKind::kInvalidInput, "the RESTful server is already running; call stop() first");
  }
  std::shared_ptr<TlsContext> tls;
  if (Status status = MakeTls(options, false, &tls); !status.ok()) {
    return status;
  }
  HttpServerOptions http;
  http.max_body_bytes = static_cast<size_t>(options.max_msg_mb_size) << 20;
  const EndpointLimits& limits = options.limits;
  http.max_connections = limits.max_connections;
  http.max_pipelined = limits.max_pipelined_requests;
  http.max_header_bytes = limits.max_header_bytes;
  http.incomplete_timeout_ns = limits.request_timeout_ns;
  http.connection_bytes_share = limits.connection_bytes_share;
  http.slow_reader_timeout_ns = limits.reply_timeout_ns;
  if (limits.idle_timeout_ns >= 0) {
    http.idle_timeout_ns = limits.idle_timeout_ns;
  }
  return front_end_.StartRest(address, http, tls);
}

void Server::Stop(int64_t drain_ns) {
  const std::lock_guard<std::mutex> stop_lock(stop_mutex_);
  {
    const std::lock_guard<std::mutex> lock(start_mutex_);
    if (stopped_) {
      return;
    }
    stopped_ = true;
  }
  // The first signal may be why we are here.
  const int signals_before = std::min(1, SeenStopSignals().count);
  const auto hurried = [signals_before] { return SeenStopSignals().count > signals_before; };
  LogEvent(LogLevel::kInfo, "server_stopping").With("drain_ms", drain_ns / kNanosPerMilli);
  front_end_.Drain();
  const int64_t until = RealClock().NowNs() + drain_ns;
  while (front_end_.Calls() > 0 && RealClock().NowNs() < until && !hurried()) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(kPollNs));
  }
  if (const size_t calls = front_end_.Calls(); calls > 0) {
    LogEvent(LogLevel::kWarning, "drain_timeout").With("unanswered", calls).With("hurried", hurried() ? 1 : 0);
  }
  supervisor_.Stop(hurried() ? 0 : kWorkerGraceNs, hurried);
  const std::lock_guard<std::mutex> lock(loops_mutex_);
  front_end_.Stop();
  LogEvent(LogLevel::kInfo, "server_stopped");
}

std::string Server::Stats() {
  FrontEnd::Stats stats;
  {
    const std::lock_guard<std::mutex> lock(loops_mutex_);
    stats = front_end_.CollectStats();
  }
  std::ostringstream json;
  json << "{\"accepted\":" << stats.accepted << ",\"answered\":" << stats.answered
       << ",\"cancelled\":" << stats.cancelled << ",\"refused\":" << stats.refused
       << ",\"redispatched\":" << stats.redispatched << ",\"lost_worker\":" << stats.lost_worker
       << ",\"pending\":" << stats.pending << ",\"bytes_in_flight\":" << stats.bytes_in_flight << ",\"workers\":[";
  const char* separator = "";
  for (const auto& worker : supervisor_.Workers()) {
    json << separator << "{\"label\":\"";
    for (const char c : worker.label) {
      if (c == '"' || c == '\\') {
        json << '\\';
      }
      json << (static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
    }
    json << "\",\"state\":\"" << worker.state << "\",\"pid\":" << worker.pid << ",\"restarts\":" << worker.restarts
         << "}";
    separator = ",";
  }
  json << "]}";
  return json.str();
}

}  // namespace msserving
