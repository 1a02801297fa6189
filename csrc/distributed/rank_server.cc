#include "distributed/rank_server.h"

#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "base/thread.h"
#include "distributed/rank_session.h"
#include "net/listen.h"

namespace msserving {
namespace {

constexpr int64_t kGreetingNs = 10 * kNanosPerSecond;  // to say who one is
constexpr auto kStopWait = std::chrono::seconds(2);

std::string PortOf(int socket) {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(socket, reinterpret_cast<sockaddr*>(&bound), &size);
  const in_port_t port = bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                     : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
  return std::to_string(ntohs(port));
}

}  // namespace

Status RankServer::Create(RankServerOptions options, std::unique_ptr<RankServer>* server) {
  if (options.rank_size < 1 || options.stage_size < 1 || options.rank_size % options.stage_size != 0) {
    return Status(ErrorKind::kInvalidInput, "rank_size " + std::to_string(options.rank_size) +
                                                " is no multiple of stage_size " + std::to_string(options.stage_size));
  }
  std::unique_ptr<RankServer> made(new RankServer(std::move(options)));
  if (Status status = made->Listen(); !status.ok()) {
    return status;
  }
  if (Status status = made->ListenLocally(); !status.ok()) {
    return status;
  }
  made->ranks_.resize(made->options_.rank_size);
  made->UpdateProgress();
  made->thread_ = StartThread("serving-ranks", [raw = made.get()] { raw->loop_.Run(); });
  *server = std::move(made);
  return Status::Ok();
}

Status RankServer::Listen() {
  const bool any_port = options_.address.ends_with(":0");
  const std::string host = options_.address.substr(0, options_.address.rfind(':'));
  Address address;
  if (Status status = ParseAddress(any_port ? host + ":1" : options_.address, false, &address); !status.ok()) {
    return status;
  }
  if (any_port) {
    address.port = 0;
  }
  if (options_.tls) {
    if (Status status = TlsContext::Create(*options_.tls, &tls_); !status.ok()) {
      return status;
    }
    tls_refresher_ = std::make_unique<TlsRefresher>(&loop_, tls_);
  }
  std::vector<UniqueFd> sockets;
  if (Status status = msserving::Listen(address, 1, &sockets); !status.ok()) {
    return status;
  }
  address_ = host + ":" + PortOf(sockets[0].get());
  acceptor_ = std::make_unique<Acceptor>(&loop_, std::move(sockets[0]), [this](UniqueFd fd) { Accept(std::move(fd)); });
  return Status::Ok();
}

RankServer::~RankServer() {
  if (thread_.joinable()) {
    Stop("the worker ends");
    loop_.Stop();
    thread_.join();
  }
  for (auto& [connection, peer] : peers_) {
    delete connection;
  }
}

RankServer::State RankServer::WaitReady(int64_t timeout_ns, std::string* text) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return state_ != State::kGathering; });
  *text = text_;
  return state_;
}

std::string RankServer::Progress() {
  std::lock_guard lock(mutex_);
  return progress_;
}

std::vector<RankDescription> RankServer::Describe() {
  std::lock_guard lock(mutex_);
  return descriptions_;
}

std::string RankServer::Failure() {
  std::lock_guard lock(mutex_);
  return was_ready_ && state_ == State::kFailed ? text_ : "";
}

Status RankServer::MakeSession(uint32_t subgraph, std::shared_ptr<Session>* session) {
  std::lock_guard lock(mutex_);
  if (!was_ready_) {
    return Status(ErrorKind::kInternal, "the ranks are not ready yet");
  }
  if (subgraph >= subgraphs_.size()) {
    return Status(ErrorKind::kInvalidInput, "the ranks have " + std::to_string(subgraphs_.size()) +
                                                " sub-graphs; there is no sub-graph " + std::to_string(subgraph));
  }
  *session = std::make_shared<RankSession>(runner_, subgraph, subgraphs_[subgraph]);
  return Status::Ok();
}

void RankServer::WhenFailed(std::function<void()> function) {
  {
    std::lock_guard lock(mutex_);
    if (!was_ready_ || state_ != State::kFailed) {
      when_failed_ = std::move(function);
      return;
    }
  }
  if (function) {
    function();
  }
}

void RankServer::Stop(const std::string& reason) {
  loop_.Post([this, reason] {
    stopping_ = true;
    acceptor_.reset();
    FrameWriter body;
    body.ShortText(reason);
    for (auto& [connection, peer] : peers_) {
      if (peer.dropped) {
        continue;
      }
      peer.dropped = true;
      if (peer.role == Role::kNone) {
        connection->End("stopped");
        continue;
      }
      connection->Send(FrameKind::kStop, body.body());
      connection->EndWhenSent("stopped");
    }
    if (runner_ != nullptr) {
      runner_->Fail("the servable has been stopped: " + reason);
    }
    TellIfAllGone();
  });
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kStopWait, [this] { return all_gone_; });
}

void RankServer::Accept(UniqueFd socket) {
  if (peers_.size() >= size_t{4} * options_.rank_size + 64) {
    return;  // nobody needs so many
  }
  FrameConnectionOptions options;
  options.heartbeat_ns = options_.heartbeat_ns;
  options.silence_ns = options_.silence_ns;
  auto* connection = new FrameConnection(&loop_, std::move(socket), tls_, this, options);
  Peer& peer = peers_[connection];
  ExpectSoon(connection, &peer, kGreetingNs, "it did not say who it is");
  connection->Begin();
}

void RankServer::ExpectSoon(FrameConnection* connection, Peer* peer, int64_t within_ns, const char* otherwise) {
  loop_.CancelTimer(peer->greeting_timer);
  peer->greeting_timer = loop_.AddTimer(loop_.now_ns() + within_ns, [this, connection, otherwise] {
    peers_[connection].greeting_timer = 0;
    connection->End(otherwise);
  });
}

void RankServer::SetState(State state, const std::string& text) {
  std::function<void()> tell;
  {
    std::lock_guard lock(mutex_);
    if (was_ready_ && state == State::kFailed) {
      tell = std::move(when_failed_);
    }
    was_ready_ = was_ready_ || state == State::kReady;
    state_ = state;
    text_ = text;
  }
  changed_.notify_all();
  if (tell) {
    tell();
  }
}

void RankServer::UpdateProgress() {
  std::vector<uint32_t> unclaimed;
  std::vector<uint32_t> loading;
  uint32_t ready = 0;
  for (uint32_t i = 0; i < ranks_.size(); ++i) {
    if (ranks_[i].launcher == nullptr) {
      unclaimed.push_back(i);
    } else if (ranks_[i].models.empty() && launched_) {
      loading.push_back(i);
    } else if (!ranks_[i].models.empty()) {
      ++ready;
    }
  }
  std::string text = std::to_string(ready) + " of " + std::to_string(ranks_.size()) + " ranks are ready";
  const auto named = [](const std::vector<uint32_t>& ranks) {
    return (ranks.size() == 1 ? "rank " : "ranks ") + ListText(ranks);
  };
  if (!unclaimed.empty()) {
    text += "; no launcher has claimed " + named(unclaimed);
  }
  if (!loading.empty()) {
    text += "; " + named(loading) + (loading.size() == 1 ? " is" : " are") + " loading";
  }
  std::lock_guard lock(mutex_);
  progress_ = std::move(text);
}

// The end.

void RankServer::Miss(const std::string& why, int rank) {
  if (!launched_ || stopping_ || trouble_timer_ != 0) {
    return;  // what comes after the first trouble follows from it
  }
  trouble_ = why;
  trouble_rank_ = rank;
  other_death_.clear();
  const bool somebody_knows = rank >= 0 && ranks_[static_cast<size_t>(rank)].launcher != nullptr;
  trouble_timer_ = loop_.AddTimer(loop_.now_ns() + (somebody_knows ? options_.obituary_ns : 0), [this] {
    trouble_timer_ = 0;
    Settle();
  });
}

void RankServer::Settle() {
  if (ready_) {
    FailGroup(trouble_);
  } else if (!other_death_.empty()) {
    FailGroup(other_death_);  // two died together, and a launcher tells of one
  } else {
    GatherAnew(trouble_);
  }
}

void RankServer::DropAll() {
  loop_.CancelTimer(trouble_timer_);
  trouble_timer_ = 0;
  for (auto& [connection, peer] : peers_) {
    peer.dropped = true;
    connection->End("the ranks gather anew");
  }
  for (Rank& rank : ranks_) {
    rank = Rank();
  }
  greeting_.clear();
  launched_ = false;
  token_.clear();
}

void RankServer::GatherAnew(const std::string& why) {
  MSSERVING_LOG(kWarning, "The ranks gather anew: " << why);
  DropAll();
  {
    std::lock_guard lock(mutex_);
    runner_.reset();
    descriptions_.clear();
    subgraphs_.clear();
  }
  UpdateProgress();
}

void RankServer::FailGroup(const std::string& why) {
  if (stopping_) {
    return;
  }
  MSSERVING_LOG(kError, "The ranks have failed: " << why);
  stopping_ = true;
  acceptor_.reset();
  DropAll();
  UpdateProgress();
  SetState(State::kFailed, why);
  if (runner_ != nullptr) {
    runner_->Fail(why);
  }
  TellIfAllGone();
}

void RankServer::FailRank(const std::string& why, int rank) {
  if (trouble_timer_ != 0) {
    return;  // the group is about to fail, for a reason that came first
  }
  FrameConnection* const launcher = rank < 0 ? nullptr : ranks_[static_cast<size_t>(rank)].launcher;
  if (launcher == nullptr) {
    FailGroup(why);
    return;
  }
  FrameWriter wanted;
  wanted.U32(static_cast<uint32_t>(rank));
  launcher->Send(FrameKind::kLogWanted, wanted.body());
  Miss(why, rank);
}

void RankServer::TellIfAllGone() {
  if (!stopping_ || !peers_.empty()) {
    return;
  }
  {
    std::lock_guard lock(mutex_);
    all_gone_ = true;
  }
  changed_.notify_all();
}

void RankServer::OnGone(FrameConnection* connection, const std::string& why) {
  const auto found = peers_.find(connection);
  const Peer peer = std::move(found->second);
  loop_.CancelTimer(peer.greeting_timer);
  peers_.erase(found);
  delete connection;
  if (peer.dropped) {
    TellIfAllGone();
    return;
  }
  if (peer.role == Role::kAgent) {
    Rank& rank = ranks_[peer.rank];
    rank.agent = nullptr;
    if (runner_ != nullptr) {
      runner_->OnGone(peer.rank);
    }
    Miss(RankText(peer.rank, rank.host) + " is gone: " + why, static_cast<int>(peer.rank));
  } else if (peer.claimed) {
    std::vector<uint32_t> left;
    for (uint32_t i = 0; i < ranks_.size(); ++i) {
      if (ranks_[i].launcher == connection) {
        ranks_[i].launcher = nullptr;
        left.push_back(i);
      }
    }
    Miss("the launcher of rank " + ListText(left) + (peer.host.empty() ? "" : " on " + peer.host) + " is gone: " + why,
         -1);
    UpdateProgress();
  }
}

}  // namespace msserving
