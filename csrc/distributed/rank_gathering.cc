// RankServer: how ranks come together.
#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "distributed/local_greeting.h"
#include "distributed/rank_server.h"
#include "distributed/rank_session.h"

namespace msserving {
namespace {

constexpr size_t kMaxGreeting = 64;  // connections on the machine's own socket that have not said anything
constexpr int64_t kClaimNs = 60 * kNanosPerSecond;  // from the configuration on
constexpr size_t kMaxIdentity = 64;

Status Broken() { return Status(ErrorKind::kInvalidInput, "it has sent a broken frame"); }
Status Unexpected() { return Status(ErrorKind::kInvalidInput, "it has sent what is not expected of it now"); }

// 32 hexadecimal digits that nobody can guess.
std::string RandomText() {
  uint8_t bytes[16] = {};
  size_t got = 0;
  while (got < sizeof(bytes)) {
    const ssize_t n = getrandom(bytes + got, sizeof(bytes) - got, 0);
    got += n > 0 ? static_cast<size_t>(n) : 0;
  }
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

// Takes as long whatever is wrong.
bool SameSecret(std::string_view a, std::string_view b) {
  uint8_t different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    different |= static_cast<uint8_t>(a[i] ^ b[i]);
  }
  return different == 0 && !a.empty();
}

}  // namespace

Status RankServer::ListenLocally() {
  local_name_ = "msserving-ranks-" + RandomText();
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path + 1, local_name_.data(), local_name_.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + local_name_.size());
  local_listener_.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!local_listener_ || bind(local_listener_.get(), reinterpret_cast<sockaddr*>(&name), size) != 0 ||
      listen(local_listener_.get(), 1024) != 0) {
    return Status(ErrorKind::kInternal,
                  std::string("cannot listen for ranks on this machine: ") + std::strerror(errno));
  }
  return Status::Ok();
}

Status RankServer::OnFrame(FrameConnection* connection, FrameKind kind, FrameBody* body) {
  Peer& peer = peers_[connection];
  if (peer.dropped) {
    return Status::Ok();
  }
  FrameReader reader(body->bytes());
  switch (kind) {
    case FrameKind::kHelloLauncher: return OnLauncherHello(connection, &peer, &reader);
    case FrameKind::kHelloAgent: return OnAgentHello(connection, &peer, &reader);
    case FrameKind::kClaim: return OnClaim(connection, &peer, &reader);
    case FrameKind::kAgentDied: return OnAgentDied(connection, &reader);
    case FrameKind::kLogLines: return OnLogLines(connection, &reader);
    case FrameKind::kRegister: return OnRegister(connection, &peer, &reader);
    case FrameKind::kAttached: return OnAttached(&peer, &reader);
    case FrameKind::kReady: return OnReady(&peer);
    case FrameKind::kDone: return ready_ && peer.role == Role::kAgent ? runner_->OnDone(peer.rank, body) : Unexpected();
    default: return Unexpected();
  }
}

void RankServer::Refuse(FrameConnection* connection, Peer* peer, const std::string& why) {
  MSSERVING_LOG(kWarning, "Refused: " << why);
  FrameWriter body;
  body.ShortText(why);
  peer->dropped = true;
  connection->Send(FrameKind::kRefused, body.body());
  connection->EndWhenSent(why);
}

Status RankServer::OnLauncherHello(FrameConnection* connection, Peer* peer, FrameReader* reader) {
  const uint32_t magic = reader->U32();
  const std::string identity(reader->Text(kMaxIdentity));
  if (peer->role != Role::kNone || !reader->AtEnd() || magic != kFrameMagic) {
    return Broken();
  }
  // A launcher that comes again has given up its former connection, whatever that looks like from here.
  for (auto& [other, known] : peers_) {
    if (known.role == Role::kLauncher && known.identity == identity && !known.dropped) {
      other->End("the launcher has connected again");
    }
  }
  peer->role = Role::kLauncher;
  peer->identity = identity;
  ExpectSoon(connection, peer, kClaimNs, "it did not claim any ranks");
  connection->Send(FrameKind::kConfiguration, options_.configuration);
  return Status::Ok();
}

Status RankServer::OnClaim(FrameConnection* connection, Peer* peer, FrameReader* reader) {
  peer->host = reader->Text();
  peer->scheduler = reader->Text();
  const uint32_t count = reader->U32();
  if (peer->role != Role::kLauncher || peer->claimed || !reader->ok() || count == 0 || count > ranks_.size()) {
    return Broken();
  }
  std::vector<uint32_t> claimed;
  for (uint32_t i = 0; i < count; ++i) {
    claimed.push_back(reader->U32());
  }
  if (!reader->AtEnd()) {
    return Broken();
  }
  for (const uint32_t rank : claimed) {
    if (rank >= ranks_.size()) {
      Refuse(connection, peer,
             "rank " + std::to_string(rank) + " is claimed from " + peer->host + ", but there are " +
                 std::to_string(ranks_.size()) + " ranks");
      return Status::Ok();
    }
    if (ranks_[rank].launcher != nullptr || std::count(claimed.begin(), claimed.end(), rank) > 1) {
      Refuse(connection, peer,
             "rank " + std::to_string(rank) + " is claimed from " + peer->host + ", but it is claimed already, from " +
                 (ranks_[rank].launcher != nullptr ? ranks_[rank].host : peer->host));
      return Status::Ok();
    }
  }
  if (launched_) {
    Refuse(connection, peer, "the ranks are about to gather anew");
    return Status::Ok();
  }
  for (const uint32_t rank : claimed) {
    ranks_[rank].launcher = connection;
    ranks_[rank].host = peer->host;
  }
  peer->claimed = true;
  loop_.CancelTimer(std::exchange(peer->greeting_timer, 0));
  if (std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.launcher != nullptr; })) {
    Launch();
  }
  UpdateProgress();
  return Status::Ok();
}

void RankServer::Launch() {
  launched_ = true;
  token_ = RandomText();
  FrameWriter body;
  body.Text(token_);
  body.Text(peers_[ranks_[0].launcher].scheduler);
  for (auto& [connection, peer] : peers_) {
    if (peer.claimed && !peer.dropped) {
      connection->Send(FrameKind::kLaunch, body.body());
    }
  }
}

Status RankServer::OnAgentHello(FrameConnection* connection, Peer* peer, FrameReader* reader) {
  const uint32_t magic = reader->U32();
  const std::string token(reader->Text());
  const uint32_t number = reader->U32();
  if (peer->role != Role::kNone || !reader->AtEnd() || magic != kFrameMagic) {
    return Broken();
  }
  if (!launched_ || !SameSecret(token, token_)) {
    Refuse(connection, peer, "an agent for rank " + std::to_string(number) + " does not show this start's token");
    return Status::Ok();
  }
  if (number >= ranks_.size() || ranks_[number].agent != nullptr) {
    Refuse(connection, peer,
           "rank " + std::to_string(number) + (number < ranks_.size() ? " has an agent already" : " does not exist"));
    return Status::Ok();
  }
  peer->role = Role::kAgent;
  peer->rank = number;
  loop_.CancelTimer(std::exchange(peer->greeting_timer, 0));
  ranks_[number].agent = connection;
  return Status::Ok();
}

Status RankServer::OnRegister(FrameConnection* connection, Peer* peer, FrameReader* reader) {
  std::vector<RankModel> models;
  if (peer->role != Role::kAgent || peer->registered) {
    return Unexpected();
  }
  if (!ReadModels(reader, &models)) {
    return Broken();
  }
  peer->registered = true;
  ranks_[peer->rank].models = std::move(models);
  FrameWriter local;
  local.Text(local_name_);
  connection->Send(FrameKind::kLocal, local.body());
  UpdateProgress();
  return Status::Ok();
}

// What comes on the machine's own socket is all there when the agent says so on its connection.
void RankServer::AcceptLocals() {
  while (greeting_.size() < kMaxGreeting) {
    UniqueFd fd(accept4(local_listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) {
      break;
    }
    greeting_.push_back(std::move(fd));
  }
  std::erase_if(greeting_, [this](UniqueFd& fd) { return TakeGreeting(&fd); });
}

// False: nothing has been said yet. Otherwise the connection is a rank's now, or of no use.
bool RankServer::TakeGreeting(UniqueFd* fd) {
  LocalGreeting greeting{};
  UniqueFd bell;
  const ssize_t got = ReceiveGreeting(fd->get(), &greeting, &bell);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
    return false;
  }
  ucred about{};
  socklen_t size = sizeof(about);
  if (got == static_cast<ssize_t>(sizeof(greeting)) && bell && launched_ &&
      SameSecret({greeting.token, sizeof(greeting.token)}, token_) && greeting.rank < ranks_.size() &&
      !ranks_[greeting.rank].socket && getsockopt(fd->get(), SOL_SOCKET, SO_PEERCRED, &about, &size) == 0 &&
      about.uid == geteuid()) {
    // From now on it is used by threads that may wait a moment.
    const timeval patience{2, 0};
    setsockopt(fd->get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd->get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    ranks_[greeting.rank].socket = std::move(*fd);
    ranks_[greeting.rank].bell = std::move(bell);
  }
  return true;
}

Status RankServer::OnAttached(Peer* peer, FrameReader* reader) {
  const bool local = reader->U8() == 1;
  Rank& rank = ranks_[peer->rank];
  if (peer->role != Role::kAgent || !peer->registered || rank.attached || !reader->AtEnd()) {
    return Unexpected();
  }
  // Who did not get there after all, for example because another user runs it, is reached over the network.
  if (local) {
    AcceptLocals();
  }
  rank.attached = true;
  if (std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& one) { return one.attached; })) {
    Begin();
  }
  return Status::Ok();
}

// All ranks are there.
void RankServer::Begin() {
  std::vector<RankDescription> descriptions;
  std::vector<RunnerRank> runners;
  for (uint32_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    descriptions.push_back({i, rank.host, static_cast<bool>(rank.socket), rank.models});
    runners.push_back({descriptions.back(), rank.agent, std::move(rank.socket), std::move(rank.bell)});
  }
  std::vector<SessionInfo> subgraphs;
  if (Status status = AgreeOnModels(descriptions, options_.stage_size, &subgraphs); !status.ok()) {
    FailGroup(status.message());
    return;
  }
  RankRunnerOptions run_options;
  run_options.stage_size = options_.stage_size;
  run_options.rank_timeout_ns = options_.rank_timeout_ns;
  run_options.grace_ns = options_.grace_ns;
  run_options.pipeline = options_.pipeline;
  auto runner = std::make_shared<RankRunner>(&loop_, std::move(runners), run_options,
                                             [this](const std::string& why, int rank) { FailRank(why, rank); });
  {
    std::lock_guard lock(mutex_);
    descriptions_ = std::move(descriptions);
    subgraphs_ = std::move(subgraphs);
    runner_ = runner;
  }
  if (Status status = runner->Begin(); !status.ok()) {
    FailGroup(status.message());
  }
}

Status RankServer::OnReady(Peer* peer) {
  Rank& rank = ranks_[peer->rank];
  if (peer->role != Role::kAgent || runner_ == nullptr || rank.ready) {
    return Unexpected();
  }
  rank.ready = true;
  if (std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& one) { return one.ready; })) {
    ready_ = true;
    SetState(State::kReady, "");
  }
  return Status::Ok();
}

Status RankServer::OnAgentDied(FrameConnection* connection, FrameReader* reader) {
  const uint32_t number = reader->U32();
  const std::string text(reader->Text());
  if (!reader->AtEnd() || number >= ranks_.size() || ranks_[number].launcher != connection) {
    return Broken();
  }
  const bool expected = trouble_timer_ == 0 || trouble_rank_ < 0 || trouble_rank_ == static_cast<int>(number);
  const std::string why = RankText(number, ranks_[number].host) + " has died: " + text;
  if (launched_ && expected) {
    FailGroup(why);
  } else if (launched_) {
    other_death_ = why;
  }
  return Status::Ok();
}

Status RankServer::OnLogLines(FrameConnection* connection, FrameReader* reader) {
  const uint32_t number = reader->U32();
  const std::string text(reader->Text());
  if (!reader->AtEnd() || number >= ranks_.size() || ranks_[number].launcher != connection) {
    return Broken();
  }
  if (trouble_timer_ != 0 && trouble_rank_ == static_cast<int>(number)) {
    FailGroup(text.empty() ? trouble_ : trouble_ + "; the last lines of its log:\n" + text);
  }
  return Status::Ok();
}

}  // namespace msserving
