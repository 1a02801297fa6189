// The load generator of all comparisons: unary gRPC or HTTP/1.1, closed or open loop. Prints one line of JSON.
//   load_generator --port N --body FILE --reply-bytes N (--rate R | --in-flight N)
//                  [--protocol grpc|http] [--path /...] [--headers FILE] [--connections 32] [--seconds 5] [--warm-up 1]
//                  [--deadline-ms N] [--patience 30] [--reply-slack 0] [--samples FILE] [--pids P,P,...] [--polls 1]
//
// Open loop (--rate): requests leave when the schedule says so, however slow the server is, and a request's time counts
// from the moment it was due: a stall is seen by all requests that were due in it. Over HTTP/1.1 a request that finds
// no idle connection waits, and its clock runs.
// Closed loop (--in-flight): the next request leaves when one comes back, on the same connection.
// --polls 1: looks for answers without sleeping, so that waking this process, and its processor, is in no one's time.
//
// The body is the HTTP body, for gRPC with its five bytes of prefix. A reply of another length (beyond --reply-slack)
// or with an error is no goodput. --headers has a `name: value` a line. --samples keeps some of the replies, each after
// its length as 32 bits little-endian, for whoever can check what they say. --pids are the server's processes: their
// processor time within the measured seconds is counted.
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "load/clients/client.h"
#include "protocol/wire.h"

namespace msserving::load {
namespace {

constexpr int64_t kGrainNs = 20 * kNanosPerMicro;  // an open loop looks at its schedule no more often than this
constexpr size_t kSamples = 16;
constexpr uint64_t kSampleEvery = 97;

struct Options {
  int port = 0;
  bool http = false;
  Request request;
  size_t reply_bytes = 0;
  size_t reply_slack = 0;
  double rate = 0;       // of an open loop, a second
  size_t in_flight = 0;  // of a closed one, over all connections
  size_t connections = 32;
  double seconds = 5;
  double warm_up = 1;
  double patience = 30;  // for what is still in flight at the end
  std::string samples;
  bool polls = false;
  std::vector<pid_t> pids;
};

struct Results {
  uint64_t sent = 0;
  uint64_t right = 0;
  std::map<std::string, uint64_t> errors;
  std::vector<uint32_t> accepted_us;
  std::vector<uint32_t> refused_us;
  double server_cpu = 0;  // seconds within the measured time
  double own_cpu = 0;
};

double CpuSeconds(clockid_t clock) {
  timespec time{};
  return clock_gettime(clock, &time) == 0 ? static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9
                                          : 0;
}

class Generator {
 public:
  explicit Generator(Options options) : options_(std::move(options)) {}

  // False: the server is not there, or a connection broke for good.
  bool Run();
  void Print() const;

 private:
  bool Connect();
  // Sends on that client, or on the next one that has room; without one the call waits.
  void Submit(int64_t due_ns, Client* client);
  void Finish(Client* client, Call* call);
  bool FlushDirty();
  bool Poll(int64_t until_ns);
  bool RunUntil(int64_t until_ns);
  void Watch(Client* client);
  void MarkDirty(Client* client);
  Client* WithRoom();
  std::string OutcomeOf(const Call& call) const;
  double ServerCpu() const;
  // When the next request of an open loop leaves.
  int64_t DueNs() const { return start_ns_ + static_cast<int64_t>(scheduled_ / options_.rate * kNanosPerSecond); }
  bool Counted(int64_t due_ns) const { return due_ns >= measure_from_ns_ && due_ns < measure_until_ns_; }

  const Options options_;
  int epoll_ = -1;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<Client*> dirty_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<Call*> idle_;
  std::deque<Call*> waiting_;
  size_t next_ = 0;
  size_t flying_ = 0;
  double scheduled_ = 0;
  int64_t start_ns_ = 0;
  int64_t measure_from_ns_ = 0;
  int64_t measure_until_ns_ = 0;
  std::vector<std::string> kept_;
  Results results_;
};

bool Generator::Connect() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  const auto on_done = [this](Client* client, Call* call) { Finish(client, call); };
  for (size_t i = 0; i < options_.connections; ++i) {
    clients_.push_back(options_.http ? MakeHttpClient(options_.port, options_.request, on_done)
                                     : MakeGrpcClient(options_.port, options_.request, on_done));
    if (!clients_.back()->Connect()) {
      std::perror("connect");
      return false;
    }
    MarkDirty(clients_.back().get());
  }
  return FlushDirty();
}

void Generator::MarkDirty(Client* client) {
  if (!client->dirty) {
    client->dirty = true;
    dirty_.push_back(client);
  }
}

Client* Generator::WithRoom() {
  for (size_t i = 0; i < clients_.size(); ++i) {
    Client* client = clients_[next_++ % clients_.size()].get();
    if (client->HasRoom()) {
      return client;
    }
  }
  return nullptr;
}

void Generator::Submit(int64_t due_ns, Client* client) {
  if (idle_.empty()) {
    calls_.push_back(std::make_unique<Call>());
    idle_.push_back(calls_.back().get());
  }
  Call* call = idle_.back();
  idle_.pop_back();
  call->due_ns = due_ns;
  ++flying_;
  results_.sent += Counted(due_ns) ? 1 : 0;
  if (client == nullptr) {
    client = waiting_.empty() ? WithRoom() : nullptr;
  }
  if (client == nullptr) {
    waiting_.push_back(call);
    return;
  }
  client->Send(call);
  MarkDirty(client);
}

std::string Generator::OutcomeOf(const Call& call) const {
  if (!call.error.empty()) {
    return call.error;
  }
  const size_t size = call.reply.size();
  if (size + options_.reply_slack >= options_.reply_bytes && size <= options_.reply_bytes + options_.reply_slack) {
    return "";
  }
  if (options_.http || size < 5) {
    return "wrong length";
  }
  // MSService: PredictReply has error_msg 4 {error_code 1}.
  const auto* bytes = reinterpret_cast<const uint8_t*>(call.reply.data());
  std::span<const uint8_t> error;
  for (wire::Reader reader({bytes + 5, size - 5}); !reader.done();) {
    uint32_t tag;
    if (!reader.ReadTag(&tag) ||
        (wire::TypeOf(tag) == wire::Type::kBytes ? !reader.ReadBytes(&error) : !reader.Skip(tag))) {
      return "wrong length";
    }
    if (tag == wire::Tag(4, wire::Type::kBytes)) {
      wire::Reader inner(error);
      uint64_t number = 0;
      return inner.ReadTag(&tag) && inner.ReadVarint(&number) ? "code " + std::to_string(number) : "wrong length";
    }
  }
  return "wrong length";
}

void Generator::Finish(Client* client, Call* call) {
  const int64_t now_ns = RealClock().NowNs();
  const std::string outcome = OutcomeOf(*call);
  const auto took_us = static_cast<uint32_t>((now_ns - call->due_ns) / kNanosPerMicro);
  // Goodput is what comes in the time that is measured; latencies are those of requests that were due in it.
  results_.right += outcome.empty() && Counted(now_ns) ? 1 : 0;
  if (Counted(call->due_ns)) {
    (outcome.empty() ? results_.accepted_us : results_.refused_us).push_back(took_us);
    if (!outcome.empty()) {
      ++results_.errors[outcome];
    } else if (!options_.samples.empty() && kept_.size() < kSamples &&
               (results_.accepted_us.size() % kSampleEvery == 1 || call->reply.size() > (1 << 20))) {
      kept_.push_back(call->reply);
    }
  }
  call->reply.clear();
  call->error.clear();
  call->sent = 0;
  idle_.push_back(call);
  --flying_;
  if (!waiting_.empty()) {
    client->Send(waiting_.front());
    waiting_.pop_front();
    MarkDirty(client);
  } else if (options_.in_flight > 0 && now_ns < measure_until_ns_) {
    Submit(now_ns, client);
  }
}

// The poller follows the client's socket and its wish to write.
void Generator::Watch(Client* client) {
  const bool anew = client->polled_connect != client->connects();
  if (!anew && client->polled_for_write == client->wants_write()) {
    return;
  }
  client->polled_connect = client->connects();
  client->polled_for_write = client->wants_write();
  epoll_event event{};
  event.events = EPOLLIN | (client->polled_for_write ? EPOLLOUT : 0u);
  event.data.ptr = client;
  epoll_ctl(epoll_, anew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client->fd(), &event);
}

bool Generator::FlushDirty() {
  for (size_t i = 0; i < dirty_.size(); ++i) {
    Client* client = dirty_[i];
    client->dirty = false;
    if (!client->Flush()) {
      std::perror("a connection was closed by the server");
      return false;
    }
    Watch(client);
  }
  dirty_.clear();
  return true;
}

// Reads what has come, and sleeps until something comes or until_ns; with --polls it returns at once.
bool Generator::Poll(int64_t until_ns) {
  epoll_event events[256];
  const int64_t wait_ns = options_.polls ? 0 : std::max<int64_t>(0, until_ns - RealClock().NowNs());
  const timespec wait{wait_ns / kNanosPerSecond, wait_ns % kNanosPerSecond};
  const int count = epoll_pwait2(epoll_, events, std::size(events), &wait, nullptr);
  for (int i = 0; i < count; ++i) {
    auto* client = static_cast<Client*>(events[i].data.ptr);
    if ((events[i].events & ~EPOLLOUT) != 0 && !client->Receive()) {
      std::fprintf(stderr, "a connection was closed by the server\n");
      return false;
    }
    MarkDirty(client);
  }
  return FlushDirty();
}

bool Generator::RunUntil(int64_t until_ns) {
  for (int64_t now_ns = RealClock().NowNs(); now_ns < until_ns; now_ns = RealClock().NowNs()) {
    const double due = options_.rate * static_cast<double>(now_ns - start_ns_) / kNanosPerSecond;
    for (; scheduled_ < due; scheduled_ += 1) {
      Submit(DueNs(), nullptr);
    }
    const int64_t next_ns = options_.rate > 0 ? std::max(DueNs(), now_ns + kGrainNs) : until_ns;
    if (!FlushDirty() || !Poll(std::min(until_ns, next_ns))) {
      return false;
    }
  }
  return true;
}

double Generator::ServerCpu() const {
  return std::accumulate(options_.pids.begin(), options_.pids.end(), 0.0, [](double sum, pid_t pid) {
    clockid_t clock;
    return sum + (clock_getcpuclockid(pid, &clock) == 0 ? CpuSeconds(clock) : 0);
  });
}

bool Generator::Run() {
  if (!Connect()) {
    return false;
  }
  start_ns_ = RealClock().NowNs();
  measure_from_ns_ = start_ns_ + static_cast<int64_t>(options_.warm_up * kNanosPerSecond);
  measure_until_ns_ = measure_from_ns_ + static_cast<int64_t>(options_.seconds * kNanosPerSecond);
  for (size_t i = 0; i < options_.in_flight; ++i) {
    Submit(start_ns_, clients_[i % clients_.size()].get());
  }
  if (!RunUntil(measure_from_ns_)) {
    return false;
  }
  const double server_before = ServerCpu();
  const double own_before = CpuSeconds(CLOCK_PROCESS_CPUTIME_ID);
  if (!RunUntil(measure_until_ns_)) {
    return false;
  }
  results_.server_cpu = ServerCpu() - server_before;
  results_.own_cpu = CpuSeconds(CLOCK_PROCESS_CPUTIME_ID) - own_before;
  const int64_t give_up_ns = RealClock().NowNs() + static_cast<int64_t>(options_.patience * kNanosPerSecond);
  while (flying_ > 0 && RealClock().NowNs() < give_up_ns) {
    if (!Poll(give_up_ns)) {
      return false;
    }
  }
  std::ofstream samples(options_.samples, std::ios::binary);
  for (const std::string& reply : kept_) {
    const auto size = static_cast<uint32_t>(reply.size());
    samples.write(reinterpret_cast<const char*>(&size), sizeof(size)).write(reply.data(), size);
  }
  return true;
}

std::string Latencies(const char* kind, std::vector<uint32_t> values) {
  std::sort(values.begin(), values.end());
  const auto percentile = [&values](double share) {
    const auto at = static_cast<size_t>(static_cast<double>(values.size()) * share);
    return values.empty() ? 0 : values[std::min(values.size() - 1, at)];
  };
  std::ostringstream text;
  text << '"' << kind << "\": " << values.size();
  for (const auto& [name, share] :
       {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}}) {
    text << ", \"" << kind << '_' << name << "_us\": " << percentile(share);
  }
  return text.str();
}

void Generator::Print() const {
  std::ostringstream errors;
  for (const auto& [kind, count] : results_.errors) {
    errors << (errors.tellp() > 0 ? ", " : "") << '"' << kind << "\": " << count;
  }
  std::printf(
      "{\"sent\": %llu, \"sent_rate\": %.1f, \"goodput\": %.1f, \"right\": %llu, %s, %s, \"unanswered\": %zu, "
      "\"server_cpu_s\": %.6f, \"generator_cpu_s\": %.6f, \"errors\": {%s}}\n",
      static_cast<unsigned long long>(results_.sent), static_cast<double>(results_.sent) / options_.seconds,
      static_cast<double>(results_.right) / options_.seconds, static_cast<unsigned long long>(results_.right),
      Latencies("accepted", results_.accepted_us).c_str(), Latencies("refused", results_.refused_us).c_str(), flying_,
      results_.server_cpu, results_.own_cpu, errors.str().c_str());
}

std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool Parse(int argc, char** argv, Options* options) {
  std::map<std::string_view, const char*> values;
  for (int i = 1; i + 1 < argc; i += 2) {
    values[argv[i]] = argv[i + 1];
  }
  const auto text = [&values](std::string_view name, const char* otherwise) {
    const auto found = values.find(name);
    return found == values.end() ? otherwise : found->second;
  };
  const auto number = [&text](std::string_view name, double otherwise) {
    const char* found = text(name, nullptr);
    return found == nullptr ? otherwise : std::atof(found);
  };
  options->http = std::string_view(text("--protocol", "grpc")) == "http";
  options->request.path = text("--path", "/mindspore.serving.proto.MSService/Predict");
  options->request.body = values.contains("--body") ? ReadFile(values["--body"]) : "";
  options->request.deadline_ms = static_cast<int>(number("--deadline-ms", 0));
  std::istringstream headers(values.contains("--headers") ? ReadFile(values["--headers"]) : "");
  for (std::string line; std::getline(headers, line);) {
    if (const size_t colon = line.find(": "); colon != std::string::npos) {
      options->request.headers.emplace_back(line.substr(0, colon), line.substr(colon + 2));
    }
  }
  std::istringstream pids(text("--pids", ""));
  for (std::string pid; std::getline(pids, pid, ',');) {
    options->pids.push_back(std::atoi(pid.c_str()));
  }
  options->samples = text("--samples", "");
  options->port = static_cast<int>(number("--port", 0));
  options->reply_bytes = static_cast<size_t>(number("--reply-bytes", 0));
  options->reply_slack = static_cast<size_t>(number("--reply-slack", 0));
  options->rate = number("--rate", 0);
  options->in_flight = static_cast<size_t>(number("--in-flight", 0));
  options->connections = static_cast<size_t>(number("--connections", 32));
  options->seconds = number("--seconds", 5);
  options->warm_up = number("--warm-up", 1);
  options->patience = number("--patience", 30);
  options->polls = number("--polls", 0) != 0;
  const bool one_each = !options->http || options->in_flight <= options->connections;
  return options->port > 0 && !options->request.body.empty() && options->reply_bytes > 0 && options->connections > 0 &&
         (options->rate > 0) != (options->in_flight > 0) && one_each;
}

}  // namespace
}  // namespace msserving::load

int main(int argc, char** argv) {
  msserving::load::Options options;
  if (!msserving::load::Parse(argc, argv, &options)) {
    std::fprintf(stderr, "load_generator: see the head of its source\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_TIMERSLACK, 1);  // nanosecond: sleeps end when they should
  msserving::load::Generator generator(std::move(options));
  if (!generator.Run()) {
    return 1;
  }
  generator.Print();
  return 0;
}
