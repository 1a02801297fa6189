// A launcher's or an agent's connection to the worker, with the thread that keeps it alive: heart-beats go on and the
// end is noticed whatever the process does meanwhile.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "distributed/frame_connection.h"
#include "net/event_loop.h"
#include "net/tls.h"

namespace msserving {

// Called on the link's thread.
class RankLinkListener {
 public:
  virtual Status OnFrame(FrameKind kind, FrameBody* body) = 0;
  // Once, and nothing after it.
  virtual void OnEnd(const std::string& why) = 0;

 protected:
  ~RankLinkListener() = default;
};

struct WorkerAddress {
  std::string address;            // "host:port", as users write it
  std::optional<TlsOptions> tls;  // server_name is filled in from the address
};

// Send(): any thread, ends in the order of the calls. The rest: one thread.
class RankLink final : private FrameOwner {
 public:
  // Connects, and no more. kServableUnavailable: nobody is there (yet).
  static Status Open(const WorkerAddress& worker, int64_t timeout_ns, RankLinkListener* listener,
                     std::unique_ptr<RankLink>* link);
  // Starts the thread, which says hello first. Once, before everything else.
  void Start(FrameKind hello, std::string hello_body);
  // No call to the listener after this. Not on the link's thread.
  ~RankLink();
  RankLink(const RankLink&) = delete;

  void Send(FrameKind kind, std::string body = {});
  // As FrameConnection::SendTensors(); `head` and the array of tensors must stay as long as the bytes.
  void SendTensors(FrameKind kind, std::string_view head, uint64_t size, std::span<const MsServingTensor> tensors);
  // Sends what is pending, ends the connection, and waits for that for a second at most.
  void Close();

  // For timers and descriptors, on the link's thread.
  EventLoop& loop() { return loop_; }

 private:
  explicit RankLink(RankLinkListener* listener) : listener_(listener) {}
  Status OnFrame(FrameConnection* connection, FrameKind kind, FrameBody* body) override;
  void OnGone(FrameConnection* connection, const std::string& why) override;

  RankLinkListener* const listener_;
  EventLoop loop_;
  FrameConnection* connection_ = nullptr;  // on the link's thread once that runs
  std::mutex mutex_;                       // guards gone_
  std::condition_variable went_;
  bool gone_ = false;
  std::thread thread_;
};

}  // namespace msserving
