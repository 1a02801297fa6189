// The worker's half of a distributed servable: launchers and agents come to it, and when all ranks are there they are
// one session for each sub-graph.
//
// Gathering: launchers connect, are given the configuration, and claim the ranks of their machines. When all ranks are
// claimed, every launcher is told to launch, with a token that the agents must show; agents say hello while they load,
// and register their models. A connection that ends meanwhile starts the gathering anew, with another token: what has
// been started for this one cannot be joined by others. An agent that dies before it is ready fails the start.
//
// Ready: a connection that ends, a rank that stays silent or answers nonsense, ends the group for good: all
// connections are closed, on which agents leave, and all runs fail. The worker process then makes room for the next.
//
// Wait() and the other public functions: any thread. All else happens on a thread of its own (`serving-ranks`).
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "distributed/frame_connection.h"
#include "distributed/rank_agreement.h"
#include "distributed/rank_runner.h"
#include "net/acceptor.h"
#include "net/event_loop.h"
#include "net/tls.h"
#include "session/session.h"

namespace msserving {

struct RankServerOptions {
  std::string address;  // "host:port"; port 0 lets the kernel choose, for tests
  uint32_t rank_size = 1;
  uint32_t stage_size = 1;
  bool pipeline = false;          // RankRunnerOptions
  std::string configuration;      // for launchers, not looked into
  std::optional<TlsOptions> tls;  // none: plain TCP
  int64_t rank_timeout_ns = 10 * kNanosPerSecond;
  int64_t heartbeat_ns = kNanosPerSecond;
  int64_t silence_ns = 5 * kNanosPerSecond;
  int64_t grace_ns = 2 * kNanosPerSecond;  // RankRunnerOptions
  // How long the news of an agent's death, or of a run that a rank has failed, waits for what the launcher says of it.
  int64_t obituary_ns = kNanosPerSecond;
};

class RankServer final : private FrameOwner {
 public:
  enum class State { kGathering, kReady, kFailed };

  // Listens when it returns. The error names the address and the reason.
  static Status Create(RankServerOptions options, std::unique_ptr<RankServer>* server);
  // Stops. The sessions must not be run any more.
  ~RankServer();
  RankServer(const RankServer&) = delete;

  const std::string& address() const { return address_; }
  // Until it is no longer gathering, or the time is over. `text`: why it failed.
  State WaitReady(int64_t timeout_ns, std::string* text);
  // "5 of 8 ranks are ready; no launcher has claimed ranks 3, 4": for people.
  std::string Progress();
  // One a rank; empty until it is ready.
  std::vector<RankDescription> Describe();
  // Of sub-graph `subgraph`, when it is ready.
  Status MakeSession(uint32_t subgraph, std::shared_ptr<Session>* session);
  // Called once, on the server's thread, when a group that was ready has failed; at once if it has already.
  void WhenFailed(std::function<void()> function);
  // Why a group that was ready has failed; empty if none has.
  std::string Failure();
  // The orderly end: launchers and agents are told, and leave. Blocks until they have gone, for two seconds at most.
  void Stop(const std::string& reason);

 private:
  enum class Role { kNone, kLauncher, kAgent };
  struct Peer {
    Role role = Role::kNone;
    bool dropped = false;  // what becomes of it does not matter any more
    std::string identity;
    std::string host;
    std::string scheduler;
    uint32_t rank = 0;  // of an agent
    bool claimed = false;
    bool registered = false;
    TimerId greeting_timer = 0;
  };
  struct Rank {
    FrameConnection* launcher = nullptr;
    FrameConnection* agent = nullptr;
    std::string host;
    std::vector<RankModel> models;
    bool attached = false;
    bool ready = false;
    UniqueFd socket;  // local ranks
    UniqueFd bell;
  };

  explicit RankServer(RankServerOptions options) : options_(std::move(options)) {}
  Status Listen();
  Status ListenLocally();

  // On the server's thread.
  void Accept(UniqueFd socket);
  Status OnFrame(FrameConnection* connection, FrameKind kind, FrameBody* body) override;
  void OnGone(FrameConnection* connection, const std::string& why) override;
  Status OnLauncherHello(FrameConnection* connection, Peer* peer, FrameReader* reader);
  Status OnAgentHello(FrameConnection* connection, Peer* peer, FrameReader* reader);
  Status OnClaim(FrameConnection* connection, Peer* peer, FrameReader* reader);
  Status OnRegister(FrameConnection* connection, Peer* peer, FrameReader* reader);
  Status OnAttached(Peer* peer, FrameReader* reader);
  Status OnAgentDied(FrameConnection* connection, FrameReader* reader);
  Status OnLogLines(FrameConnection* connection, FrameReader* reader);
  Status OnReady(Peer* peer);
  void ExpectSoon(FrameConnection* connection, Peer* peer, int64_t within_ns, const char* otherwise);
  void Refuse(FrameConnection* connection, Peer* peer, const std::string& why);
  void Launch();
  void Begin();
  void AcceptLocals();
  bool TakeGreeting(UniqueFd* fd);
  // Something that the group needs has gone; `rank` -1: no single rank.
  void Miss(const std::string& why, int rank);
  void Settle();
  void GatherAnew(const std::string& why);
  void FailGroup(const std::string& why);
  // As FailGroup(), but its launcher is asked first what the rank has printed; -1: no single rank is to blame.
  void FailRank(const std::string& why, int rank);
  void DropAll();
  void TellIfAllGone();
  void UpdateProgress();
  void SetState(State state, const std::string& text);

  const RankServerOptions options_;
  std::string address_;
  EventLoop loop_;
  std::shared_ptr<TlsContext> tls_;
  std::unique_ptr<TlsRefresher> tls_refresher_;
  std::unique_ptr<Acceptor> acceptor_;
  std::string local_name_;
  UniqueFd local_listener_;
  std::vector<UniqueFd> greeting_;  // accepted on it, nothing said yet

  std::map<FrameConnection*, Peer> peers_;
  std::vector<Rank> ranks_;
  std::string token_;
  bool launched_ = false;
  bool ready_ = false;
  bool stopping_ = false;
  TimerId trouble_timer_ = 0;
  std::string trouble_;
  int trouble_rank_ = -1;
  std::string other_death_;  // of another rank than trouble_rank_, told while the trouble waits

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  State state_ = State::kGathering;
  std::string text_;
  std::string progress_;
  std::vector<RankDescription> descriptions_;
  std::vector<SessionInfo> subgraphs_;
  std::shared_ptr<RankRunner> runner_;
  std::function<void()> when_failed_;
  bool was_ready_ = false;
  bool all_gone_ = false;

  std::thread thread_;
};

}  // namespace msserving
